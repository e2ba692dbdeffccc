"""What containers printed: the last lines, those of a range of time, and on and on as they are printed."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response

from tidemill import _logs, exception
from tidemill._kept import KeptCall
from tidemill._log_endings import Ending, app_ending
from tidemill._log_entries import LogEntry, Selection
from tidemill._log_reading import LogReader
from tidemill._wire import apps, calls, subjects
from tidemill._wire.containers import ContainerList, ListContainers
from tidemill_gateway import calling, decisions
from tidemill_gateway.api.answering import Environment, Requester, show
from tidemill_gateway.api.apps import AppRef
from tidemill_gateway.api.calls import CallRef
from tidemill_gateway.api.containers import ContainerRef
from tidemill_gateway.api.moments import Since, Until
from tidemill_gateway.following import EVENTS, NDJSON, Followers, Following
from tidemill_gateway.sessions import Session

router = APIRouter(tags=["logs"])

MAX_LINES = 10_000  # of one answer
MAX_SHOWN = 8 << 20  # characters of one answer
MAX_READ = 16 << 20  # bytes read of the stream for it
READ_AT_ONCE = 4  # answers that are put together at the same time
READ_TIMEOUT = 30.0  # seconds for one
DEFAULT_TAIL = 100

FunctionRef = Annotated[str, Path(pattern=r"^[^/\x00]{1,256}$", description="a function's name")]
Search = Annotated[str, Query(max_length=1_000, description="only lines that contain this text")]
Source = Annotated[
    Literal["stdout", "stderr", "system"] | None, Query(description="only lines of this source")
]
Tail = Annotated[
    int | None,
    Query(ge=1, le=MAX_LINES, description=f"only so many of the last lines; {DEFAULT_TAIL} without a range"),
]
Count = Annotated[int, Query(ge=1, le=MAX_LINES, description="of how many lines the answer is at most")]
Backlog = Annotated[int, Query(ge=0, le=MAX_LINES, description="begin with so many of the last lines")]
LastId = Annotated[
    int | None,
    Header(alias="Last-Event-ID", ge=0, lt=1 << 63, description="go on behind the event with this id"),
]


@dataclass(frozen=True, slots=True)
class Asked:
    """Which lines an answer is to have."""

    since: Since = None
    until: Until = None
    tail: Tail = None
    limit: Count = 1_000
    search: Search = ""
    source: Source = None


@dataclass(frozen=True, slots=True)
class Followed:
    """Which lines a stream is to have."""

    tail: Backlog = 0
    search: Search = ""
    source: Source = None
    last_event_id: LastId = None


STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Lines as they are printed; a comment or an empty line when there is none for a while",
        "content": {kind: {"schema": {"type": "string"}} for kind in (NDJSON, EVENTS)},
    }
}


@dataclass(frozen=True, slots=True)
class Line:
    """A line of output, with its line break. What is not known of it is empty."""

    text: str
    time: datetime
    source: str
    app: str
    function: str
    function_id: str
    call: str
    input: str
    container: str

    @classmethod
    def of(cls, entry: LogEntry) -> "Line":
        """Return it as it is shown."""
        known = entry.context_ids.get
        return cls(
            text=entry.message,
            time=entry.timestamp,
            source=entry.source,
            app=known("app_id", ""),
            function=known("function_name", ""),
            function_id=known("function_id", ""),
            call=known("function_call_id", ""),
            input=known("input_id", ""),
            container=known("container_id", ""),
        )


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines, oldest first. `truncated` when the answer would have been too large for all of them."""

    items: list[Line]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose output it is: what selects it, the ids of functions by name, and when it ends."""

    selection: Selection
    functions: dict[str, str]
    ending: Ending


# --- an app


@router.get("/apps/{app}/logs", response_model=Lines)
async def get_app_logs(
    request: Request,
    requester: Requester,
    app: AppRef,
    asked: Annotated[Asked, Depends()],
    environment: Environment = "main",
) -> Response:
    """Show what the containers of an app printed: the last lines, or those of a range of time."""
    origin = await _of_app(requester, app, environment)
    return await _read(request, requester, origin, asked)


@router.get("/apps/{app}/logs/stream", responses=STREAMED, response_class=Response)
async def follow_app_logs(
    request: Request,
    requester: Requester,
    app: AppRef,
    wanted: Annotated[Followed, Depends()],
    environment: Environment = "main",
) -> Response:
    """Follow what the containers of an app print until it is stopped: NDJSON, or server-sent events."""
    origin = await _of_app(requester, app, environment)
    return _follow(request, requester, origin, wanted)


# --- a function


@router.get("/apps/{app}/functions/{function}/logs", response_model=Lines)
async def get_function_logs(
    request: Request,
    requester: Requester,
    app: AppRef,
    function: FunctionRef,
    asked: Annotated[Asked, Depends()],
    environment: Environment = "main",
) -> Response:
    """Show what the containers of a function printed."""
    origin = await _of_app(requester, app, environment, function)
    return await _read(request, requester, origin, asked)


@router.get("/apps/{app}/functions/{function}/logs/stream", responses=STREAMED, response_class=Response)
async def follow_function_logs(
    request: Request,
    requester: Requester,
    app: AppRef,
    function: FunctionRef,
    wanted: Annotated[Followed, Depends()],
    environment: Environment = "main",
) -> Response:
    """Follow what the containers of a function print until its app is stopped."""
    origin = await _of_app(requester, app, environment, function)
    return _follow(request, requester, origin, wanted)


# --- a call


@router.get("/calls/{call}/logs", response_model=Lines)
async def get_call_logs(
    request: Request,
    requester: Requester,
    call: CallRef,
    asked: Annotated[Asked, Depends()],
) -> Response:
    """Show what a call printed, on whatever containers it ran."""
    origin = await _of_call(requester, call)
    return await _read(request, requester, origin, asked)


@router.get("/calls/{call}/logs/stream", responses=STREAMED, response_class=Response)
async def follow_call_logs(
    request: Request,
    requester: Requester,
    call: CallRef,
    wanted: Annotated[Followed, Depends()],
) -> Response:
    """Follow what a call prints until its app is stopped."""
    origin = await _of_call(requester, call)
    return _follow(request, requester, origin, wanted)


# --- a container


@router.get("/containers/{container}/logs", response_model=Lines)
async def get_container_logs(
    request: Request,
    requester: Requester,
    container: ContainerRef,
    asked: Annotated[Asked, Depends()],
) -> Response:
    """Show what a container printed."""
    origin = await _of_container(requester, container)
    return await _read(request, requester, origin, asked)


@router.get("/containers/{container}/logs/stream", responses=STREAMED, response_class=Response)
async def follow_container_logs(
    request: Request,
    requester: Requester,
    container: ContainerRef,
    wanted: Annotated[Followed, Depends()],
) -> Response:
    """Follow what a container prints until it has ended."""
    origin = await _of_container(requester, container)
    return _follow(request, requester, origin, wanted)


# --- whose output


async def _of_app(requester: Session, app: str, environment: str, function: str = "") -> Origin:
    found = await _details(requester, app, environment)
    functions = {name: handle.function_id for name, handle in found.handles.items()}
    if function and function not in functions:
        raise exception.NotFoundError(
            f"the app {app} has no function {function!r}",
            hint=f"it has {', '.join(sorted(functions)) or 'none'}",
        )
    app_id = found.app.app_id
    subject = subjects.app_logs(requester.workspace, app_id)
    selection = Selection(subject, app=app_id, function=function)
    return Origin(selection, functions, _ending(requester, app_id))


async def _of_call(requester: Session, call: str) -> Origin:
    try:
        found = (await requester.registry("get_call", calls.GetCall(call, 0, 1), calls.CallDetails)).call
        app_id, created = found.app_id, found.created
    except exception.NotFoundError:  # it may be too new for the records
        record = await calling.stored_record(KeptCall(requester.caller, call))
        app_id, created = record.app_id, record.created
    subject = subjects.app_logs(requester.workspace, app_id)
    selection = Selection(subject, app=app_id, call=call, since=max(0.0, created - 60.0))
    return Origin(selection, {}, _ending(requester, app_id))


async def _of_container(requester: Session, container: str) -> Origin:
    async def running() -> ContainerList:
        return await requester.scheduler("list_containers", ListContainers(), ContainerList)

    selection, ending = await _logs.find_container(requester.caller, container, running)
    return Origin(selection, {}, ending)


def _ending(requester: Session, app_id: str) -> Ending:
    async def is_stopped() -> bool:
        return (await _details(requester, app_id, "")).app.state == "stopped"

    return app_ending(app_id, is_stopped)


async def _details(requester: Session, app: str, environment: str) -> apps.AppDetails:
    wanted = apps.GetApp(app) if app.startswith("ap-") else apps.GetApp(name=app, environment=environment)
    return await requester.registry("get_app", wanted, apps.AppDetails)


# --- reading


def _reader(requester: Session, origin: Origin, **narrowed: Any) -> LogReader:
    selection = replace(origin.selection, **narrowed)
    stream = subjects.logs_stream(requester.workspace)
    return LogReader(requester.bus, stream, selection, origin.functions, max_read=MAX_READ)


async def _read(
    request: Request,
    requester: Session,
    origin: Origin,
    asked: Asked,
) -> Response:
    since, until = (
        moment.timestamp() if moment is not None else None for moment in (asked.since, asked.until)
    )
    tail, limit = asked.tail, asked.limit
    begin = max(since or 0.0, origin.selection.since)
    end = until if until is not None else float("inf")
    if end <= begin:
        return show(request, Lines([], truncated=False))
    reader = _reader(
        requester, origin, since=begin, until=end, search=asked.search, source=asked.source or ""
    )
    ranged = since is not None or until is not None
    if tail is None and not ranged:
        tail = DEFAULT_TAIL
    try:
        async with request.app.state.reading, asyncio.timeout(READ_TIMEOUT):
            found = await reader.tail(tail, await reader.last()) if tail else await _first(reader, limit)
    except TimeoutError as error:
        raise exception.ServiceError(
            "the output could not be read in time", hint="ask for less of it"
        ) from error
    lines, truncated = decisions.bounded(found, MAX_SHOWN, last=tail is not None)
    if tail is None and len(lines) > limit:
        lines, truncated = lines[:limit], True
    return show(request, Lines([Line.of(entry) for entry in lines], truncated or reader.gave_up))


async def _first(reader: LogReader, limit: int) -> list[LogEntry]:
    found, size = [], 0
    async with aclosing(reader.fetch(limit + 1)) as entries:
        async for entry in entries:
            found.append(entry)
            size += len(entry.message)
            if size > MAX_SHOWN:
                break
    return found


def _follow(request: Request, requester: Session, origin: Origin, wanted: Followed) -> Response:
    reader = _reader(requester, origin, search=wanted.search, source=wanted.source or "")
    events = EVENTS in request.headers.get("accept", "")
    following = Following(
        requester.caller, reader, origin.ending, tail=wanted.tail, after=wanted.last_event_id
    )
    followers: Followers = request.app.state.followers
    return followers.response(following, request.app.state.stopping, events=events, shown=Line.of)
