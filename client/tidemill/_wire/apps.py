"""Requests to the registry about apps that run, and their answers."""

from dataclasses import field

from tidemill._dataclass import dataclass
from tidemill._wire.control import FunctionHandle
from tidemill._wire.specs import FunctionSpec


@dataclass(frozen=True, slots=True)
class CreateApp:
    """`tm.registry.<ws>.create_app`: start a run of an app (`ephemeral` or `detached`)."""

    name: str | None
    description: str
    state: str
    environment: str = "main"
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AppCreated:
    """The answer to `CreateApp`. `url` is where the app is found over HTTP, empty if that is not known."""

    app_id: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class PublishFunctions:
    """`tm.registry.<ws>.publish_functions`: make or replace the functions of an app."""

    app_id: str
    functions: tuple[FunctionSpec, ...]


@dataclass(frozen=True, slots=True)
class FunctionsPublished:
    """The answer to `PublishFunctions`: a handle for every function, by name."""

    handles: dict[str, FunctionHandle]


@dataclass(frozen=True, slots=True)
class AppHeartbeat:
    """`tm.registry.<ws>.heartbeat`: the client of an ephemeral app is alive. Sent every 15 s."""

    app_id: str


@dataclass(frozen=True, slots=True)
class StopApp:
    """`tm.registry.<ws>.stop_app`: end an app: its pools go, its containers are stopped."""

    app_id: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ListApps:
    """`tm.registry.<ws>.list_apps`: the apps of an environment, newest first. Answered by an `AppList`."""

    environment: str = "main"
    include_stopped: bool = False
    limit: int = 100


@dataclass(frozen=True, slots=True)
class GetApp:
    """`tm.registry.<ws>.get_app`: one app, by id or, if deployed, by name. Answered by `AppDetails`."""

    app_id: str = ""
    name: str = ""
    environment: str = "main"


@dataclass(frozen=True, slots=True)
class AppInfo:
    """An app as it is shown. `state` is `ephemeral`, `detached`, `deployed` or `stopped`; times are unix.

    `created_by` and `stopped_by` are the name of a token, or its id; empty where nobody asked for it.
    """

    app_id: str
    name: str | None
    description: str
    state: str
    environment: str
    created: float
    version: int
    functions: int
    stopped: float | None = None
    stop_reason: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    created_by: str = ""
    stopped_by: str = ""


@dataclass(frozen=True, slots=True)
class AppList:
    """The answer to `ListApps`."""

    apps: tuple[AppInfo, ...]


@dataclass(frozen=True, slots=True)
class AppDetails:
    """The answer to `GetApp`: the app and the handles of its present functions, by name."""

    app: AppInfo
    handles: dict[str, FunctionHandle]
