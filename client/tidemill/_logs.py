"""`App.logs`, `Function.logs`, `FunctionCall.logs`: what their containers printed."""

import datetime
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tidemill import _sync, exception
from tidemill._bus.protocol import BusError
from tidemill._caller import explain
from tidemill._log_endings import Ending, app_ending, container_ending, until_over
from tidemill._log_entries import SOURCES, LogEntry, Selection
from tidemill._log_reading import LogReader
from tidemill._wire import subjects
from tidemill._wire.apps import AppDetails, GetApp
from tidemill._wire.containers import ContainerList, ListContainers
from tidemill.config import config

if TYPE_CHECKING:
    from tidemill._caller import Caller
    from tidemill._client import Client

MAX_ENTRIES = 20_000  # of one fetch
DEFAULT_TAIL = 100
MAX_RANGE = datetime.timedelta(days=35)

Time = datetime.datetime | datetime.timedelta  # a point in time, or how long ago


@dataclass(frozen=True)
class Origin:
    """Whose output it is: what is selected, the ids of the functions by name, and how it ends."""

    caller: "Caller"
    selection: Selection
    functions: dict[str, str]
    ending: Ending


class Logs:
    """The output of an app, a function or a call: lines with their time, source and context.

    Output is kept for seven days, or less where there is very much of it.

    Example:
        for entry in app.logs.tail(20):
            print(entry.timestamp, entry.message, end="")
    """

    def __init__(self, find: Callable[[], Awaitable[Origin]]) -> None:
        self._find = find

    @_sync.stream
    async def fetch(
        self,
        *,
        since: Time | None = None,
        until: Time | None = None,
        limit: int = MAX_ENTRIES,
        search: str = "",
        source: str = "",
    ) -> AsyncGenerator[LogEntry, None]:
        """Yield the lines of a range of time, oldest first.

        Args:
            since: its beginning, as a time or as a `timedelta` before now; without it all that is kept.
            until: its end; without it now. At most 35 days after the beginning.
            limit: at most so many lines, up to 20,000.
            search: only lines that contain this text.
            source: only `stdout`, `stderr` or `system`.
        """
        if not 1 <= limit <= MAX_ENTRIES:
            raise exception.InvalidError(f"limit has to be between 1 and {MAX_ENTRIES:,}, not {limit!r}")
        reader = _reader(await self._find(), since, until, search, source)
        async with aclosing(reader.fetch(limit)) as entries:
            async for entry in entries:
                yield entry

    @_sync.stream
    async def tail(
        self,
        n: int = DEFAULT_TAIL,
        *,
        since: Time | None = None,
        until: Time | None = None,
        search: str = "",
        source: str = "",
    ) -> AsyncGenerator[LogEntry, None]:
        """Yield the last lines, oldest first.

        Args:
            n: how many, up to 20,000.
            since, until, search, source: see `fetch`.
        """
        if not 1 <= n <= MAX_ENTRIES:
            raise exception.InvalidError(f"n has to be between 1 and {MAX_ENTRIES:,}, not {n!r}")
        reader = _reader(await self._find(), since, until, search, source)
        for entry in await reader.tail(n, await reader.last()):
            yield entry

    @_sync.stream
    async def stream(
        self, *, tail: int = 0, search: str = "", source: str = ""
    ) -> AsyncGenerator[LogEntry, None]:
        """Yield lines as they are printed, until the app has stopped, or the container ended.

        Args:
            tail: begin with so many of the last lines.
            search, source: see `fetch`.
        """
        origin = await self._find()
        reader = _reader(origin, None, None, search, source)
        after = await reader.last()
        if tail:
            for entry in await reader.tail(tail, after):
                yield entry
        ending = until_over(origin.caller, origin.ending)
        async with ending as is_over, aclosing(reader.follow(after, is_over)) as entries:
            async for entry in entries:
                yield entry


def _reader(origin: Origin, since: Time | None, until: Time | None, search: str, source: str) -> LogReader:
    if source and source not in SOURCES.values():
        raise exception.InvalidError(f"not a source of output: {source!r}", hint="stdout, stderr or system")
    selection = replace(origin.selection, search=search, source=source or origin.selection.source)
    selection = _ranged(selection, since, until)
    caller = origin.caller
    return LogReader(caller.bus, subjects.logs_stream(caller.workspace), selection, origin.functions)


