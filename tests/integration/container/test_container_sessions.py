"""Further processes in a container, and the terminal of its runner, as the worker drives them."""

import signal
from pathlib import Path
from typing import Any

import msgpack
import pytest
from container_harness import Container, Frame, Start, eventually, is_alive

from tidemill import exception
from tidemill._container import sessions
from tidemill._container.frames import FromInit, FromRunner, ToInit, ToRunner
from tidemill._wire import failure
from tidemill._wire.duplex import OPENING, OVERHEAD, PIECE_TO_CONTAINER, Kind
from tidemill._wire.messages import Format
from tidemill._wire.web import HTTP, Request

PLENTY = 1 << 24  # bytes of credit


class Session:
    """The worker's end of one stream."""

    def __init__(self, container: Container, number: int) -> None:
        self.container = container
        self.number = number
        self._sent = 0

    def say(self, kind: Kind, *rest: Any) -> None:
        self.container.order(ToInit.STREAM, self.number, (kind, *rest))

    def grant(self, limit: int = PLENTY) -> None:
        self.say(Kind.CREDIT, limit, self._sent)

    def write(self, data: bytes) -> None:
        self.say(Kind.PIECE, self._next(), 0, data)

    def control(self, name: str, value: Any) -> None:
        self.say(Kind.CONTROL, self._next(), name, value)

    def end(self) -> None:
        self.say(Kind.END, self._next(), None)

    def hang_up(self) -> None:
        self.container.order(ToInit.HANG_UP, self.number)

    def _next(self) -> int:
        self._sent += 1
        return self._sent - 1

    @property
    def frames(self) -> list[Frame]:
        return [frame[2] for frame in self.container.control.of(FromInit.STREAM) if frame[1] == self.number]

    def pieces(self, tag: int = 1) -> list[bytes]:
        return [frame[3] for frame in self.frames if frame[0] == Kind.PIECE and frame[2] == tag]

    def output(self, tag: int = 1) -> bytes:
        return b"".join(self.pieces(tag))

    def see(self, text: bytes) -> None:
        self.container.control.wait(lambda _: text in self.output())

    def status(self) -> int | None:
        """Return the last word, when it has come; all numbers before it must have come too."""

        def last() -> Frame | None:
            return next((frame for frame in self.frames if frame[0] == Kind.END), None)

        frame = self.container.control.wait(lambda _: last())
        numbered = [each[1] for each in self.frames if each[0] != Kind.CREDIT]
        assert numbered == list(range(len(numbered)))
        return frame[2]  # type: ignore[no-any-return]

    def aborted(self) -> Frame:
        found: Frame = self.container.control.wait(
            lambda _: next((frame for frame in self.frames if frame[0] == Kind.ABORT), None)
        )
        return found


def execute(
    container: Container,
    *arguments: str,
    size: tuple[int, int] | None = None,
    workdir: str = "",
    **variables: str,
) -> Session:
    session = Session(container, 1 + len(getattr(container, "sessions", [])))
    container.sessions = [*getattr(container, "sessions", []), session]  # type: ignore[attr-defined]
    container.order(ToInit.EXECUTE, session.number, arguments, variables, workdir, size)
    session.grant()
    return session


@pytest.fixture
def container(start: Start) -> Container:
    return start("def f(): pass")


# --- processes


