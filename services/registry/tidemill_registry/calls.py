"""Questions about calls: the graph of one, one in detail, many newest first."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Text, any_, literal, select, text, tuple_
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tidemill._wire import ids, phases
from tidemill._wire.calls import (
    FINISHED,
    CallDetails,
    CallGraph,
    CallList,
    CallSummary,
    CountRequests,
    GetCall,
    GetCallGraph,
    GraphInput,
    InputDetails,
    ListCalls,
    State,
)
from tidemill.exception import InvalidError, NotFoundError
from tidemill_registry import folding, request_counts
from tidemill_registry.database import transaction
from tidemill_registry.recording import Recording
from tidemill_registry.rows import COUNT_COLUMNS, PoolInfo, named
from tidemill_registry.schema import Call, Input

MAX_LISTED = 1_000
SCANNED = 5_000  # calls looked at for one page of a list
MAX_CALLS = 50_000  # of one graph
PAGE_CALLS, PAGE_INPUTS = 1_000, 5_000  # of a graph in one answer

PENDING, SUCCESS, TERMINATED = "pending", "success", "terminated"
STATUSES = {
    State.SUCCESS: SUCCESS,
    State.FAILURE: "failure",
    State.TIMEOUT: "timeout",
    State.CANCELLED: TERMINATED,
    State.INIT_FAILURE: "init_failure",
}
_WORST = ("init_failure", "failure", "timeout", TERMINATED)  # of several, the first is the call's


class Calls:
    """Answers about calls, each workspace about its own."""

    def __init__(self, engine: AsyncEngine, recording: Recording) -> None:
        self._engine = engine
        self._recording = recording

    # --- requests

    async def graph(self, workspace: str, request: GetCallGraph) -> CallGraph:
        """Return the tree of a call, a page of it at a time."""
        if request.after:
            return await self._graph(workspace, request)
        with suppress(NotFoundError):  # nothing of it has arrived yet
            found = await self._graph(workspace, request)
            if not any(call.status == PENDING for call in found.calls):
                return found
        await self._recording.settled(workspace)
        return await self._graph(workspace, request)

    async def get(self, workspace: str, request: GetCall) -> CallDetails:
        """Return one call with some of its inputs."""
        if not 1 <= request.limit <= MAX_LISTED:
            raise InvalidError(f"limit must be between 1 and {MAX_LISTED:,}")
        with suppress(NotFoundError):  # nothing of it has arrived yet
            found = await self._get(workspace, request)
            if found.call.status != PENDING:
                return found
        await self._recording.settled(workspace)
        return await self._get(workspace, request)

    async def _get(self, workspace: str, request: GetCall) -> CallDetails:
        async with transaction(self._engine) as connection:
            call = (await self._summaries(connection, workspace, [request.call]))[:1]
            if not call:
                raise _unknown(request.call)
            query = (
                select(Input)
                .where(Input.call_id == request.call, Input.workspace == workspace)
                .where(Input.number >= request.first)
                .order_by(Input.number)
                .limit(request.limit)
            )
            rows = (await connection.execute(query)).all()
        ended = call[0].status != PENDING
        return CallDetails(call[0], tuple(_details(row, ended=ended) for row in rows))

    async def newest(self, workspace: str, request: ListCalls) -> CallList:
        """Return calls, newest first."""
        if not 1 <= request.limit <= MAX_LISTED:
            raise InvalidError(f"limit must be between 1 and {MAX_LISTED:,}")
        if request.status and request.status not in (PENDING, *STATUSES.values()):
            known = ", ".join((PENDING, *STATUSES.values()))
            raise InvalidError(f"there is no status {request.status!r}", hint=f"there are {known}")
        shown: list[CallSummary] = []
        before = request.before
        requests = 0
        async with transaction(self._engine) as connection:
            if not before and request.status in ("", SUCCESS):
                wanted = CountRequests(
                    request.app_id, request.function_id, request.function, request.since, request.until
                )
                requests = await request_counts.total(connection, workspace, wanted)
            for _ in range(max(1, SCANNED // request.limit)):
                found = await self._page(connection, workspace, request, before)
                before = found[-1] if len(found) == request.limit else ""
                for call in reversed(await self._summaries(connection, workspace, found)):
                    if not request.status or call.status == request.status:
                        shown.append(call)
                        if len(shown) == request.limit:
                            return CallList(tuple(shown), call.call, requests)
                if not before:
                    break
        return CallList(tuple(shown), before, requests)

    # --- lists

    async def _page(
        self, connection: AsyncConnection, workspace: str, request: ListCalls, before: str
    ) -> Sequence[str]:
        query = select(Call.id).where(Call.workspace == workspace)
        if request.app_id:
            query = query.where(Call.app_id == request.app_id)
        if request.function_id:
            query = query.where(Call.function_id == request.function_id)
        if request.function:
            query = query.where(named(request.function, Call.function_id, Call.method))
        if request.since is not None:
            query = query.where(Call.id >= ids.first_at(ids.CALL, request.since))
        if request.until is not None:
            query = query.where(Call.id < ids.first_at(ids.CALL, request.until))
        if before:
            query = query.where(Call.id < before)
        if mask := _mask(request.status):
            query = query.where(Call.states.op("&")(mask) != 0)
        return (await connection.scalars(query.order_by(Call.id.desc()).limit(request.limit))).all()

    async def _summaries(
        self, connection: AsyncConnection, workspace: str, calls: Sequence[str]
    ) -> list[CallSummary]:
        """Return calls in the order of their ids."""
        rows = (await connection.execute(_SUMMARIES, {"calls": list(calls), "workspace": workspace})).all()
        pools = await self._recording.pools.find(connection, {row.pool_id for row in rows})
        return [_summary(row, pools) for row in rows]

    # --- graphs

    async def _graph(self, workspace: str, request: GetCallGraph) -> CallGraph:
        last, index = _cursor(request.after)
        async with transaction(self._engine) as connection:
            root, members = await self._members(connection, workspace, request)
            left = [call for call in members if call >= last]
            calls, more = left[:PAGE_CALLS], left[PAGE_CALLS:]
            inputs = await self._inputs(connection, workspace, calls, (last, index))
            following = f"{more[0]}/-1" if more else ""
            if len(inputs) > PAGE_INPUTS:
                inputs = inputs[:PAGE_INPUTS]
                calls = [call for call in calls if call <= inputs[-1].call_id]
                following = f"{inputs[-1].call_id}/{inputs[-1].number}"
            summaries = await self._summaries(connection, workspace, calls)
        ended = {call.call for call in summaries if call.status != PENDING}
        shown = tuple(_graph_input(row, ended=row.call_id in ended) for row in inputs)
        told = tuple(call for call in summaries if call.call != last or index < 0)
        return CallGraph(root, told, shown, following, len(members) >= MAX_CALLS)

    async def _members(
        self, connection: AsyncConnection, workspace: str, request: GetCallGraph
    ) -> tuple[str, Sequence[str]]:
        """Return the root of a call, and the calls of its tree or of its own part, by id."""
        mine = Call.workspace == workspace
        root = await connection.scalar(select(Call.root).where(Call.id == request.call, mine))
        if root is None:
            raise _unknown(request.call)
        query = select(Call.id, Call.parent).where(Call.root == root, mine).order_by(Call.id)
        rows = (await connection.execute(query.limit(MAX_CALLS))).all()
        if request.whole:
            return root, [row.id for row in rows]
        return request.call, _below(request.call, {row.id: row.parent for row in rows})

    async def _inputs(
        self, connection: AsyncConnection, workspace: str, calls: Sequence[str], after: tuple[str, int]
    ) -> "list[Row[str, int, int, str]]":
        position = tuple_(Input.call_id, Input.number)
        query = (
            select(Input.call_id, Input.number, Input.state, Input.container)
            .where(Input.call_id == any_(literal(calls, ARRAY(Text))), Input.workspace == workspace)
            .where(position > after)
            .order_by(Input.call_id, Input.number)
        )
        return list(await connection.execute(query.limit(PAGE_INPUTS + 1)))


_COUNTS = ", ".join(
    f"count(*) FILTER (WHERE state = {int(state)}) AS {name}"
    for state, name in zip(folding.COUNTED, COUNT_COLUMNS, strict=True)
)
_BITS = ", ".join(f"coalesce(sum(bit_count({name})), 0) AS {name}" for name in COUNT_COLUMNS)
_SUMMARIES = text(f"""
SELECT c.*, {", ".join(f"i.{name} + n.{name} AS {name}" for name in COUNT_COLUMNS)}
FROM calls c
CROSS JOIN LATERAL (SELECT {_COUNTS} FROM inputs WHERE (call_id, workspace) = (c.id, c.workspace)) i
CROSS JOIN LATERAL (SELECT {_BITS} FROM input_counts WHERE (call_id, workspace) = (c.id, c.workspace)) n
WHERE c.id = ANY(CAST(:calls AS text[])) AND c.workspace = :workspace
ORDER BY c.id
""")  # noqa: S608  # of constants


def _summary(row: Row[Any], pools: Mapping[str, PoolInfo]) -> CallSummary:
    pool = pools.get(row.pool_id)
    counts = {name: int(getattr(row, name)) for name in COUNT_COLUMNS}
    counts = {name: count for name, count in counts.items() if count}
    pending = max(0, row.num_inputs - sum(counts.values()))
    cancelled = row.cancelled_at is not None
    if pending and cancelled:
        counts[TERMINATED] = counts.get(TERMINATED, 0) + pending
        pending = 0
    return CallSummary(
        call=row.id,
        root=row.root,
        parent=row.parent,
        app_id=row.app_id,
        function_id=row.function_id,
        function=pool.shown(row.method) if pool else "",
        module=pool.module if pool else "",
        pool=row.pool_id,
        status=TERMINATED if cancelled and not counts else status_of(counts, pending),
        num_inputs=row.num_inputs,
        counts=counts | ({PENDING: pending} if pending else {}),
        created=ids.time_of(row.id),
        started=_unix(row.started_at),
        finished=None if pending else _unix(row.finished_at),
    )


def status_of(counts: Mapping[str, int], pending: int) -> str:
    """Return a call's status from those of its inputs."""
    if pending:
        return PENDING
    return next((status for status in _WORST if counts.get(status)), SUCCESS)


