"""One run of an app, from its record at the registry to its end.

    created -> code stored -> functions published -> running, a sign of life every 15 s -> stopped

Whatever breaks on the way, an app that was created is stopped, in bounded time; if even that cannot be
said, the registry ends it when its signs of life have stopped coming.
"""

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from tidemill import exception
from tidemill._bus.protocol import BusError
from tidemill._caller import explain
from tidemill._dataclass import dataclass
from tidemill._output import Output
from tidemill._plan import Plan, send, tree
from tidemill._watching import Watch
from tidemill._wire.apps import (
    AppCreated,
    AppHeartbeat,
    CreateApp,
    FunctionsPublished,
    PublishFunctions,
    StopApp,
)
from tidemill._wire.control import Done, FunctionHandle
from tidemill._wire.specs import FunctionSpec
from tidemill.config import config

if TYPE_CHECKING:
    from tidemill._client import Client
    from tidemill._interactive import Lender

STOP_TIMEOUT = 5.0  # seconds
STOP_PAUSE = 0.2  # seconds between two tries
PUBLISH_TIMEOUT = 60.0  # seconds

_log = logging.getLogger("tidemill")


@dataclass(frozen=True, slots=True)
class Running:
    """An app that runs: its id, where it can be looked at, and what its functions are called through.

    `publish` gives it other functions, as a new version. `over` is done once the server says that the app
    does not run any more.
    """

    app_id: str
    url: str
    handles: Mapping[str, FunctionHandle]
    publish: Callable[[Sequence[FunctionSpec]], Awaitable[Mapping[str, FunctionHandle]]]
    over: asyncio.Future[None]


Send = Callable[[Plan, "Client"], Awaitable[Sequence[FunctionSpec]]]


@contextlib.asynccontextmanager
async def run(
    plan: Plan,
    client: "Client",
    output: Output | None,
    *,
    detach: bool = False,
    interactive: bool = False,
    send: Send = send,
) -> AsyncIterator[Running]:
    """Run an app while this context is open.

    `detach` lets it go on afterwards, `interactive` lends this process's terminal to its functions. `send`
    stores what the plan holds, and returns its specifications complete.
    """
    current = _Run(plan, client, output, send, detach=detach, interactive=interactive)
    try:
        yield await current.start()
    except BaseException as error:
        _explain_missing_module(error)
        await current.stop(error)
        raise
    else:
        await current.stop(None)


