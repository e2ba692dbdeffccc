"""Calls: started, looked at, read, cancelled."""

import asyncio
import hashlib
from collections.abc import Coroutine
from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Header, Path, Query, Request, Response

from tidemill import exception
from tidemill._kept import KeptCall
from tidemill._outcome import Outcome
from tidemill._wire import calls as wire
from tidemill_gateway import calling, decisions, problems, values
from tidemill_gateway.api.answering import (
    JSON,
    Cursor,
    Environment,
    Limit,
    OfApp,
    OfFunction,
    Requester,
    show,
    show_page,
)
from tidemill_gateway.api.apps import AppRef
from tidemill_gateway.api.call_models import (
    Accepted,
    Call,
    CallDetails,
    CallGraph,
    GraphedInput,
    Input,
    Status,
    SucceededRequests,
)
from tidemill_gateway.api.models import Page, fields_of
from tidemill_gateway.api.moments import Since, Until
from tidemill_gateway.handles import Wanted
from tidemill_gateway.problems import Problem
from tidemill_gateway.rate_limits import Origin
from tidemill_gateway.sessions import Session

T = TypeVar("T")

router = APIRouter(tags=["calls"])

CallRef = Annotated[str, Path(pattern=r"^fc-[A-Za-z0-9_-]{1,100}$", description="a call's id")]
Index = Annotated[int, Path(ge=0, lt=1 << 31, description="which input")]
Wait = Annotated[
    float | None,
    Query(ge=0, le=decisions.MAX_WAIT, description="seconds to wait for the result; also `Prefer: wait=N`"),
]
SHOWN_RESULTS = 1_000  # of a call's results, those whose addresses an answer names
ANY_JSON: dict[str, Any] = {"description": "What the function returned", "content": {JSON: {"schema": {}}}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {JSON: {"schema": {"$ref": "#/components/schemas/NewCall"}}},
    }
}


@router.post(
    "/apps/{app}/functions/{function}/calls",
    status_code=202,
    response_model=Accepted,
    responses={200: ANY_JSON},
    openapi_extra=_BODY,
)
async def call_function(
    request: Request,
    requester: Requester,
    app: AppRef,
    function: Annotated[str, Path(pattern=r"^[^/\x00]{1,256}$")],
    environment: Environment = "main",
    version: Annotated[int | None, Query(ge=1, lt=1 << 31, description="of the app; else the newest")] = None,
    wait: Wait = None,
    prefer: Annotated[
        list[str] | None, Header(description="`wait=N`: answer with the result if it comes in N seconds")
    ] = None,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1, max_length=decisions.MAX_KEY, description="requests with the same key are one call"
        ),
    ] = None,
) -> Response:
    """Call a function with JSON.

    Answers 202 with the call's address, or 200 with the result when it is waited for and comes in time.
    """
    async with requester.broker.needed(), request.app.state.bodies.read(request) as body:
        wanted = Wanted(app, function, environment, version)
        handle, app_name, app_environment = await request.app.state.handles.find(requester, wanted)
        calling.check_callable(function, handle)
        origin = Origin(requester.workspace, app_environment, app_name, request.state.token)
        await request.app.state.admission.count(origin)
        digest = hashlib.sha256(b"%d\0%b" % (version or 0, body.raw)).hexdigest()
        started = await calling.start(requester, handle, body.inputs, idempotency_key or "", digest)
        many = body.many
    seconds = decisions.seconds_to_wait(prefer or (), wait)
    call, num_inputs = started.record.call, started.record.num_inputs
    headers = _headers(call, seconds, repeated=started.repeated)
    if seconds:
        outcomes = await _while_connected(
            request, calling.results_if_told(requester, started.record, seconds)
        )
        if outcomes is not None:
            data = [await _json(outcome, index, headers) for index, outcome in enumerate(outcomes)]
            return Response(b"[" + b",".join(data) + b"]" if many else data[0], 200, headers, JSON)
    url = f"/api/v1/calls/{call}"
    results = [f"{url}/results/{index}" for index in range(min(num_inputs, SHOWN_RESULTS))]
    accepted = Accepted(call, num_inputs, url, results)
    return Response(msgspec.json.encode(accepted), 202, headers, JSON)


@router.get("/calls", response_model=Page[Call])
async def list_calls(
    request: Request,
    requester: Requester,
    app: OfApp = "",
    function: OfFunction = "",
    status: Annotated[Status | None, Query()] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    cursor: Cursor = "",
) -> Response:
    """List calls, newest first. Attached calls of Python programs are among them."""
    wanted = wire.ListCalls(
        app_id=app,
        function=function,
        status=status or "",
        since=since.timestamp() if since else None,
        until=until.timestamp() if until else None,
        limit=limit,
        before=cursor,
    )
    found = await requester.page("list_calls", wanted, wire.CallList, cursor)
    return show_page(request, [Call.of(info) for info in found.calls], found.next)


