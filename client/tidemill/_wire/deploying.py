"""Requests about apps that stay, and their answers.

An app is named by `app`: its id (`ap-...`), or the name of a deployed one in `environment`.
Lists are pages: `cursor` is what the page before gave, "" for the first one and after the last.
With `seen` a change is only made to an app that is still as it was seen; else it is a `ConflictError`.
"""

from dataclasses import field

from tidemill._dataclass import dataclass
from tidemill._wire.apps import AppInfo
from tidemill._wire.control import FunctionHandle
from tidemill._wire.specs import FunctionSpec

MAX_TAG = 50  # characters of a deployment's tag


@dataclass(frozen=True, slots=True)
class DeployApp:
    """`deploy_app`: make `functions` the next version of the app named so, and make the app if need be.

    One transaction: of two deployments at the same time each has its own version, whole. With the same
    functions, and no `tags` or `tag` that differ, nothing changes: the answer says `skipped`.

    `strategy`: `rolling` lets containers of the version before finish what they hold; `recreate` stops
    them at once. `tags` None leaves those of the app as they are.
    """

    name: str
    functions: tuple[FunctionSpec, ...]
    environment: str = "main"
    description: str = ""
    tag: str = ""
    tags: dict[str, str] | None = None
    strategy: str = "rolling"
    client_version: str = ""


@dataclass(frozen=True, slots=True)
class AppDeployed:
    """The answer to `DeployApp`, `RollbackApp` and `RolloverApp`.

    `replaced` are pools whose containers of an earlier generation than this are being stopped.
    """

    app_id: str
    version: int
    handles: dict[str, FunctionHandle]
    skipped: bool = False
    url: str = ""
    removed: tuple[str, ...] = ()  # names of functions that the version before had
    replaced: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LookupApp:
    """`lookup_app`: find a deployed app, or make one without functions. Answered by `AppCreated`."""

    name: str
    environment: str = "main"
    create_if_missing: bool = False


@dataclass(frozen=True, slots=True)
class RollbackApp:
    """`rollback_app`: deploy an earlier version's functions again, as a new version.

    Without `version` the one before the present one is meant.
    """

    app: str
    environment: str = "main"
    version: int | None = None
    strategy: str = "rolling"
    seen: AppInfo | None = None


@dataclass(frozen=True, slots=True)
class RolloverApp:
    """`rollover_app`: new containers for the same code, as a new version."""

    app: str
    environment: str = "main"
    strategy: str = "rolling"
    seen: AppInfo | None = None


@dataclass(frozen=True, slots=True)
class StopDeployed:
    """`stop_deployed`: end an app by name or id. Its name is free afterwards. Answered by `Done`."""

    app: str
    environment: str = "main"
    reason: str = ""
    seen: AppInfo | None = None


@dataclass(frozen=True, slots=True)
class SetTags:
    """`set_tags`: replace all tags of an app. Answered by `Tags`."""

    app: str
    tags: dict[str, str]
    environment: str = "main"
    seen: AppInfo | None = None


@dataclass(frozen=True, slots=True)
class GetTags:
    """`get_tags`: answered by `Tags`."""

    app: str
    environment: str = "main"


@dataclass(frozen=True, slots=True)
class Tags:
    """An app's tags."""

    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class ListDeployments:
    """`list_deployments`: the versions of an app, newest first. Answered by `DeploymentList`."""

    app: str
    environment: str = "main"
    limit: int = 100
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class DeploymentInfo:
    """One version of an app. `rolled_back_to` is the version whose functions it took over."""

    version: int
    created: float
    tag: str = ""
    strategy: str = "rolling"
    client_version: str = ""
    deployed_by: str = ""
    rolled_back_to: int | None = None
    functions: tuple[str, ...] = ()
    current: bool = False


@dataclass(frozen=True, slots=True)
class DeploymentList:
    """The answer to `ListDeployments`."""

    deployments: tuple[DeploymentInfo, ...]
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class FindApps:
    """`find_apps`: apps of the workspace, newest first. Answered by `AppPage`.

    Without `environment` those of all environments; `tags` must all be there; `name` must be contained.
    """

    environment: str = ""
    states: tuple[str, ...] = ("ephemeral", "detached", "deployed")
    name: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    limit: int = 100
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class AppPage:
    """The answer to `FindApps`."""

    apps: tuple[AppInfo, ...]
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class FindFunctions:
    """`find_functions`: present functions of apps that live, by app and name. Answered by `FunctionPage`."""

    environment: str = ""
    app: str = ""
    limit: int = 100
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class FunctionInfo:
    """A function as it is shown: `resources`, `schedule` and the like stand in its specification.

    `web_urls` are those of the methods of a class.
    """

    function_id: str
    name: str
    app_id: str
    app_name: str | None
    environment: str
    pool: str
    version: int
    spec: FunctionSpec
    web_url: str | None = None
    web_urls: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FunctionPage:
    """The answer to `FindFunctions`."""

    functions: tuple[FunctionInfo, ...]
    cursor: str = ""
