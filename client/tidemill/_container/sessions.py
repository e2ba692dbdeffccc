"""Further processes of a container, and the terminal of its runner, each at the end of a duplex stream.

    pipes or terminal ──> pieces, as far as there is credit ──> worker ──> who asked for it
    standard input    <── pieces, credit once they are written <──────────

A process ends with its stream: when nobody is at the other end any more it hears SIGHUP, as when a
terminal is closed, and two seconds later whatever is left of its session is killed. Its exit status is the
last word of the stream, behind all its output. Everything here is driven by init's poll loop and never
blocks.
"""

import errno
import os
import select
import signal
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from tidemill._container import processes
from tidemill._wire.duplex import PIECE_TO_CONTAINER, Content, Frame, Gap, Kind, Receiving, Sending

STDOUT, STDERR = 1, 2  # tags of pieces; a terminal has only the first

WINDOW = 256 * 1024  # bytes of input that are kept for a process
GRACE = 2.0  # seconds between SIGHUP and SIGKILL
NOT_FOUND, NOT_RUN = 127, 126  # exit statuses, as shells have them

# What Python and init handle or ignore, and programs expect as they are.
_RESET = (
    signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT,
    signal.SIGCHLD,
)  # fmt: skip

_END_OF_FILE = b"\x04"  # what a terminal's user types for it


class Session:
    """One stream: `reading` are descriptors by tag, `writing` takes what comes; `pid` is 0 for no process."""

    def __init__(
        self, transmit: Callable[[Frame], None], pid: int, reading: dict[int, int], writing: int
    ) -> None:
        self.pid = pid
        self.is_over = False
        self.has_room = True  # whether the worker takes output now
        self._transmit = transmit
        self._tags = {fd: tag for tag, fd in reading.items()}
        self._writing = writing
        self._out = Sending()
        self._in = Receiving(WINDOW)
        self._input: deque[tuple[bytes, int]] = deque()  # and the credit to give back for it
        self._finishing = False  # no more output will come than is there now
        self._word: int | None = None
        for fd in (*self._tags, writing):
            os.set_blocking(fd, False)
        self._grant()

    def awaited(self) -> Iterator[tuple[int, int]]:
        """Yield the descriptors to wait for, and for what."""
        if self.has_room and self._out.is_open:
            for fd in self._tags:
                yield fd, select.POLLIN
        if self._input:
            yield self._writing, select.POLLOUT

    # --- out

    def read(self, fd: int) -> bool:
        """Send some output; return whether there may be more of it now."""
        if fd not in self._tags:
            return False
        try:
            data = os.read(fd, PIECE_TO_CONTAINER)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:  # of a terminal that nobody has open any more
                raise
            data = b""
        if not data:
            del self._tags[fd]
            os.close(fd)
            return False
        self._transmit(self._out.piece(self._tags[fd], data))
        return True

    def finish(self, word: int | None) -> None:
        """End this half of the stream as soon as all output that is there has been sent."""
        self._finishing, self._word = True, word
        self.go_on()

    def go_on(self) -> None:
        """Send the rest of a stream that is being finished, as far as it may go."""
        if not self._finishing or self.is_over:
            return
        for fd in list(self._tags):
            while True:
                if not (self.has_room and self._out.is_open):
                    return
                if not self.read(fd):
                    break
        self._transmit(self._out.end(self._word))
        self.close()

    # --- in

    def on_frame(self, frame: list[Any]) -> None:
        """Take a frame of the worker; one that does not fit in ends the stream."""
        kind = frame[0]
        if kind == Kind.CREDIT:
            self._out.grant(frame[1])
            self.go_on()
        elif self._in.accept(frame):
            self._take_in(kind, frame)

    def _take_in(self, kind: int, frame: list[Any]) -> None:
        if kind == Kind.PIECE:
            content = Content(frame[2], frame[3])
            self._input.append((content.data, content.cost))
            self.write()
        elif kind == Kind.END:
            self._input.append((b"", 0))
            self.write()
        elif frame[2] == "resize":
            resize(self._writing, *frame[3])
        elif frame[2] == "signal" and self.pid:
            self.signal(frame[3])

    def signal(self, number: int) -> None:
        """Send a signal to the process and its group, which it may only be about to make."""
        with suppress(ProcessLookupError, PermissionError):
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                os.kill(self.pid, number)

    def write(self) -> None:
        """Write as much input as there is room for; give credit for it."""
        while self._input and self._writing >= 0:
            data, cost = self._input.popleft()
            if not cost:
                self._on_end_of_input()
                return
            try:
                written = os.write(self._writing, data)
            except BlockingIOError:
                written = 0
            except OSError:  # nobody reads it
                written = len(data)
            if written < len(data):
                self._input.appendleft((data[written:], cost))
                return
            self._in.take(cost)
            self._grant()

    def _on_end_of_input(self) -> None:
        os.close(self._writing)
        self._writing = -1

    def _grant(self) -> None:
        if (limit := self._in.grant()) is not None:
            self._transmit((Kind.CREDIT, limit, self._out.next))

    # --- the end

    def close(self) -> None:
        """Let go of its descriptors."""
        self.is_over = True
        self._input.clear()
        for fd in self._tags:
            os.close(fd)
        self._tags.clear()
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1