class _Run:
    """The steps of one run. What is not there yet need not be ended."""

    def __init__(
        self,
        plan: Plan,
        client: "Client",
        output: Output | None,
        send: Send,
        *,
        detach: bool,
        interactive: bool,
    ) -> None:
        self._plan = plan
        self._send = send
        self._interactive = interactive
        self._detach = detach
        self._client = client
        self._shown = output or Output(quiet=True)
        self._is_watched = output is not None
        self._logs_timeout = config["logs_timeout"]  # told now if it cannot be read, not when all is over
        self._created: AppCreated | None = None
        self._is_published = False
        self._watch: Watch | None = None
        self._signs: asyncio.Task[None] | None = None
        self._lender: Lender | None = None

    # --- beginning

    async def start(self) -> Running:
        self._shown.status("Initializing…")
        created = self._created = await self._create()
        self._shown.line(f"✓ Initialized.{_view(created)}")
        self._signs = asyncio.create_task(self._give_signs_of_life(created.app_id), name="signs of life")
        if self._is_watched:
            await self._open_watch(created.app_id)
        if self._interactive:
            await self._lend_terminal(created.app_id)
        self._shown.status("Creating objects…")
        handles = await self._publish_plan(created.app_id)
        self._shown.line("\n".join(tree(self._plan, handles)))
        self._shown.status("Running…")
        publish = partial(self._publish, created.app_id)
        return Running(created.app_id, created.url, handles, publish, self._signs)

    async def _create(self) -> AppCreated:
        plan = self._plan
        state = "detached" if self._detach else "ephemeral"
        message = CreateApp(plan.name, plan.description, state, plan.environment, dict(plan.tags))
        return await self._client.request("registry", "create_app", message, AppCreated)

    async def _open_watch(self, app_id: str) -> None:
        caller = await self._client.connect()
        self._watch = Watch(caller.bus, caller.workspace, app_id, self._shown)
        try:
            await self._watch.open()
        except BusError as error:
            raise explain(error) from error

    async def _lend_terminal(self, app_id: str) -> None:
        from tidemill._interactive import Lender

        caller = await self._client.connect()
        self._lender = Lender(caller.bus, caller.workspace, app_id, self._shown)
        try:
            await self._lender.open()
        except BusError as error:
            raise explain(error) from error

    async def _publish_plan(self, app_id: str) -> Mapping[str, FunctionHandle]:
        if not self._plan.specs:
            return {}
        specs = await self._send(self._plan, self._client)
        if self._interactive:
            specs = [replace(spec, interactive=True) for spec in specs]
        return await self._publish(app_id, specs)

    async def _publish(self, app_id: str, specs: Sequence[FunctionSpec]) -> Mapping[str, FunctionHandle]:
        message = PublishFunctions(app_id, tuple(specs))
        published = await self._client.request(
            "registry", "publish_functions", message, FunctionsPublished, timeout=PUBLISH_TIMEOUT
        )
        self._is_published = True
        return published.handles

    async def _give_signs_of_life(self, app_id: str) -> None:
        """Tell the registry that the caller is there; a missed sign is made up for by the next."""
        while True:
            await asyncio.sleep(config["heartbeat_interval"])
            try:
                await self._client.request("registry", "heartbeat", AppHeartbeat(app_id), Done)
            except (exception.NotFoundError, exception.ConflictError) as error:
                self._shown.warn(f"the app does not run any more: {error}")
                return
            except exception.Error as error:
                _log.debug("a sign of life did not get through: %s", error)

    # --- ending

    async def stop(self, error: BaseException | None) -> None:
        """End the app, or leave it to itself if it is detached and got so far. Never raises."""
        created = self._created
        try:
            if created is None:
                return
            if self._lender is not None:
                interrupted = isinstance(error, KeyboardInterrupt | SystemExit | asyncio.CancelledError)
                await self._lender.close(at_once=interrupted)
            if self._detach and self._is_published:
                self._shown.line(f"The app {created.app_id} goes on after this program.{_view(created)}")
                return
            self._shown.status("Stopping app…")
            await self._stop_app(created.app_id, _reason(error))
            await self._hear_last_words()
            self._shown.line(_farewell(error) + _view(created))
        finally:
            await self._close()

    async def _stop_app(self, app_id: str, reason: str) -> None:
        """Say that the app is to end; while nobody can be reached, for a bounded time, say it again."""
        problem: Exception | None = None
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                while True:
                    try:
                        await self._client.request("registry", "stop_app", StopApp(app_id, reason), Done)
                        return
                    except (exception.ConnectionError, exception.ServiceError) as error:
                        problem = error
                    await asyncio.sleep(STOP_PAUSE)
        except TimeoutError:
            problem = problem or exception.ServiceError("no answer in time")
        except exception.Error as error:
            problem = error
        self._shown.warn(
            f"the app could not be stopped: {problem}",
            "without signs of life from here the server ends it within a minute",
        )

    async def _hear_last_words(self) -> None:
        if self._watch is not None:
            timeout = self._logs_timeout
            if not await self._watch.until_quiet(timeout):
                _log.debug("containers went on for more than %s s", timeout)

    async def _close(self) -> None:
        self._shown.status("")
        if self._signs is not None:
            self._signs.cancel()
            await asyncio.wait((self._signs,))
        if self._watch is not None:
            await self._watch.close()


# --- what is said


def _explain_missing_module(error: BaseException) -> None:
    """Say what to do when a container lacks a module that is only here."""
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if not name or name in sys.stdlib_module_names:
        return
    module = sys.modules.get(name)
    paths = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", ())]
    if module is not None and not any("site-packages" in path for path in paths):
        error.add_note(
            f"{name} is a local module: give it to the image with .add_local_python_source({name!r})"
        )


def _view(created: AppCreated) -> str:
    return f" View it at {created.url}" if created.url else ""


def _reason(error: BaseException | None) -> str:
    if error is None:
        return "completed"
    if isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
        return "interrupted"
    return f"uncaught exception raised locally: {type(error).__name__}"


def _farewell(error: BaseException | None) -> str:
    if error is None:
        return "✓ App completed."
    if isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
        return "App aborted."
    return f"App stopped: {_reason(error)}."
