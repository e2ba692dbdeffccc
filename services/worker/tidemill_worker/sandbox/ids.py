"""Which ids containers have on this machine, and the slot whose name their groups and interfaces bear."""

import os
import pwd
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tidemill_worker.sandbox.slots import Slot

IDS = 65536  # ids of one range
_BUBBLEWRAP = "/usr/bin:/bin:/usr/local/bin"


class NoSandbox(Exception):
    """Containers cannot be sandboxed here; the message says why."""


@dataclass(frozen=True, slots=True)
class Ids:
    """The range of ids: the first user and group, 0 where there is only the worker's own."""

    first: int
    first_group: int
    bubblewrap: str
    slot: Slot

    @classmethod
    def take(cls, first: int) -> "Ids":
        """Choose the range for this worker; `NoSandbox` if bubblewrap is missing.

        A worker that is root has `first` and what follows. Another one has what /etc/subuid grants it.
        """
        search = os.pathsep.join((os.environ.get("PATH", os.defpath), _BUBBLEWRAP))
        found = shutil.which("bwrap", path=search)
        if found is None:
            raise NoSandbox("bubblewrap is not installed: install the package bubblewrap")
        if os.getuid() == 0:
            return cls(first, first, found, Slot.take(Path("/run/tidemill")))
        users, groups = _granted("/etc/subuid", os.getuid()), _granted("/etc/subgid", os.getuid())
        if not users or not groups or not shutil.which("newuidmap"):
            users = groups = 0
        return cls(users, groups, found, Slot.take(Path(tempfile.gettempdir()) / f"tidemill-{os.getuid()}"))

    @property
    def name(self) -> str:
        """What this worker's groups are called, like nobody else's on this machine."""
        return self.name_of(self.slot.number)

    @staticmethod
    def name_of(slot: int) -> str:
        """Return the name of the worker in a slot."""
        return f"tidemill-{os.getuid() or 'root'}-{slot}"

    @property
    def is_range(self) -> bool:
        """Whether containers have ids of their own, and not the worker's."""
        return self.first > 0

    @property
    def owns_files(self) -> bool:
        """Whether the worker may remove what they wrote."""
        return os.getuid() == 0 or not self.is_range

    def release(self) -> None:
        """Give the slot back."""
        self.slot.release()


def _granted(path: str, uid: int) -> int:
    """Return the first of enough subordinate ids of a user, or 0."""
    try:
        lines = Path(path).read_text().splitlines()
        name = pwd.getpwuid(uid).pw_name
    except (OSError, KeyError):
        return 0
    for line in lines:
        owner, _, rest = line.partition(":")
        start, _, count = rest.partition(":")
        if owner in (name, str(uid)) and start.isdigit() and count.isdigit() and int(count) >= IDS:
            return int(start)
    return 0