def _below(call: str, parents: Mapping[str, str]) -> list[str]:
    """Return a call and all that it led to; `parents` are input ids, by call, in the order of the calls.

    A call is made after the one that makes it, so that its id is the greater one.
    """
    members = {call}
    for each, parent in parents.items():
        if parent and _call_of(parent) in members:
            members.add(each)
    return [each for each in parents if each in members]


def _call_of(input_id: str) -> str:
    try:
        return ids.parse_input_id(input_id)[0]
    except ValueError:
        return ""


def _mask(status: str) -> int:
    """Return the bits of `Call.states` of which a call in a status has one, 0 for any."""
    return next((1 << state for state, name in STATUSES.items() if name == status and name in _WORST), 0)


def _input_status(state: int, *, ended: bool) -> str:
    """Return an input's status; of a call that has ended, what did not finish was cancelled."""
    if state >= FINISHED:
        return STATUSES[State(state)]
    return TERMINATED if ended else PENDING


def _graph_input(row: "Row[str, int, int, str]", *, ended: bool) -> GraphInput:
    return GraphInput(row.call_id, row.number, _input_status(row.state, ended=ended), row.container)


def _details(row: Row[Any], *, ended: bool) -> InputDetails:
    tries = folding.tries_of(row.tries)
    times = _unix(row.queued_at), _unix(row.started_at), _unix(row.finished_at)
    return InputDetails(
        input_id=ids.input_id(row.call_id, row.number),
        index=row.number,
        status=_input_status(row.state, ended=ended),
        container=row.container,
        attempts=len(tries) + (row.state not in (State.QUEUED, State.RETRIED)),
        queued=times[0],
        started=times[1],
        finished=times[2] if row.state >= FINISHED else None,
        reason=row.reason,
        tries=tries,
        phases=phases.of(*times, row.moments) if row.state >= FINISHED else {},
    )


def _unix(value: datetime | None) -> float | None:
    return value.timestamp() if value is not None else None


def _cursor(after: str) -> tuple[str, int]:
    if not after:
        return "", -1
    call, slash, index = after.rpartition("/")
    try:
        if slash:
            return call, int(index)
    except ValueError:
        pass
    raise InvalidError(f"not the end of a page: {after!r}")


def _unknown(call: str) -> NotFoundError:
    days = folding.RETENTION / 86_400
    return NotFoundError(
        f"nothing is recorded about {call}",
        hint=f"records are kept for {days:g} days; web requests that succeed are mostly only counted",
    )
