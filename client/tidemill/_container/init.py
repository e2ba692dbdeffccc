"""Init: the first process of a container. It is ours, small, and never runs user code.

    runner's stdout, stderr ──> tagged, bounded ──> OUTPUT ──┐
    worker: SIGNAL, KILL, gone ──> signals, the end          ├── control socket
    worker: EXECUTE, TERMINAL ──> `sessions` ──> STREAM ─────┤
    the runner's exit ──> the end of everything ──> EXITED ──┘

It looks after every process that descends from it: it reaps orphans, and when the runner has ended, when
the worker says KILL or when the worker's socket closes, it kills whatever is left, until nothing is. So no
process outlives its container, and no container its worker.

Nothing here waits for anybody: what the worker does not take yet is kept up to a limit, then the pipes are
not read any more and the writers in the container wait.
"""

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tidemill._container import processes, sockets
from tidemill._container.frames import FromInit, ToInit
from tidemill._container.sessions import Sessions
from tidemill._container.tags import STREAMS, Splitter, Tags

READ = 64 * 1024  # bytes taken from a pipe at once: as much as it holds
BUFFER = 256 * 1024  # bytes kept for the worker before the pipes are left unread
FAREWELL = 5.0  # seconds that the worker has to take the last output

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Init:
    """A container's init while its runner runs."""

    def __init__(self, control: socket.socket, pipes: dict[int, int], tags: Tags, wake: int) -> None:
        self._control = control
        self._wake = wake
        self._runner = 0
        self._status: int | None = None
        self._worker_gone = False
        self._pipes = {fd: (stream, Splitter(tags, stream)) for stream, fd in pipes.items()}
        self._received = b""
        self._unsent = bytearray()
        self._sessions = Sessions(lambda number, frame: self._send(FromInit.STREAM, number, frame))
        control.setblocking(False)
        for fd in (wake, *pipes.values()):
            os.set_blocking(fd, False)

    def watch(self, runner: int) -> None:
        """Serve until the runner has ended or is to end; return when nothing is left of it."""
        self._runner = runner
        self._send(FromInit.STARTED, runner)
        while self._status is None:
            self._turn(None)
        self._end()

    def _turn(self, timeout: float | None) -> None:
        """Wait for one event or more, and handle them. Only what there is room for is watched."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        has_room = len(self._unsent) < BUFFER
        if (due := self._sessions.look(has_room=has_room)) is not None:
            timeout = 1000 * max(0.0, due)
        if has_room:
            for fd in self._pipes:
                poll.register(fd, select.POLLIN)
        streams = self._sessions.awaited()
        for fd, (events, _session) in streams.items():
            poll.register(fd, events)
        if not self._worker_gone:
            poll.register(self._control, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        for fd, _event in poll.poll(timeout):
            if fd == self._wake:
                self._on_signals()
            elif fd in self._pipes:
                self._on_output(fd)
            elif fd in streams:
                self._sessions.on_event(fd, *streams[fd])
            elif not self._worker_gone:
                self._flush()
                self._on_frames()

    # --- the runner's output

    def _on_output(self, fd: int) -> None:
        stream, splitter = self._pipes[fd]
        try:
            parts = splitter.read(fd, READ)
        except BlockingIOError:
            return
        if parts is None:
            parts = splitter.rest()
            del self._pipes[fd]
        for data, input_id in parts:
            self._send(FromInit.OUTPUT, stream, data, input_id)

    # --- signals

    def _on_signals(self) -> None:
        with suppress(BlockingIOError):
            for number in os.read(self._wake, 4096):
                if number == signal.SIGCHLD:
                    self._on_ended(processes.reap())
                else:
                    self._signal(number)

    def _on_ended(self, statuses: dict[int, int]) -> None:
        self._status = statuses.get(self._runner, self._status)
        self._sessions.on_ended(statuses)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, ValueError, OSError):
            os.kill(self._runner, number)

    # --- the worker

    def _on_frames(self) -> None:
        try:
            data = self._control.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose_worker()
            return
        frames, self._received = sockets.split(self._received + data)
        for kind, *arguments in frames:
            self._on_frame(kind, arguments)

    def _on_frame(self, kind: int, arguments: list[Any]) -> None:
        if kind == ToInit.STREAM:
            self._sessions.on_frame(*arguments)
        elif kind == ToInit.EXECUTE:
            self._sessions.execute(*arguments)
        elif kind == ToInit.TERMINAL:
            self._open_terminal(*arguments)
        elif kind == ToInit.HANG_UP:
            self._sessions.hang_up(arguments[0])
        elif kind == ToInit.SIGNAL:
            self._signal(arguments[0])
        elif kind == ToInit.KILL:
            self._kill()

    def _open_terminal(self, session: int, rows: int, columns: int) -> None:
        try:
            device, problem = self._sessions.open_terminal(session, rows, columns), ""
        except OSError as error:
            device, problem = "", f"no terminal could be made: {error}"
        self._send(FromInit.TERMINAL, session, device, problem)

    def _kill(self) -> None:
        ended = processes.kill_descendants()
        self._sessions.on_ended(ended)
        if self._status is None:
            self._status = ended.get(self._runner, -signal.SIGKILL)

    def _lose_worker(self) -> None:
        """Nobody is there to run anything for."""
        if not self._worker_gone:
            self._worker_gone = True
            self._unsent.clear()
            self._kill()

    def _send(self, kind: FromInit, *arguments: object) -> None:
        if not self._worker_gone:
            self._unsent += sockets.pack((kind, *arguments))
            self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._control.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._lose_worker()

    # --- the end

    def _end(self) -> None:
        """Kill what the runner left behind, pass on its last words, say how it ended."""
        self._sessions.on_ended(processes.kill_descendants())
        self._sessions.on_runner_ended()
        until = time.monotonic() + FAREWELL
        while (
            (self._pipes or not self._sessions.are_over)
            and not self._worker_gone
            and time.monotonic() < until
        ):
            self._turn(100)
        self._send(FromInit.EXITED, self._status)
        while self._unsent and not self._worker_gone and time.monotonic() < until:
            self._turn(100)
        self._wait_until_heard(until)

    def _wait_until_heard(self, until: float) -> None:
        """Leave after the worker: writing to a closed socket, it would miss what it has not read."""
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
            self._control.settimeout(max(0.0, until - time.monotonic()))
            while self._control.recv(READ):
                self._control.settimeout(max(0.0, until - time.monotonic()))


StartRunner = Callable[[dict[int, int], dict[int, int], Tags], None]


def run(control: socket.socket, theirs: socket.socket, start_runner: StartRunner) -> None:
    """Be the init of a container whose runner is what `start_runner` does in a process of its own.

    `start_runner` gets the read ends and the write ends of its output pipes, by stream, and the tags;
    `theirs` is the runner's socket, which is closed here.
    """
    processes.become_subreaper()
    wake = _watch_signals()
    tags = Tags()
    reading: dict[int, int] = {}
    writing: dict[int, int] = {}
    for stream in STREAMS:
        reading[stream], writing[stream] = os.pipe()
    me = os.getpid()
    runner = os.fork()
    if not runner:
        _forget_signals(wake)
        control.close()
        processes.die_with(me)
        start_runner(reading, writing, tags)
        return  # not reached: a runner ends by itself
    theirs.close()
    for fd in writing.values():
        os.close(fd)
    Init(control, reading, tags, wake[0]).watch(runner)


def _watch_signals() -> tuple[int, int]:
    """Have the number of each signal written into a pipe; return its ends."""
    wake = os.pipe()
    os.set_blocking(wake[1], False)
    signal.set_wakeup_fd(wake[1], warn_on_full_buffer=False)
    for number in (*_FORWARDED, signal.SIGCHLD):
        signal.signal(number, lambda _number, _frame: None)
    return wake


def _forget_signals(wake: tuple[int, int]) -> None:
    signal.set_wakeup_fd(-1)
    for number in (*_FORWARDED, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    for fd in wake:
        os.close(fd)
