"""The template: a warm Python that containers are forked from in two or three milliseconds.

One runs per image (and workspace and network mode) and waits on its socket. It has one thread, holds no
user code and no secrets, and after it has said READY it goes on to import what most functions are going to
import anyway: while nobody asks for anything, and before it forks more than a few. Each request brings the
two sockets of a new container, which belong to the child alone. The template ends when its socket closes; its
containers hang on their own sockets.

In a sandbox the template is inside, and each child takes namespaces of its own before it is a container
(`sandbox`). There the template stays until the last of them has ended: its end would be theirs.

It is a subreaper too. Should somebody kill an init, that container's runner dies with it and whatever else
it left behind becomes a child of the template, which ends it.
"""

import gc
import importlib
import os
import select
import signal
import socket
import sys
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tidemill._container import init, processes, runner, sockets
from tidemill._container.configuration import Configuration
from tidemill._container.frames import FromTemplate, ToTemplate
from tidemill._container.tags import Tags

if TYPE_CHECKING:
    from tidemill._container.sandbox import Enter

# What functions import, directly or through the SDK, in the order in which it is likely to be needed.
PRELOADED = (
    "traceback",
    "inspect",
    "tidemill._wire.control",
    "asyncio",
    "tidemill.app",
    "tidemill.functions",
    "tidemill.image",
    "cloudpickle",
    "tidemill._client",
    "tidemill._bus.socket",
    "tidemill.cls",
    "tidemill._container.coroutines",
    "tidemill._container.warming",
)
# The same for web functions. What is not in an image is left out.
PRELOADED_FOR_WEB = (
    "tidemill._container.web",
    "fastapi",
    "fastapi.middleware.cors",
    "fastapi.responses",
    "tidemill._container.port",
    "tidemill._container.rehearsal",
)
_DESCRIPTORS = 2  # per container: the runner's socket, then init's
HURRIED = 2  # containers that are forked before all of that is imported; each of them does so itself


class Template:
    """A template that serves its socket."""

    def __init__(self, sock: socket.socket, *, for_web: bool, enter: "Enter | None" = None) -> None:
        self._sock = sock
        self._enter = enter
        self._wake = _watch_children()
        self._inits: set[int] = set()
        self._descriptors: deque[int] = deque()
        self._received = b""
        self._forks = 0
        self._ahead: deque[tuple[str, list[int]]] = deque()  # containers to be made when nothing else is
        self._preload = deque((*PRELOADED, *(PRELOADED_FOR_WEB if for_web else ())))

    def serve(self, report: dict[str, float] | None = None) -> None:
        """Fork containers until the socket closes. `report` is of the snapshot that it is."""
        _settle()
        self._sock.sendall(sockets.pack((FromTemplate.READY, os.getpid(), report or {})))
        while self._turn():
            pass
        while self._enter is not None and self._inits:
            select.select([self._wake], [], [])
            self._on_ended()

    def _turn(self) -> bool:
        """Handle what is there, or do one thing ahead; return False when the socket has closed."""
        awaited = [self._sock.fileno(), self._wake]
        ready = select.select(awaited, [], [], 0 if self._preload or self._ahead else None)[0]
        if self._wake in ready:
            self._on_ended()
        if self._sock.fileno() in ready:
            return self._on_request()
        if not ready and self._preload:
            self._import_next()
        elif not ready:
            self._make(*self._ahead.popleft())
        return True

    def _import_next(self) -> None:
        _import(self._preload.popleft())
        _settle()

    def _on_ended(self) -> None:
        """Reap, and end what a killed init has left."""
        with suppress(BlockingIOError):
            os.read(self._wake, 4096)
        ended = processes.reap()
        # An init that ended in order has left nothing; who else ends here was left by one that was killed.
        in_order = {pid for pid, status in ended.items() if not status} & self._inits
        self._inits.difference_update(ended)
        if len(in_order) < len(ended):
            self._inits.difference_update(processes.kill_descendants(spare=self._inits))

    def _on_request(self) -> bool:
        try:
            data, descriptors, _flags, _address = socket.recv_fds(self._sock, init.READ, 64)
        except OSError:
            return False
        for fd in descriptors:  # programs that are run in the container have no business with them
            os.set_inheritable(fd, False)
        self._descriptors.extend(descriptors)
        frames, self._received = sockets.split(self._received + data)
        for kind, *arguments in frames:
            if kind == ToTemplate.FORK:
                self._fork(*arguments)
        return bool(data)

    def _fork(self, container: str, ahead: bool) -> None:
        if len(self._descriptors) < _DESCRIPTORS:
            self._answer(FromTemplate.FAILED, container, "the container's sockets did not arrive")
            return
        own = [self._descriptors.popleft() for _ in range(_DESCRIPTORS)]
        if ahead:
            self._ahead.append((container, own))
            return
        while self._preload and self._forks >= HURRIED:
            self._import_next()
        self._forks += 1
        self._make(container, own)

    def _make(self, container: str, own: list[int]) -> None:
        try:
            pid = os.fork() if self._enter is None else self._enter.fork(own[1], container)
        except OSError as error:
            self._answer(FromTemplate.FAILED, container, f"no process could be made: {error}")
        else:
            if not pid:
                self._become_container(own)
            self._inits.add(pid)
            self._answer(FromTemplate.FORKED, container, pid)
        for fd in own:
            os.close(fd)

    def _become_container(self, own: list[int]) -> None:
        """In the child: leave the template behind. Never returns."""
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._sock.close()
            if (snapshot := sys.modules.get("tidemill._container.snapshot")) is not None:
                snapshot.wake()
            others = [fd for _container, descriptors in self._ahead for fd in descriptors]
            for fd in (self._wake, *self._descriptors, *others):
                os.close(fd)
            _run_container(own[0], own[1])
        finally:
            _fail()

    def _answer(self, kind: FromTemplate, container: str, value: Any) -> None:
        with suppress(OSError):  # the worker is gone: the next read says so
            self._sock.sendall(sockets.pack((kind, container, value)))


