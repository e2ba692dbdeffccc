"""Apps that stay: deployed, found again, looked at, tagged, stopped.

A deployment is one request: code and secrets are stored first, so that the registry's one transaction is
all that decides. It may be sent twice: the second time it finds nothing changed.
"""

import asyncio
import datetime
import time
from collections.abc import Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tidemill import __version__, _entrypoint, _following, _names, _plan, _replacing, _runtime, exception
from tidemill._dataclass import dataclass
from tidemill._output import Output
from tidemill._wire import deploying as wire
from tidemill._wire.apps import AppCreated, AppDetails, GetApp
from tidemill._wire.control import Done, FunctionHandle
from tidemill.config import config
from tidemill.exception import InvalidError, NotFoundError

if TYPE_CHECKING:
    from tidemill._client import Client
    from tidemill._standing import Standing

A = TypeVar("A")
B = TypeVar("B")

STRATEGIES = ("rolling", "recreate")
DEPLOY_TIMEOUT = 15.0  # seconds of one try: a version waits for its containers for up to 10 of them
TRIES = 3


class Record(NamedTuple):
    """An app as the server has it: its id, where it can be looked at, and through which client."""

    app_id: str
    url: str
    client: "Client"


@dataclass(frozen=True, slots=True)
class AppInfo:
    """What the server knows about an app.

    `state` is `ephemeral`, `detached`, `deployed` or `stopped`; `version` is the number of its present
    deployment, 0 before the first one.
    """

    app_id: str
    name: str | None
    description: str
    state: str
    environment: str
    created_at: datetime.datetime
    version: int
    functions: tuple[str, ...]
    tags: Mapping[str, str]
    stopped_at: datetime.datetime | None
    stop_reason: str


# --- deploying


@dataclass(frozen=True, slots=True)
class Wanted:
    """A deployment as it is asked for."""

    name: str | None
    environment: str
    tag: str
    strategy: str

    def check(self, app: "Standing") -> None:
        """Refuse what cannot be. Raises `InvalidError`."""
        _entrypoint.check_place("deploy")
        if self.name is not None:
            _names.check_object("an app", self.name)
        if not (self.name or app.name):
            raise InvalidError(
                "an app without a name cannot be deployed",
                hint='name it, tidemill.App("name"), or the deployment: --name, or name=',
            )
        if self.strategy not in STRATEGIES:
            raise InvalidError(f"not a strategy: {self.strategy!r}", hint=f"use {' or '.join(STRATEGIES)}")
        if self.tag:
            _names.check_deployment_tag(self.tag)


async def deploy(
    app: "Standing", wanted: Wanted, client: "Client", output: Output | None
) -> tuple[Record, Mapping[str, FunctionHandle]]:
    """Deploy an app; return its record and what its functions are called through."""
    wanted.check(app)
    client.check_lasting()
    begun = time.monotonic()
    shown = output or Output(quiet=True)
    shown.status("Creating objects…")
    try:
        plan, _ = await _both(_plan.make(app, wanted.name, wanted.environment), client.connect())
        message = await _message(plan, wanted, client)
        deployed, lost = await _ask_again(client, "deploy_app", message, wire.AppDeployed)
        await _following.changed(client, deployed.app_id)
        await _replacing.ended(client, deployed, shown)
    finally:
        shown.status("")
    is_skipped = deployed.skipped and not lost  # of a try whose answer was lost nothing is known
    for line in _report(plan, deployed, None if is_skipped else time.monotonic() - begun):
        shown.line(line)
    return Record(deployed.app_id, deployed.url, client), deployed.handles


async def _message(plan: _plan.Plan, wanted: Wanted, client: "Client") -> wire.DeployApp:
    assert plan.name is not None
    return wire.DeployApp(
        plan.name,
        await _plan.send(plan, client),
        wanted.environment,
        plan.description,
        wanted.tag,
        dict(plan.tags) if plan.tags else None,
        wanted.strategy,
        __version__,
    )


async def _ask_again(client: "Client", verb: str, message: object, answer: type[A]) -> tuple[A, int]:
    """Return the answer to a request that may come twice, and how many tries came before whose was lost."""
    for lost in range(TRIES):
        try:
            return await client.request("registry", verb, message, answer, timeout=DEPLOY_TIMEOUT), lost
        except (exception.ServiceError, exception.ConnectionError):
            if lost == TRIES - 1:
                raise
    raise AssertionError


async def _both(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Return what two coroutines return that run at the same time; the first failure ends both."""
    try:
        async with asyncio.TaskGroup() as group:
            one, two = group.create_task(first), group.create_task(second)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return one.result(), two.result()


def _report(plan: _plan.Plan, deployed: wire.AppDeployed, seconds: float | None) -> Iterator[str]:
    """Yield what is said about a deployment; `seconds` is None for one that was skipped."""
    yield "\n".join(_plan.tree(plan, deployed.handles))
    for name in deployed.removed:
        yield f"✓ Removed function {name}."
    if seconds is None:
        yield f"Deployment skipped: no changes detected (version {deployed.version})"
    else:
        yield f"✓ App deployed in {seconds:.2f} s! (version {deployed.version})"
    if url := deployed.url or page(deployed.app_id):
        yield f"View Deployment: {url}"


# --- afterwards


async def lookup(name: str, client: "Client", environment: str, *, create_if_missing: bool) -> Record:
    """Return the record of a deployed app, made without functions if it may be.

    Raises:
        NotFoundError: there is none of this name.
    """
    client.check_lasting()
    message = wire.LookupApp(_names.check_object("an app", name), environment, create_if_missing)
    try:
        found = await client.request("registry", "lookup_app", message, AppCreated)
    except NotFoundError as error:
        raise NotFoundError(
            f"there is no app {name!r} in the environment {environment!r}",
            hint="deploy it with `tidemill deploy`, or pass create_if_missing=True",
        ) from error
    return Record(found.app_id, found.url, client)


async def info(record: Record) -> AppInfo:
    """Return what the server knows about an app."""
    details = await record.client.request("registry", "get_app", GetApp(app_id=record.app_id), AppDetails)
    app = details.app
    return AppInfo(
        app_id=app.app_id,
        name=app.name,
        description=app.description,
        state=app.state,
        environment=app.environment,
        created_at=_time(app.created),
        version=app.version,
        functions=tuple(sorted(details.handles)),
        tags=app.tags,
        stopped_at=None if app.stopped is None else _time(app.stopped),
        stop_reason=app.stop_reason,
    )


def page(app_id: str) -> str:
    """Return where an app can be looked at, an empty text where no gateway is known."""
    from tidemill import _stack

    stack = None if config["server_url"] or not _runtime.is_local() else _stack.find()
    return f"{stack.gateway_url}/api/v1/apps/{app_id}" if stack is not None else ""


async def stop(record: Record) -> None:
    """End an app."""
    message = wire.StopDeployed(record.app_id, reason="stopped by its program")
    await record.client.request("registry", "stop_deployed", message, Done)
    await _following.changed(record.client, record.app_id)


async def set_tags(record: Record, tags: Mapping[str, str]) -> None:
    """Replace the tags of an app."""
    await record.client.request("registry", "set_tags", wire.SetTags(record.app_id, dict(tags)), wire.Tags)


async def get_tags(record: Record) -> dict[str, str]:
    """Return the tags of an app."""
    return (await record.client.request("registry", "get_tags", wire.GetTags(record.app_id), wire.Tags)).tags


def of_container() -> Record | None:
    """Return the record of the app that this container belongs to."""
    from tidemill import _client

    container = _runtime.container
    return Record(container.app_id, "", _client.current()) if container is not None else None


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
