"""Requests about environments, and their answers."""

from tidemill._dataclass import dataclass


@dataclass(frozen=True, slots=True)
class ListEnvironments:
    """`list_environments`: those of the workspace, by name. Answered by `EnvironmentList`."""


@dataclass(frozen=True, slots=True)
class EnvironmentInfo:
    """An environment as it is shown. `web_suffix` stands in the URLs of its apps."""

    environment_id: str
    name: str
    created: float
    web_suffix: str = ""
    apps: int = 0  # deployed ones


@dataclass(frozen=True, slots=True)
class EnvironmentList:
    """The answer to `ListEnvironments`."""

    environments: tuple[EnvironmentInfo, ...]


@dataclass(frozen=True, slots=True)
class CreateEnvironment:
    """`create_environment`: answered by `EnvironmentInfo`; `AlreadyExistsError`."""

    name: str
    web_suffix: str = ""


@dataclass(frozen=True, slots=True)
class UpdateEnvironment:
    """`update_environment`: rename it, or change its suffix. Answered by `EnvironmentInfo`."""

    name: str
    new_name: str = ""
    web_suffix: str | None = None


@dataclass(frozen=True, slots=True)
class DeleteEnvironment:
    """`delete_environment`: stop its apps and delete it with its secrets. Answered by `Done`.

    The last environment of a workspace stays: `ConflictError`.
    """

    name: str
