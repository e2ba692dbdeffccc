import contextlib
import io
import logging
import os
import pty
import re
import sys
import threading
from collections.abc import Iterator

import pytest
from waiting import wait_until

from tidemill import _output, _runtime, enable_output
from tidemill._output import Output
from tidemill._printer import Printer
from tidemill._wire.messages import LogRecord


def record(text: str, stream: int = 1) -> LogRecord:
    return LogRecord(stream, text, 0.0, "in-1-0", "f", "co-1")


# --- plain


def test_output_goes_where_it_came_from_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    Output().logs(
        [record("no end of"), record(" line\n\x1b[1mbold\x1b[0m"), record("oops\n", 2), record("own\n", 3)]
    )
    captured = capsys.readouterr()
    assert captured.out == "no end of line\n\x1b[1mbold\x1b[0m"
    assert captured.err == "oops\nown\n"


def test_talk_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.status("unseen")
    output.line("✓ Created objects.")
    output.warn("odd", "look")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "✓ Created objects.\nwarning: odd\nhint: look\n"


def test_quiet_leaves_output_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(quiet=True)
    output.line("✓ Created objects.")
    output.warn("odd")
    output.logs([record("49\n")])
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("49\n", "warning: odd\n")


def test_what_an_encoding_does_not_have_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    Output().logs([record("tide ✓ \udc80\n")])
    assert raw.getvalue() == b"tide \\u2713 \\udc80\n"


class Gone(io.StringIO):
    """A file whose reader left."""

    def flush(self) -> None:
        raise BrokenPipeError


def test_a_reader_that_left_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Gone())
        Output().logs([record("anybody?\n")])


def test_lines_can_have_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(timestamps=True)
    other = record("from another\n")._replace(container="co-2")
    output.logs([record("one\ntw"), other, record("o\nthree")])
    output.logs([record("!\n")])
    lines = capsys.readouterr().out.splitlines()
    assert [re.sub(r"\d\d:\d\d:\d\d\.\d\d\d ", "@", line) for line in lines] == [
        "@one",
        "@tw@from another",
        "o",
        "@three!",
    ]


def test_what_the_sdk_logs_is_shown_as_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("tidemill")
    before = logger.propagate, logger.handlers[:]
    logger.propagate, logger.handlers[:] = False, []
    try:
        with enable_output():
            logger.warning("inputs are waiting: %s", "no worker")
            logger.debug("unseen")
        assert logger.handlers == []
    finally:
        logger.propagate, logger.handlers[:] = before
    assert capsys.readouterr().err == "warning: inputs are waiting: no worker\n"


# --- which is active


def test_output_is_shown_only_inside_of_the_block() -> None:
    assert _output.current() is None
    with enable_output():
        outer = _output.current()
        assert outer is not None
        with enable_output():
            assert _output.current() is outer
        assert _output.current() is outer
    assert _output.current() is None


def test_a_container_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_runtime, "container", _runtime.Container("co-1", "ap-1", "app", "f", "main", {}))
    with enable_output():
        assert _output.current() is None


def test_without_a_terminal_lines_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with enable_output():
        assert type(_output.current()) is Output


# --- slow readers


class Slow:
    """A sink that takes nothing before it is told to, like a terminal that was paused."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.written: list[tuple[int, str]] = []

    def __call__(self, stream: int, text: str) -> None:
        assert self.go.wait(20)
        self.written.append((stream, text))

    @property
    def text(self) -> str:
        return "".join(text for _, text in self.written)


@pytest.fixture
def full_pipe() -> Iterator[int]:
    """The writing end of a pipe that takes nothing more."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(65536))
    yield writing
    os.close(reading)
    os.close(writing)


def test_a_slow_reader_holds_up_nobody(full_pipe: int) -> None:
    sink = Slow()
    printer = Printer(sink, lambda _: full_pipe)
    for number in range(100):
        printer.write(1, f"{number}\n")
    assert sink.written == []
    assert not printer.drain(0.01)
    sink.go.set()
    assert printer.drain(20)
    assert sink.text == "".join(f"{number}\n" for number in range(100))


def test_what_a_slow_reader_never_takes_is_cut_and_said(
    full_pipe: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidemill._printer.KEPT", 1000)
    sink = Slow()
    printer = Printer(sink, lambda _: full_pipe)
    for _ in range(30):
        printer.write(1, "x" * 100)
    sink.go.set()
    assert printer.drain(20)
    assert sink.text.startswith("x" * 1000)
    assert "2,000 characters of output were left out" in sink.text


def test_order_is_kept_when_a_reader_is_slow_for_a_while(full_pipe: int) -> None:
    sink = Slow()
    blocked = [True]
    printer = Printer(sink, lambda _: full_pipe if blocked[0] else None)
    printer.write(1, "first\n")
    blocked[0] = False
    printer.write(2, "second\n")
    sink.go.set()
    assert printer.drain(20)
    assert sink.written == [(1, "first\n"), (2, "second\n")]
    printer.write(1, "third\n")
    assert sink.written[-1] == (1, "third\n")


def test_a_long_text_is_written_whole() -> None:
    written = io.StringIO()
    Printer(lambda _, text: written.write(text) and None, lambda _: None).write(1, "é" * 10_000)
    assert written.getvalue() == "é" * 10_000


# --- on a terminal


class Screen:
    """A terminal that standard output and error are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ours, theirs = pty.openpty()
        os.set_blocking(self._ours, False)
        self._drawn = bytearray()
        for name, value in {"TERM": "xterm", "COLUMNS": "80"}.items():
            monkeypatch.setenv(name, value)
        self._files = [open(theirs, "w", buffering=1), open(os.dup(theirs), "w", buffering=1)]  # noqa: SIM115
        monkeypatch.setattr(sys, "stdout", self._files[0])
        monkeypatch.setattr(sys, "stderr", self._files[1])

    def read(self) -> str:
        """Return everything that was drawn so far."""
        try:
            while piece := os.read(self._ours, 65536):
                self._drawn.extend(piece)
        except BlockingIOError:
            pass
        return self._drawn.decode(errors="replace").replace("\r\n", "\n")

    def close(self) -> None:
        for file in self._files:
            file.close()
        os.close(self._ours)


def test_a_terminal_shows_status_progress_and_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    with monkeypatch.context() as patch, contextlib.closing(Screen(patch)) as screen:
        with enable_output():
            output = _output.current()
            assert output is not None
            output.status("Initializing…")
            progress = output.map_progress("square")
            progress.update(3, 10)
            wait_until(lambda: "Initializing…" in screen.read() and "3/10" in screen.read())
            output.logs([record("half a "), record("line\n"), record("wrong\n", 2)])
            print("from the entrypoint")
            progress.close()
            output.line("✓ App completed.")
        drawn = screen.read()
    assert "half a line\n" in drawn
    assert "\x1b[31mwrong" in drawn
    assert "from the entrypoint\n" in drawn
    assert "✓ App completed.\n" in drawn


def test_colours_can_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, contextlib.closing(Screen(patch)) as screen:
        patch.setenv("NO_COLOR", "1")
        with enable_output():
            output = _output.current()
            assert output is not None
            output.logs([record("wrong\n", 2), record("no end")])
        drawn = screen.read()
    assert "\x1b[31m" not in drawn
    assert "wrong\n" in drawn
    assert "no end" in drawn
