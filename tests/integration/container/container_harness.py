"""The worker's side of a container, played over real sockets with real processes."""

import os
import select
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tidemill._container import bootstrap, sockets
from tidemill._container.configuration import Configuration
from tidemill._container.frames import FromInit, FromRunner, FromTemplate, ToInit, ToRunner, ToTemplate
from tidemill._wire import failure, ids, payload
from tidemill._wire.messages import Status

PATIENCE = 60.0  # seconds for anything to happen
BOOTSTRAP = Path(bootstrap.__file__)
CALL = "fc-01ja8m3k9x4q7w2v5y6z0b1c2d"

Frame = list[Any]


class Inbox:
    """Everything that arrives on a socket, kept in order, to be waited for."""

    def __init__(self, sock: socket.socket) -> None:
        self.frames: list[Frame] = []
        self.is_closed = False
        self._sock = sock
        self._changed = threading.Condition()
        self._going = threading.Event()
        self._going.set()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with suppress(OSError, ValueError):
            for frame in sockets.read(self._sock):
                self._going.wait()
                with self._changed:
                    self.frames.append(frame)
                    self._changed.notify_all()
        with self._changed:
            self.is_closed = True
            self._changed.notify_all()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Read nothing meanwhile (but what was under way)."""
        self._going.clear()
        try:
            yield
        finally:
            self._going.set()

    def wait(self, condition: Callable[[list[Frame]], Any], patience: float = PATIENCE) -> Any:
        """Return what `condition` finds in the frames, as soon as it finds something."""
        until = time.monotonic() + patience
        with self._changed:
            while not (found := condition(self.frames)):
                left = until - time.monotonic()
                assert left > 0, f"it did not come; there is {[frame[:3] for frame in self.frames][-20:]}"
                assert not self.is_closed, f"it cannot come any more; there is {self.frames[-20:]}"
                self._changed.wait(left)
        return found

    def first(self, kind: int, patience: float = PATIENCE) -> Frame:
        """Return the first frame of a kind."""
        found: Frame = self.wait(lambda frames: next((f for f in frames if f[0] == kind), None), patience)
        return found

    def of(self, kind: int) -> list[Frame]:
        return [frame for frame in self.frames if frame[0] == kind]

    def wait_closed(self) -> None:
        until = time.monotonic() + PATIENCE
        with self._changed:
            while not self.is_closed:
                left = until - time.monotonic()
                assert left > 0, "the socket is still open"
                self._changed.wait(left)


class Container:
    """One container as its worker sees it."""

    def __init__(self, runner: socket.socket, control: socket.socket) -> None:
        self._runner = runner
        self._control = control
        self.frames = Inbox(runner)
        self.control = Inbox(control)
        self._chunks = 0
        self.init = 0  # its pid

    # --- to the runner

    def send(self, kind: ToRunner, *arguments: Any) -> None:
        self._runner.sendall(sockets.pack((kind, *arguments)))

    def start(self, **fields: Any) -> dict[str, Any]:
        """Configure the container; return what READY says."""
        self.send(ToRunner.START, Configuration("co-1", **fields)._asdict())
        kind, said = self.frames.wait(
            lambda frames: next(
                (f for f in frames if f[0] in (FromRunner.READY, FromRunner.START_FAILED)), None
            )
        )
        if kind == FromRunner.START_FAILED:
            raise failure.to_exception(said)
        return dict(said)

    def give(
        self, inputs: list[tuple[Any, ...]], *, kwargs: dict[str, Any] | None = None, collect: bool = False
    ) -> int:
        """Hand a chunk over; return its number."""
        return self.give_encoded([payload.encode_call(args, kwargs or {}) for args in inputs], collect)

    def give_encoded(self, encoded: list[tuple[int, bytes]], collect: bool = False) -> int:
        self._chunks += 1
        indices = list(range(len(encoded)))
        self.send(ToRunner.CHUNK, self._chunks, CALL, indices, 0, encoded, "", "", collect, "")
        return self._chunks

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Run one input; return its result or raise its error."""
        return self.result(self.give([args], kwargs=kwargs))

    # --- from the runner

    def output(self, chunk: int, index: int = 0, patience: float = PATIENCE) -> tuple[int, Any]:
        """Return the status of an input and its value (an exception where it failed)."""
        status, form, data = self.frames.wait(lambda frames: _find_output(frames, chunk, index), patience)
        return status, failure.to_exception(data) if form == 3 else payload.decode(form, data)

    def result(self, chunk: int, index: int = 0) -> Any:
        status, value = self.output(chunk, index)
        if status in (Status.SUCCESS, Status.DONE):
            return value
        raise value

    def results(self, chunk: int, count: int) -> list[Any]:
        self.frames.wait(lambda frames: _count_outputs(frames, chunk) >= count)
        return [self.result(chunk, index) for index in range(count)]

    def pieces(self, chunk: int, index: int = 0) -> list[Any]:
        """Return the pieces of a stream that have come so far."""
        found = []
        for frame in self.frames.of(FromRunner.PIECES):
            if frame[1:3] == [chunk, index]:
                assert frame[3] == len(found), "pieces come in order"
                found += [payload.decode(*piece) for piece in frame[4]]
        return found

    def returned(self, chunk: int) -> list[int]:
        return [
            index for frame in self.frames.of(FromRunner.RETURNED) if frame[1] == chunk for index in frame[2]
        ]

    def logged(self, stream: int = 1) -> dict[str, str]:
        """Return the text of the LOG frames by input."""
        texts: dict[str, str] = {}
        for _, number, text, _time, input_id in self.frames.of(FromRunner.LOG):
            if number == stream:
                texts[input_id] = texts.get(input_id, "") + text
        return texts

    # --- init

    def order(self, kind: ToInit, *arguments: Any) -> None:
        self._control.sendall(sockets.pack((kind, *arguments)))

    def pid(self) -> int:
        """Return the pid of the runner."""
        return int(self.control.first(FromInit.STARTED)[1])

    def exit_status(self) -> int:
        return int(self.control.first(FromInit.EXITED)[1])

    def piped(self, stream: int = 1) -> dict[str, bytes]:
        """Return what came through the pipes, by input."""
        texts: dict[str, bytes] = {}
        for _, number, data, input_id in self.control.of(FromInit.OUTPUT):
            if number == stream:
                texts[input_id] = texts.get(input_id, b"") + data
        return texts

    def stop(self) -> int:
        """Stop it in order; return its exit status."""
        self.send(ToRunner.STOP)
        self.frames.first(FromRunner.STOPPED)
        return self.exit_status()

    def close(self) -> None:
        """Close both sockets, as the death of the worker does."""
        for sock in (self._runner, self._control):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


