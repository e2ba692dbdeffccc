"""Egress of containers by a program in user space: the worker of an ordinary user.

slirp4netns or pasta opens a tap in the container's network namespace and carries what comes out of it
through sockets of its own, as that user. Neither knows which networks are private, so the container
refuses those itself, by routes that it makes before its capabilities are gone.
"""

import asyncio
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from tidemill_worker.children import Children
from tidemill_worker.sandbox import addresses
from tidemill_worker.sandbox.network import NoEgress

RESOLVER = "10.0.2.3"  # a stand-in: both programs pass its questions on to the machine's own
TAP = "tap0"
_TUN = "/dev/net/tun"
_ADDRESS, _GATEWAY, _NETMASK = "10.0.2.100", "10.0.2.2", "255.255.255.0"


def command(program: str, pid: int) -> list[str]:
    """Return how a program is run for the network namespace of a process."""
    if program.endswith("slirp4netns"):
        return [
            program, "--configure", "--disable-host-loopback", "--mtu=65520",
            f"--userns-path=/proc/{pid}/ns/user", str(pid), TAP,
        ]  # fmt: skip
    return [
        program, "--foreground", "--quiet", "--ipv4-only", "--config-net", "--no-map-gw",
        "--address", _ADDRESS, "--netmask", _NETMASK, "--gateway", _GATEWAY, "--dns-forward", RESOLVER,
        "--ns-ifname", TAP, "--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none",
        "--udp-ns", "none", "--userns", f"/proc/{pid}/ns/user", str(pid),
    ]  # fmt: skip


class UserNetwork:
    """The programs that run for this worker's containers."""

    def __init__(self, program: str, children: Children, refused: Iterable[str]) -> None:
        self.program = program
        self._children = children
        self._refused = addresses.masked(dict.fromkeys((*refused, *addresses.own())))
        self._running: dict[str, asyncio.subprocess.Process] = {}

    @classmethod
    def open(cls, children: Children, refused: Iterable[str]) -> "UserNetwork":
        """Find a program; `NoEgress` if none is installed, or none could work."""
        if not os.access(_TUN, os.R_OK | os.W_OK):
            raise NoEgress(f"{_TUN} cannot be opened by this user: chmod 666 {_TUN}")
        for name in ("slirp4netns", "pasta"):
            if found := shutil.which(name):
                return cls(found, children, refused)
        raise NoEgress("neither slirp4netns nor pasta is installed: install the package slirp4netns or passt")

    async def give(self, container: str, pid: int) -> dict[str, Any]:
        """Connect a container's network namespace; return what it must know."""
        end_with_us = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        async with self._children.starting():
            process = await asyncio.create_subprocess_exec(
                *end_with_us, *command(self.program, pid),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
            self._children.own.add(process.pid)
        self._running[container] = process
        return {
            "name": TAP,
            "address": "",
            "netmask": "",
            "gateway": "",
            "refused": self._refused,
            "open_to": [],
        }

    async def take_back(self, container: str) -> None:
        """End a container's program."""
        process = self._running.pop(container, None)
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            self._children.own.discard(process.pid)
