"""Run a program as an ordinary user: `as_user.py <uid> <first of its ids, or 0> <program>...`.

In a mount namespace of its own root gives the user a name, a range of subordinate ids, a tun device as most
machines have it, and a way to the interpreter and the sources, wherever root keeps them.
"""

import os
import sys
import tempfile
from pathlib import Path

from tidemill._container import syscalls
from tidemill._container.syscalls import MS_BIND, MS_PRIVATE, MS_REC

NAME = "tidemill-test"


def main(uid: int, first: int, program: list[str]) -> None:
    syscalls.unshare(syscalls.NEWNS)
    syscalls.mount("", "/", flags=MS_REC | MS_PRIVATE)
    replace("/etc/passwd", f"{NAME}:x:{uid}:{uid}::/nonexistent:/bin/sh\n", keep=True)
    for path in ("/etc/subuid", "/etc/subgid"):
        replace(path, f"{NAME}:{first}:65536\n" if first else "", keep=False)
    expose([Path(sys.prefix), Path(sys.base_prefix).resolve(), Path(__file__).parents[3]])
    syscalls.mount("tmpfs", "/dev/net", "tmpfs", data="mode=755")
    os.mknod("/dev/net/tun", 0o020666, os.makedev(10, 200))
    os.chmod("/dev/net/tun", 0o666)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    os.execv(program[0], program)


def replace(path: str, text: str, *, keep: bool) -> None:
    """Let a file have other content for us."""
    with tempfile.NamedTemporaryFile("w", delete=False) as file:
        file.write((Path(path).read_text() if keep else "") + text)
    os.chmod(file.name, 0o644)
    Path(path).touch()
    syscalls.mount(file.name, path, flags=MS_BIND)
    os.unlink(file.name)


def expose(needed: list[Path]) -> None:
    """Make folders reachable that lie below some which only root may enter."""
    hidden: dict[Path, dict[Path, int]] = {}
    for path in needed:
        for above in reversed(path.parents):
            if not above.stat().st_mode & 0o001:
                hidden.setdefault(above, {})[path] = os.open(path, os.O_PATH)
                break
    for above, paths in hidden.items():
        syscalls.mount("tmpfs", str(above), "tmpfs", data="mode=755")
        for path, descriptor in paths.items():
            path.mkdir(parents=True, exist_ok=True)
            syscalls.mount(f"/proc/self/fd/{descriptor}", str(path), flags=MS_BIND | MS_REC)
            os.close(descriptor)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