class Template:
    """A template in a process of its own."""

    def __init__(self, folder: Path) -> None:
        ours, theirs = socket.socketpair()
        self.sock = ours
        self.process = _spawn([str(theirs.fileno())], [theirs.fileno()], folder)
        theirs.close()
        self.frames = Inbox(ours)
        self.containers: list[Container] = []
        self.frames.first(FromTemplate.READY)

    def fork(self) -> Container:
        (container,) = self.fork_all([False])
        return container

    def fork_all(self, ahead: list[bool]) -> list[Container]:
        """Ask for containers at once, and return them in this order."""
        made = {ids.new(ids.CONTAINER): each for each in ahead}
        containers = {name: self._ask(name, is_ahead) for name, is_ahead in made.items()}
        for name, container in containers.items():
            container.init = self.frames.wait(
                lambda frames, name=name: next(
                    (f[2] for f in frames if f[:2] == [FromTemplate.FORKED, name]), None
                )
            )
        return list(containers.values())

    def _ask(self, name: str, is_ahead: bool) -> Container:
        runner, runner_end = socket.socketpair()
        control, control_end = socket.socketpair()
        frame = sockets.pack((ToTemplate.FORK, name, is_ahead))
        socket.send_fds(self.sock, [frame], [runner_end.fileno(), control_end.fileno()])
        runner_end.close()
        control_end.close()
        container = Container(runner, control)
        self.containers.append(container)
        return container

    def close(self) -> None:
        for container in self.containers:
            container.close()
        for container in self.containers:
            container.control.wait_closed()
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        assert self.process.wait(PATIENCE) == 0


class Start:
    """Writes a module and starts a container for one of its functions."""

    def __init__(self, template: Template, folder: Path) -> None:
        self._template = template
        self._folder = folder
        self.started: list[Container] = []

    def __call__(self, source: str, qualname: str = "f", **fields: Any) -> Container:
        container = self.prepare(source)
        container.start(**{"sources": (str(self._folder),), "module": "hello", "qualname": qualname} | fields)
        return container

    def prepare(self, source: str) -> Container:
        """Fork a container that waits for its configuration."""
        (self._folder / "hello.py").write_text(textwrap.dedent(source))
        container = self._template.fork()
        self.started.append(container)
        return container


def start_single(folder: Path, **environment: str) -> tuple[Container, "subprocess.Popen[bytes]"]:
    """Start one container without a template."""
    runner, runner_end = socket.socketpair()
    control, control_end = socket.socketpair()
    ends = [runner_end.fileno(), control_end.fileno()]
    process = _spawn(["--single", *map(str, ends), "co-1"], ends, folder, **environment)
    runner_end.close()
    control_end.close()
    return Container(runner, control), process


def end_single(container: Container, process: "subprocess.Popen[bytes]") -> None:
    """Stop such a container in order."""
    container.stop()
    assert process.wait(PATIENCE) == 0
    container.close()


def _spawn(
    arguments: list[str], descriptors: list[int], folder: Path, **environment: str
) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-s", "-P", str(BOOTSTRAP), *arguments]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.Popen(
        command, pass_fds=descriptors, cwd=folder, env=inherited | environment, stdin=subprocess.DEVNULL
    )


def is_alive(pid: int) -> bool:
    """Return whether a process runs: a zombie does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def rest(seconds: float = 0.05) -> None:
    """Let others go on for a while, where there is nothing to wait for."""
    select.select([], [], [], seconds)


def eventually(condition: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """Return what `condition` returns as soon as it is true."""
    until = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < until, "it did not come about"
        rest(0.005)
    return found


def _find_output(frames: list[Frame], chunk: int, index: int) -> tuple[int, int, bytes] | None:
    for frame in _outputs(frames, chunk):
        for number, status, form, data in frame[2]:
            if number == index:
                return status, form, data
    return None


def _count_outputs(frames: list[Frame], chunk: int) -> int:
    return sum(len(frame[2]) for frame in _outputs(frames, chunk))


def _outputs(frames: list[Frame], chunk: int) -> Iterator[Frame]:
    return (frame for frame in frames if frame[0] == FromRunner.OUTPUTS and frame[1] == chunk)