def run(fd: int, *, for_web: bool = False, sandboxed: bool = False) -> None:
    """Be a template on this socket, until it closes."""
    os.set_inheritable(fd, False)
    processes.become_subreaper()
    enter = _enter() if sandboxed else None
    Template(socket.socket(fileno=fd), for_web=for_web, enter=enter).serve()
    os._exit(0)


def run_snapshot(
    fd: int, control: int, output: int, name: str, *, for_web: bool = False, sandboxed: bool = False
) -> None:
    """Be a template that holds user code, which is told on the socket, or say why there can be none.

    In a sandbox the code has a root, limits and a network as a container of this name would.
    """
    for each in (fd, control, output):
        os.set_inheritable(each, False)
    enter = _enter() if sandboxed else None
    if enter is None:
        processes.die_with(os.getppid())
    else:
        enter.confine(control, name)
    processes.become_subreaper()
    os.close(control)
    sock = socket.socket(fileno=fd)
    report = _take(sock, output)
    if report is not None:
        Template(sock, for_web=for_web, enter=enter).serve(report)
    os._exit(0)


def _take(sock: socket.socket, output: int) -> dict[str, float] | None:
    """Take the snapshot that the worker orders; return what there is to say of it, None if there is none."""
    from tidemill._container import snapshot

    for kind, *arguments in sockets.read(sock):
        if kind == ToTemplate.TAKE:
            try:
                phases = snapshot.take(Configuration.read(arguments[0]), output)
            except snapshot.Refused as error:
                processes.kill_descendants()
                sock.sendall(sockets.pack((FromTemplate.REFUSED, str(error), error.final)))
                return None
            return {**phases, "memory": snapshot.memory()}
    return None


def run_single(runner_fd: int, control_fd: int, container: str, *, sandboxed: bool = False) -> None:
    """Be one container, started by itself in its own environment and working directory."""
    for fd in (runner_fd, control_fd):
        os.set_inheritable(fd, False)
    try:
        if sandboxed:
            _stay_outside(runner_fd, control_fd, container)
        _run_container(runner_fd, control_fd)
    finally:
        _fail()


def _stay_outside(runner_fd: int, control_fd: int, container: str) -> None:
    """Return in a fork of this process that is the container; this one ends when that has."""
    processes.become_subreaper()
    pid = _enter().fork(control_fd, container)
    if pid:
        os.close(runner_fd)
        os.close(control_fd)
        os.waitpid(pid, 0)
        os._exit(0)


def _enter() -> "Enter":
    from tidemill._container.sandbox import Enter

    return Enter()


def _run_container(runner_fd: int, control_fd: int) -> None:
    """Become the init of a container and fork its runner. Never returns.

    A tier that isolates takes its namespaces here, before init is what it is: everything below runs
    inside them.
    """
    with suppress(PermissionError):  # started as a leader already
        os.setsid()
    theirs = socket.socket(fileno=runner_fd)

    def start_runner(reading: dict[int, int], writing: dict[int, int], tags: Tags) -> None:
        runner.run(theirs, reading, writing, tags)

    init.run(socket.socket(fileno=control_fd), theirs, start_runner)
    os._exit(0)


def _fail() -> None:
    """Say what went wrong, in the worker's own log, and end this process."""
    error = sys.exc_info()
    if error[0] is not None:
        sys.excepthook(*error)
    os._exit(1)


def _watch_children() -> int:
    """Make a descriptor readable whenever a child has ended."""
    wake, waker = os.pipe()
    for fd in (wake, waker):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    return wake


def _import(name: str) -> None:
    """Import something ahead of its use. An image that lacks it, or breaks it, finds out when it uses it."""
    with suppress(Exception):
        importlib.import_module(name)


def _settle() -> None:
    """Keep the collector's hands off what is shared with the children: touching it would copy it."""
    gc.collect()
    gc.freeze()