def test_a_process_has_its_own_output_and_errors_and_the_status_comes_last(container: Container) -> None:
    session = execute(container, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert session.status() == 7
    assert (session.output(1), session.output(2)) == (b"out\n", b"err\n")
    assert session.frames[-1][0] == Kind.END


def test_it_finds_the_containers_environment_and_what_was_added(container: Container) -> None:
    session = execute(container, "sh", "-c", "echo $ADDED $PWD", workdir="/", ADDED="here")
    session.status()
    assert session.output() == b"here /\n"


def test_input_arrives_and_its_end_too(container: Container) -> None:
    session = execute(container, "cat")
    session.write(b"hello ")
    session.write(b"there")
    session.end()
    assert session.status() == 0
    assert session.output() == b"hello there"


@pytest.mark.parametrize(("program", "status"), [("no-such-program", 127), ("/etc/hostname", 126)])
def test_a_program_that_cannot_run_ends_as_in_a_shell(
    container: Container, program: str, status: int
) -> None:
    session = execute(container, program)
    assert session.status() == status
    assert program.encode() in session.output(2)


def test_the_end_by_a_signal_is_told(container: Container) -> None:
    session = execute(container, "sleep", "1000")
    session.control("signal", int(signal.SIGINT))
    assert session.status() == -signal.SIGINT


def test_output_without_credit_waits_and_none_is_lost(container: Container) -> None:
    session = Session(container, 1)
    container.order(ToInit.EXECUTE, 1, ["head", "-c", "1000000", "/dev/zero"], {}, "", None)
    container.control.wait(lambda _: len(session.output()) >= OPENING - 2 * PIECE_TO_CONTAINER)
    session.grant(300_000)
    container.control.wait(lambda _: len(session.output()) >= 300_000 - PIECE_TO_CONTAINER)
    assert len(session.output()) <= 300_000 + PIECE_TO_CONTAINER
    session.grant()
    assert session.status() == 0
    assert len(session.output()) == 1_000_000
    assert max(map(len, session.pieces())) <= PIECE_TO_CONTAINER


def test_input_gets_credit_only_once_it_was_written(container: Container, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    session = execute(container, "sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.01; done; wc -c")

    def credit() -> int:
        return max((frame[1] for frame in session.frames if frame[0] == Kind.CREDIT), default=OPENING)

    container.control.wait(lambda _: credit() >= sessions.WINDOW)
    used = count = 0
    while used < credit():
        session.write(bytes(PIECE_TO_CONTAINER))
        used, count = used + PIECE_TO_CONTAINER + OVERHEAD, count + 1
    assert used <= 2 * sessions.WINDOW
    gate.touch()
    container.control.wait(lambda _: credit() > used)
    session.end()
    assert session.status() == 0
    assert int(session.output()) == count * PIECE_TO_CONTAINER


def test_input_that_nobody_reads_any_more_stops_nothing(container: Container) -> None:
    session = execute(container, "sh", "-c", "exec <&-; echo closed; sleep 0.2; exit 3")
    session.see(b"closed")
    session.write(bytes(PIECE_TO_CONTAINER))
    assert session.status() == 3


def test_what_a_child_in_the_background_holds_open_does_not_keep_the_stream(container: Container) -> None:
    session = execute(container, "sh", "-c", "sleep 1000 & echo $!")
    assert session.status() == 0
    assert is_alive(int(session.output()))


def test_programs_inherit_nothing_that_leads_to_the_worker(start: Start, tmp_path: Path) -> None:
    container = start("import os\ndef f(path): os.system(f'ls -l /proc/self/fd > {path}')")
    session = execute(container, "ls", "-l", "/proc/self/fd")
    assert session.status() == 0
    assert b"socket:" not in session.output()
    container.call(str(tmp_path / "found"))
    assert "socket:" not in (tmp_path / "found").read_text()


def test_many_processes_run_side_by_side(container: Container) -> None:
    running = [execute(container, "sh", "-c", f"read x; echo {number} $x") for number in range(10)]
    for session in reversed(running):
        session.write(b"go\n")
    for number, session in enumerate(running):
        assert session.status() == 0
        assert session.output() == f"{number} go\n".encode()


def test_a_process_that_hears_nothing_is_killed_when_its_stream_is_hung_up(container: Container) -> None:
    script = "trap '' HUP; sh -c 'trap \"\" HUP; echo $$; sleep 1000' & wait"
    session = execute(container, "sh", "-c", f"echo $$; {script}")
    container.control.wait(lambda _: session.output().count(b"\n") == 2)
    session.hang_up()
    for pid in map(int, session.output().split()):
        eventually(lambda pid=pid: not is_alive(pid))


def test_a_stream_that_is_given_up_hangs_up(container: Container) -> None:
    session = execute(container, "sh", "-c", "echo $$; exec sleep 1000")
    session.see(b"\n")
    session.say(Kind.ABORT, "service", "the other side has left")
    eventually(lambda: not is_alive(int(session.output())))


def test_a_process_that_listens_can_end_in_order_when_its_stream_is_hung_up(
    container: Container, tmp_path: Path
) -> None:
    note = tmp_path / "note"
    script = f"trap 'echo saved > {note}; exit' HUP PIPE; echo $$; while :; do sleep 0.01; done"

    def ends_in_order() -> bool:
        session = execute(container, "sh", "-c", script)
        session.see(b"\n")
        session.hang_up()
        eventually(lambda: not is_alive(int(session.output())))
        return note.exists() and note.read_text() == "saved\n"

    # One that stands still for longer than the grace is killed, and rightly so.
    assert any(ends_in_order() for _ in range(3))


def test_processes_end_with_the_container(container: Container) -> None:
    session = execute(container, "sh", "-c", "echo $$; setsid sleep 1000 & echo $!; wait")
    container.control.wait(lambda _: session.output().count(b"\n") == 2)
    container.stop()
    for pid in map(int, session.output().split()):
        eventually(lambda pid=pid: not is_alive(pid))


def test_processes_end_with_the_worker(container: Container) -> None:
    session = execute(container, "sh", "-c", "echo $$; sleep 1000")
    session.see(b"\n")
    pid = int(session.output())
    container.close()
    eventually(lambda: not is_alive(pid))


def test_a_frame_that_is_missing_ends_the_process(container: Container) -> None:
    session = execute(container, "sh", "-c", "echo $$; exec cat")
    session.see(b"\n")
    pid = int(session.output())
    session.say(Kind.PIECE, 5, 0, b"out of order")
    assert session.aborted()[1] == "data_loss"
    eventually(lambda: not is_alive(pid))


def test_processes_leave_the_functions_of_the_container_alone(start: Start) -> None:
    container = start("def f(x): return x + 1")
    session = execute(container, "cat")
    assert container.call(1) == 2
    session.hang_up()
    assert container.call(2) == 3


# --- with a terminal


def test_a_process_with_a_terminal_sees_its_size_and_its_changes(container: Container) -> None:
    session = execute(
        container,
        "sh",
        "-c",
        "trap 'stty size' WINCH; stty size; while :; do sleep 0.01; done",
        size=(30, 90),
    )
    session.see(b"30 90")
    session.control("resize", [50, 120])
    session.see(b"50 120")


def test_keys_mean_what_they_mean_at_a_terminal(container: Container) -> None:
    session = execute(
        container,
        "sh",
        "-c",
        "trap 'echo caught; exit 4' INT; echo ready; while :; do sleep 0.01; done",
        size=(24, 80),
    )
    session.see(b"ready")
    session.write(b"\x03")
    assert session.status() == 4
    assert b"caught" in session.output()


def test_the_end_of_input_is_typed_at_a_terminal(container: Container) -> None:
    session = execute(container, "cat", size=(24, 80))
    session.write(b"line\n")
    session.end()
    assert session.status() == 0
    assert session.output().count(b"line") == 2  # its echo, then cat's


def test_all_output_of_a_terminal_comes_before_the_status(container: Container) -> None:
    session = execute(container, "sh", "-c", "seq 20000", size=(24, 80))
    assert session.status() == 0
    assert session.output().split()[-1] == b"20000"
    assert len(session.output().split()) == 20_000


def test_who_hangs_up_a_terminal_is_heard_by_everybody_at_it(container: Container) -> None:
    session = execute(container, "sh", "-c", "echo $$; sleep 1000", size=(24, 80))
    session.see(b"\n")
    pid = int(session.output().split()[0])
    session.hang_up()
    eventually(lambda: not is_alive(pid))


# --- the runner's terminal


class Caller:
    """The worker's part of lending a terminal to the runner."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.number = 100

    def lend(self, asked: int = 1) -> Session:
        """Answer the runner's request number `asked`."""
        self.container.frames.wait(lambda _: len(self.container.frames.of(FromRunner.INTERACT)) >= asked)
        self.number += 1
        self.container.order(ToInit.TERMINAL, self.number, 24, 80)
        frame = self.container.control.wait(
            lambda frames: next(
                (f for f in frames if f[0] == FromInit.TERMINAL and f[1] == self.number), None
            )
        )
        assert frame[3] == ""
        session = Session(self.container, self.number)
        session.grant()
        self.container.send(ToRunner.TERMINAL, frame[2], "xterm")
        return session

    def take_back(self, session: Session, released: int = 1) -> None:
        """See to it that the terminal comes back once the runner has released it."""
        self.container.frames.wait(lambda _: len(self.container.frames.of(FromRunner.RELEASE)) >= released)
        assert not self.container.frames.of(FromRunner.OUTPUTS)[released - 1 :], (
            "first the terminal goes back"
        )
        session.end()
        assert session.status() is None
        self.container.send(ToRunner.RELEASED)


INTERACTIVE = {"interactive": True}


def test_an_input_talks_with_the_callers_terminal_and_gives_it_back(start: Start) -> None:
    container = start(
        """
        import os
        import tidemill
        def f():
            print("to the log")
            tidemill.interact()
            name = input("who? ")
            print("hello", name, os.isatty(0), os.environ["TERM"])
            os.system("echo from a shell")
            return len(name)
        """,
        **INTERACTIVE,
    )
    caller, chunk = Caller(container), container.give([()])
    session = caller.lend()
    session.see(b"who? ")
    session.write(b"Ada\n")
    caller.take_back(session)
    assert container.result(chunk) == 3
    said = session.output()
    assert b"hello Ada True xterm" in said
    assert b"from a shell" in said
    assert b"to the log" not in said
    container.stop()
    assert "".join(container.logged().values()) == "to the log\n"


def test_a_thread_may_ask_and_two_at_once_share_the_terminal(start: Start) -> None:
    container = start(
        """
        import threading
        import tidemill
        def f():
            asking = [threading.Thread(target=tidemill.interact) for _ in range(4)]
            for thread in asking:
                thread.start()
            for thread in asking:
                thread.join()
            return input("all? ")
        """,
        **INTERACTIVE,
    )
    caller, chunk = Caller(container), container.give([()])
    session = caller.lend()
    session.see(b"all? ")
    session.write(b"yes\n")
    caller.take_back(session)
    assert container.result(chunk) == "yes"
    assert len(container.frames.of(FromRunner.INTERACT)) == 1


def test_each_input_borrows_the_terminal_anew(start: Start) -> None:
    container = start("def f(): return input()", **INTERACTIVE)
    caller = Caller(container)
    for number in (1, 2, 3):
        chunk = container.give([()])
        session = caller.lend(number)
        session.write(f"line {number}\n".encode())
        caller.take_back(session, number)
        assert container.result(chunk) == f"line {number}"


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    x = 41\n    breakpoint()\n    return x",
        "async def f():\n    x = 41\n    breakpoint()\n    return x",
    ],
    ids=["sync", "async"],
)
def test_a_breakpoint_stops_where_it_stands(start: Start, source: str) -> None:
    container = start(source, **INTERACTIVE)
    caller, chunk = Caller(container), container.give([()])
    session = caller.lend()
    session.see(b"(Pdb)")
    session.write(b"!x += 1\n")
    session.write(b"p x\n")
    session.see(b"42")
    session.write(b"c\n")
    caller.take_back(session)
    assert container.result(chunk) == 42