def _ranged(selection: Selection, since: Time | None, until: Time | None) -> Selection:
    begin = _unix(since) if since is not None else selection.since
    end = _unix(until) if until is not None else selection.until
    now = datetime.datetime.now(datetime.UTC).timestamp()
    if since is not None and min(end, now) - begin > MAX_RANGE.total_seconds() + 1:
        raise exception.InvalidError(f"output can be asked for up to {MAX_RANGE.days} days at once")
    if end <= begin:
        raise exception.InvalidError("until has to be later than since")
    return replace(selection, since=max(begin, selection.since), until=end)


def _unix(time: Time) -> float:
    if isinstance(time, datetime.timedelta):
        return (datetime.datetime.now(datetime.UTC) - time).timestamp()
    return time.astimezone().timestamp()


# --- whose output


async def find_app(client: "Client", app: str, environment: str = "") -> str:
    """Return the id of an app, given that or the name of a deployed one."""
    return (await _details(client, app, environment)).app.app_id


async def of_app(client: "Client", app: str, environment: str = "") -> Origin:
    """Return the output of an app, by id or, if it is deployed, by name."""
    caller = await client.connect()
    found = await _details(client, app, environment)
    app_id = found.app.app_id
    functions = {name: handle.function_id for name, handle in found.handles.items()}
    selection = Selection(subjects.app_logs(caller.workspace, app_id), app=app_id)
    return Origin(caller, selection, functions, _ending(client, app_id))


def of_system(origin: Origin) -> Origin:
    """Return only what Tidemill itself said, such as the lines of builds."""
    return replace(origin, selection=replace(origin.selection, source="system"))


async def of_function(client: "Client", app_id: str, name: str, function_id: str) -> Origin:
    """Return the output of one function."""
    caller = await client.connect()
    selection = Selection(subjects.app_logs(caller.workspace, app_id), app=app_id, function=name)
    return Origin(caller, selection, {name: function_id}, _ending(client, app_id))


async def of_call(client: "Client", call: str, app_id: str, created: float) -> Origin:
    """Return the output of one call."""
    caller = await client.connect()
    subject, since = subjects.app_logs(caller.workspace, app_id), max(0.0, created - 60.0)
    selection = Selection(subject, app=app_id, call=call, since=since)
    return Origin(caller, selection, {}, _ending(client, app_id))


async def of_container(client: "Client", container: str) -> Origin:
    """Return the output of one container. `NotFoundError` if none is kept, and it does not run."""
    caller = await client.connect()

    async def running() -> ContainerList:
        return await client.request("scheduler", "list_containers", ListContainers(), ContainerList)

    selection, ending = await find_container(caller, container, running)
    return Origin(caller, selection, {}, ending)


async def find_container(
    caller: "Caller", container: str, running: Callable[[], Awaitable[ContainerList]]
) -> tuple[Selection, Ending]:
    """Return what selects the output of a container, and when that ends.

    Raises:
        InvalidError: it can be no id of one.
        NotFoundError: it has left no output and does not run.
    """
    try:
        subject = subjects.container_logs(caller.workspace, container)
    except ValueError as error:
        raise exception.InvalidError(f"not the id of a container: {container!r}") from error
    try:
        last = await caller.bus.last(subjects.logs_stream(caller.workspace), subject)
    except BusError as error:
        raise explain(error) from error
    found = next((one for one in (await running()).containers if one.container == container), None)
    if found is not None:
        app_id = found.app_id
    elif last is not None:
        app_id = subjects.app_of_logs(last.subject)
    else:
        raise exception.NotFoundError(
            f"no container {container} runs, and no output of one is kept",
            hint="`tidemill container list` shows those that run, `tidemill call info` those of a call",
        )
    return Selection(subject, container=container), container_ending(app_id, container, running)


def _ending(client: "Client", app_id: str) -> Ending:
    async def is_stopped() -> bool:
        return (await _details(client, app_id, "")).app.state == "stopped"

    return app_ending(app_id, is_stopped)


async def _details(client: "Client", app: str, environment: str) -> AppDetails:
    environment = environment or config["environment"]
    by_id = app.startswith("ap-")
    request = GetApp(app_id=app if by_id else "", name="" if by_id else app, environment=environment)
    return await client.request("registry", "get_app", request, AppDetails)