@router.get("/requests", response_model=SucceededRequests)
async def count_requests(
    request: Request,
    requester: Requester,
    app: OfApp = "",
    function: OfFunction = "",
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, Query(ge=1, le=10_080, description="of how many minutes are told")] = 1_440,
) -> Response:
    """Count requests to web functions that succeeded. Most of them are no calls that `/calls` lists."""
    wanted = wire.CountRequests(
        app_id=app,
        function=function,
        since=since.timestamp() if since else None,
        until=until.timestamp() if until else None,
        limit=limit,
    )
    counts = await requester.registry("count_requests", wanted, wire.RequestCounts)
    return show(request, SucceededRequests.of(counts))


@router.get("/calls/{call}", response_model=CallDetails)
async def get_call(
    request: Request,
    requester: Requester,
    call: CallRef,
    first: Annotated[int, Query(ge=0, lt=1 << 31, description="the first input to show")] = 0,
    limit: Limit = 100,
) -> Response:
    """Show a call and some of its inputs."""
    try:
        found = await requester.registry("get_call", wire.GetCall(call, first, limit), wire.CallDetails)
    except exception.NotFoundError:
        # What happens to calls is told to the registry in batches: this one may be too new.
        return show(request, await _unrecorded(requester, call))
    inputs = [Input.of(info) for info in found.inputs]
    return show(request, CallDetails(**fields_of(Call.of(found.call)), inputs=inputs))


@router.get("/calls/{call}/graph", response_model=CallGraph)
async def get_call_graph(
    request: Request, requester: Requester, call: CallRef, cursor: Cursor = ""
) -> Response:
    """Show the tree of calls that a call belongs to."""
    found = await requester.page(
        "get_call_graph", wire.GetCallGraph(call, after=cursor), wire.CallGraph, cursor
    )
    graph = CallGraph(
        root=found.root,
        calls=[Call.of(info) for info in found.calls],
        inputs=[GraphedInput.of(info) for info in found.inputs],
        next_cursor=found.next or None,
        truncated=found.truncated,
    )
    return show(request, graph)


@router.get("/calls/{call}/results/{index}", responses={200: ANY_JSON, 202: {"description": "Not there yet"}})
async def get_result(
    request: Request,
    requester: Requester,
    call: CallRef,
    index: Index,
    wait: Wait = None,
    prefer: Annotated[list[str] | None, Header()] = None,
) -> Response:
    """Return an input's result, waiting for it when asked to; 202 while it is not there."""
    seconds = decisions.seconds_to_wait(prefer or (), wait)
    outcome = await _while_connected(request, calling.result(requester, call, index, seconds))
    headers = _headers(call, seconds)
    if outcome is None:
        return Response(status_code=202, headers={**headers, "Retry-After": "1"})
    return Response(await _json(outcome, index, headers), 200, headers, JSON)


@router.delete("/calls/{call}", status_code=204)
async def cancel_call(
    requester: Requester,
    call: CallRef,
    terminate_containers: Annotated[bool, Query(description="also end the containers that run it")] = False,
) -> Response:
    """Cancel a call: what waits never starts, what runs is stopped, nothing is tried again."""
    await calling.cancel(requester, call, terminate_containers=terminate_containers)
    return Response(status_code=204)


def _headers(call: str, seconds: float, *, repeated: bool = False) -> dict[str, str]:
    headers = {"Location": f"/api/v1/calls/{call}", "Cache-Control": "private, no-cache"}
    if seconds:
        headers["Preference-Applied"] = f"wait={seconds:g}"
    if repeated:
        headers["Idempotency-Replayed"] = "true"
    return headers


async def _while_connected(request: Request, work: Coroutine[Any, Any, T | None]) -> T | None:
    """Do some waiting; end it without a result when the client has gone, or this process is to stop."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    stopping = asyncio.ensure_future(request.app.state.stopping.wait())
    try:
        await asyncio.wait({task, gone, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for each in (task, gone, stopping):
            each.cancel()
        await asyncio.gather(task, gone, stopping, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _json(outcome: Outcome, index: int, headers: dict[str, str]) -> bytes:
    """Return a result as JSON; a failure becomes the answer, as a problem."""
    if outcome.failed:
        raise problems.of_outcome(outcome, index, headers)
    try:
        if len(outcome.data) > 1 << 20:
            return await asyncio.to_thread(values.to_json, outcome.format, outcome.data)
        return values.to_json(outcome.format, outcome.data)
    except values.Unreadable as error:
        raise Problem(422, "not_representable", str(error), headers=headers, index=index) from error


async def _unrecorded(requester: Session, call: str) -> CallDetails:
    record = await calling.stored_record(KeptCall(requester.caller, call))
    return CallDetails(
        id=call,
        status="pending",
        num_inputs=record.num_inputs,
        counts={"pending": record.num_inputs},
        app_id="",
        function_id="",
        function="",
        parent="",
        root=call,
        created=datetime.fromtimestamp(record.created).astimezone(),
        started=None,
        finished=None,
        inputs=[],
    )