def test_a_request_talks_with_the_callers_terminal_and_gives_it_back(start: Start) -> None:
    container = start(
        """
        async def answer(scope, receive, send):
            if scope["type"] == "http":
                x = 41
                breakpoint()
                await send({"type": "http.response.start", "status": x, "headers": []})
                await send({"type": "http.response.body", "body": b""})
        def f():
            return answer
        """,
        web={"": {"kind": "asgi"}},
        **INTERACTIVE,
    )
    request = Request(HTTP, "GET", "http", "1.1", "/", b"/", b"", "", [], None, None)
    caller = Caller(container)
    chunk = container.give_encoded([(Format.HTTP, msgpack.packb(request))])
    session = caller.lend()
    session.see(b"(Pdb)")
    session.write(b"p x\n")
    session.see(b"41")
    session.write(b"c\n")
    caller.take_back(session)
    assert container.frames.wait(
        lambda frames: [frame for frame in frames if frame[:2] == [FromRunner.OUTPUTS, chunk]]
    )


@pytest.mark.parametrize(
    "source",
    [
        "import time\ndef f():\n    input()\n    print('on')\n    while True: time.sleep(0.01)",
        "import asyncio\nasync def f():\n    input()\n    print('on')\n    await asyncio.sleep(1000)",
        "async def f():\n    input()\n    print('on')\n    while True: pass",
    ],
    ids=["sync", "awaiting", "async"],
)
def test_ctrl_c_interrupts_the_input_and_not_the_container(start: Start, source: str) -> None:
    container = start(source, **INTERACTIVE)
    caller, chunk = Caller(container), container.give([()])
    session = caller.lend()
    session.write(b"\n")
    session.see(b"on")
    session.write(b"\x03")
    caller.take_back(session)
    with pytest.raises(KeyboardInterrupt):
        container.result(chunk)
    container.give([()])
    session = caller.lend(2)
    session.write(b"\n")
    session.see(b"on")