class TerminalSession(Session):
    """A stream whose end is a terminal: it has no end of input but the character for it."""

    def _on_end_of_input(self) -> None:
        if not self.pid:  # the runner gives the terminal back
            self.finish(None)
            return
        with suppress(OSError):
            os.write(self._writing, _END_OF_FILE)


class Sessions:
    """All streams of a container. `send(kind of frame, session, ...)` reaches the worker."""

    def __init__(self, send: Callable[[int, Any], None]) -> None:
        self._send = send
        self._sessions: dict[int, Session] = {}
        self._dying: dict[int, float] = {}  # leaders of sessions to be killed, and when
        self._runner_terminal: tuple[int, int] | None = None  # both ends of it, once it was asked for

    def execute(
        self,
        number: int,
        arguments: list[str],
        variables: dict[str, str],
        workdir: str,
        size: list[int] | None,
    ) -> None:
        """Start a process at the end of a stream."""
        try:
            made = _Pipes() if size is None else _Terminal(size)
            try:
                pid = _start(arguments, {**os.environ, **variables}, workdir, made)
            except OSError:
                made.close()
                raise
            made.close_theirs()
        except OSError as error:
            self._send(number, (Kind.ABORT, "service", f"no process could be made: {error}"))
            return
        kind = Session if size is None else TerminalSession
        self._sessions[number] = kind(self._transmitter(number), pid, made.reading, made.writing)

    def open_terminal(self, number: int, rows: int, columns: int) -> str:
        """Connect a stream with the runner's terminal; return its device."""
        if self._runner_terminal is None:
            self._runner_terminal = os.openpty()
        ours, theirs = self._runner_terminal
        resize(ours, rows, columns)
        transmit = self._transmitter(number)
        self._sessions[number] = TerminalSession(transmit, 0, {STDOUT: os.dup(ours)}, os.dup(ours))
        return os.ttyname(theirs)

    def on_frame(self, number: int, frame: list[Any]) -> None:
        """Take a frame of a stream; of one that is over nothing more is heard."""
        session = self._sessions.get(number)
        if session is None:
            return
        if frame[0] == Kind.ABORT:
            self.hang_up(number)
            return
        try:
            session.on_frame(frame)
        except (Gap, TypeError, ValueError, IndexError, OSError) as error:
            self._send(number, (Kind.ABORT, "data_loss", str(error)))
            self.hang_up(number)
        self._forget_if_over(number, session)

    def hang_up(self, number: int) -> None:
        """End what is at the end of a stream that nobody listens to any more."""
        session = self._sessions.pop(number, None)
        if session is None:
            return
        session.close()
        if session.pid:
            session.signal(signal.SIGHUP)
            self._dying[session.pid] = time.monotonic() + GRACE
        elif self._runner_terminal is not None:
            for fd in self._runner_terminal:  # the runner hears SIGHUP from the system
                os.close(fd)
            self._runner_terminal = None

    # --- init's loop

    def awaited(self) -> dict[int, tuple[int, Session]]:
        """Return the descriptors to wait for, for what and for whom."""
        return {
            fd: (events, session) for session in self._sessions.values() for fd, events in session.awaited()
        }

    def on_event(self, fd: int, events: int, session: Session) -> None:
        """Read from or write to a descriptor that is ready."""
        if session.is_over:
            return
        if events & select.POLLIN:
            session.read(fd)
        else:
            session.write()

    def look(self, *, has_room: bool) -> float | None:
        """Do what is due; return the seconds until something is, None for nothing.

        `has_room` says whether the worker takes output now.
        """
        for number, session in list(self._sessions.items()):
            session.has_room = has_room
            session.go_on()
            self._forget_if_over(number, session)
        now = time.monotonic()
        for pid, due in list(self._dying.items()):
            if due <= now:
                del self._dying[pid]
                processes.kill_session(pid)
        return min(self._dying.values()) - now if self._dying else None

    def on_ended(self, statuses: dict[int, int]) -> None:
        """Take the exit statuses of processes that have ended."""
        for pid in [pid for pid in self._dying if pid in statuses]:
            del self._dying[pid]
            processes.kill_session(pid)  # who is left of it has no leader any more
        for number, session in list(self._sessions.items()):
            if session.pid in statuses:
                session.finish(statuses[session.pid])
                self._forget_if_over(number, session)

    def on_runner_ended(self) -> None:
        """Send what the runner has left at its terminal."""
        for number, session in list(self._sessions.items()):
            if not session.pid:
                session.finish(None)
                self._forget_if_over(number, session)

    @property
    def are_over(self) -> bool:
        """Whether nothing more is to be sent of any stream."""
        return not self._sessions

    def _forget_if_over(self, number: int, session: Session) -> None:
        if session.is_over:
            self._sessions.pop(number, None)

    def _transmitter(self, number: int) -> Callable[[Frame], None]:
        return lambda frame: self._send(number, frame)


