"""Names of Modal's API that this version does not have: using one says so, none is pretended."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

_APP = """
    from_id list objects sandboxes server stats
"""
_SECRETS = """
    create_deployed get_dashboard_url
"""
_VOLUME = """
    batch_upload commit copy_files create_deployed ephemeral from_id hydrate info iterdir listdir object_id
    objects read_file read_file_into_fileobj reload remove_file rename
"""
_PACKAGE = """
    CloudBucketMount Cluster Dict Environment NetworkFileSystem Probe Proxy Queue
    Sandbox SandboxSnapshot SchedulerPlacement Server Tunnel Workspace clustered forward sessioned
"""

# class -> names that Modal has and this version has not
_MEMBERS: Mapping[str, frozenset[str]] = {
    "App": frozenset(_APP.split()),
    "Secret": frozenset(_SECRETS.split()),
    "Volume": frozenset(_VOLUME.split()),
}
PACKAGE = frozenset(_PACKAGE.split())  # names of the package itself


def message(name: str) -> str:
    """Return what is said about a name that is not here yet."""
    return f"{name} is not in this version of Tidemill"


class Listed(type):
    """The type of public classes: a missing name of Modal's is told as such, on class and instance."""

    if not TYPE_CHECKING:

        def __getattr__(cls, name: str) -> Any:
            raise AttributeError(_missing(cls, name), name=name, obj=cls)


def missing(instance: object, name: str) -> AttributeError:
    """Return the error for an attribute that an instance does not have."""
    return AttributeError(_missing(type(instance), name), name=name, obj=instance)


def _missing(cls: type, name: str) -> str:
    if name in _MEMBERS.get(cls.__name__, ()):
        return message(f"{cls.__name__}.{name}")
    return f"{cls.__name__!r} has no attribute {name!r}"