def test_ctrl_c_shows_where_it_interrupted_without_our_frames(start: Start) -> None:
    container = start(
        "import time\ndef f():\n    input()\n    print('on')\n    while True: time.sleep(0.01)", **INTERACTIVE
    )
    caller, chunk = Caller(container), container.give([()])
    session = caller.lend()
    session.write(b"\n")
    session.see(b"on")
    session.write(b"\x03")
    caller.take_back(session)
    with pytest.raises(KeyboardInterrupt):
        container.result(chunk)
    assert b", in f" in session.output()
    assert b"_container" not in session.output()


def test_a_terminal_that_is_refused_is_an_error_of_the_input(start: Start) -> None:
    container = start("import tidemill\ndef f(): tidemill.interact()", **INTERACTIVE)
    chunk = container.give([()])
    container.frames.first(FromRunner.INTERACT)
    container.send(ToRunner.TERMINAL, "", failure.from_text("InteractiveTimeoutError", "nobody is there"))
    with pytest.raises(exception.InteractiveTimeoutError, match="nobody is there"):
        container.result(chunk)


@pytest.mark.parametrize("code", ["import tidemill; tidemill.interact()", "breakpoint()"])
def test_without_an_interactive_run_there_is_nobody_to_talk_with(start: Start, code: str) -> None:
    container = start(f"def f():\n    {code}")
    with pytest.raises(exception.InvalidError, match="not an interactive run"):
        container.call()
    assert not container.frames.of(FromRunner.INTERACT)


def test_a_caller_who_is_gone_hangs_up(start: Start) -> None:
    container = start("def f(): return input('well? ')", **INTERACTIVE)
    container.give([()])
    session = Caller(container).lend()
    session.see(b"well? ")
    session.hang_up()
    assert container.exit_status() == -signal.SIGHUP