class _Pipes:
    """The three pipes of a process without a terminal."""

    def __init__(self) -> None:
        pipes = [os.pipe() for _ in range(3)]
        self.theirs = (pipes[0][0], pipes[1][1], pipes[2][1])
        self.reading = {STDOUT: pipes[1][0], STDERR: pipes[2][0]}
        self.writing = pipes[0][1]

    def close_theirs(self) -> None:
        for fd in set(self.theirs):
            os.close(fd)

    def close(self) -> None:
        self.close_theirs()
        for fd in (*self.reading.values(), self.writing):
            os.close(fd)


class _Terminal(_Pipes):
    """A terminal in the place of the pipes."""

    def __init__(self, size: list[int]) -> None:
        ours, theirs = os.openpty()
        resize(ours, *size)
        self.theirs = (theirs, theirs, theirs)
        self.reading = {STDOUT: ours}
        self.writing = os.dup(ours)


def _start(arguments: list[str], environment: dict[str, str], workdir: str, made: _Pipes) -> int:
    """Start a program in a session of its own; return its pid."""
    me = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, _RESET)  # none is lost before the program can hear it
    try:
        pid = os.fork()
    finally:
        if os.getpid() == me:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _RESET)
    if pid:
        return pid
    status = NOT_RUN
    try:
        processes.die_with(me)
        os.setsid()
        _default_signals()
        for place, fd in enumerate(made.theirs):
            os.dup2(fd, place)
        if isinstance(made, _Terminal):
            take_terminal(0)
        os.chdir(workdir or "/")
        os.execvpe(arguments[0], arguments, environment)  # noqa: S606 - no shell is what is wanted
    except BaseException as error:
        status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_RUN
        reason = error.strerror if isinstance(error, OSError) else repr(error)
        os.write(2, f"{arguments[0]}: {reason}\n".encode())
    finally:
        os._exit(status)


def _default_signals() -> None:
    """Undo what Python and init do with signals."""
    signal.set_wakeup_fd(-1)
    for number in _RESET:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _RESET)


def take_terminal(fd: int) -> None:
    """Make a terminal the controlling one of this session, whose leader this process is."""
    import fcntl
    import termios

    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)


def resize(fd: int, rows: int, columns: int) -> None:
    """Tell a terminal its size; who runs in its foreground hears SIGWINCH."""
    import fcntl
    import termios

    if fd >= 0 and 0 < rows < 1 << 16 and 0 < columns < 1 << 16:
        with suppress(OSError):  # it is no terminal
            fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
