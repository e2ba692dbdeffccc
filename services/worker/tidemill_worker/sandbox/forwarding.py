"""Forwarding of packets between interfaces: on for those that need it, and off again with the last worker.

A machine that forwards already (`net.ipv4.ip_forward`) is left as it is. Otherwise the containers' interfaces
forward, which nobody misses, and those that the machine's routes lead out of, of which a record is kept: they
are given back when no worker of root's is left. Between two of the latter packets are dropped (`network`), so
that the machine does not become a router. Who switches forwarding on altogether meanwhile keeps it.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TREE = Path("/proc/sys/net/ipv4")
_ROUTES = Path("/proc/net/route")


class Forwarding:
    """What workers have changed on this machine. `folder` is theirs; the record and a lock are there."""

    def __init__(self, folder: Path, tree: Path = TREE, routes: Path = _ROUTES) -> None:
        self._folder = folder
        self._record = folder / "forwarding"
        self._tree = tree
        self._routes = routes

    def allow(self) -> tuple[str, ...]:
        """Let packets of containers leave the machine; return the interfaces that forward only because of us.

        Raises:
            OSError: this machine does not forward, and that cannot be changed.
        """
        if self._is_on():
            return ()
        with self._locked():
            ours = self._recorded()
            for name in _outward(self._routes.read_text()):
                if not self._forwards(name):
                    ours.add(name)
                    self._record.write_text("".join(f"{each}\n" for each in sorted(ours)))
                    self._set(name, "1")
        return tuple(sorted(ours))

    def allow_from(self, name: str) -> None:
        """Let packets pass that a container's interface brings."""
        if not self._forwards(name):
            self._set(name, "1")

    def give_back(self, is_needed: Callable[[], bool]) -> None:
        """Undo what `allow` did, unless it is still needed."""
        if not self._record.exists():
            return
        with suppress(OSError), self._locked():
            if is_needed():
                return
            for name in self._recorded() if not self._is_on() else ():
                with suppress(OSError):  # it may be gone
                    self._set(name, "0")
            self._record.unlink(missing_ok=True)
        with suppress(OSError):
            self._folder.rmdir()

    def _recorded(self) -> set[str]:
        return set(self._record.read_text().split()) if self._record.exists() else set()

    def _is_on(self) -> bool:
        return (self._tree / "ip_forward").read_text().strip() == "1"

    def _forwards(self, name: str) -> bool:
        return self._switch(name).read_text().strip() == "1"

    def _set(self, name: str, value: str) -> None:
        self._switch(name).write_text(value)

    def _switch(self, name: str) -> Path:
        return self._tree / "conf" / name / "forwarding"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _outward(routes: str) -> list[str]:
    """Return the interfaces of the kernel's table of routes that are not containers'."""
    names = [line.split()[0] for line in routes.splitlines()[1:] if line.strip()]
    return [name for name in dict.fromkeys(names) if not name.startswith("tm")]
