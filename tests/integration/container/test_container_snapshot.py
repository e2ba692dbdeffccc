"""What a template with user code refuses to be forked with, and what a fork of it has to itself."""

import os
import socket
import textwrap
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from container_harness import Container, Inbox, Template, _spawn

from tidemill._container import sockets
from tidemill._container.configuration import Configuration
from tidemill._container.frames import FromTemplate, ToTemplate


class Snapshot(Template):
    """A template that was told to hold a module."""

    def __init__(self, folder: Path, source: str) -> None:
        (folder / "hello.py").write_text(textwrap.dedent(source))
        self.fields = {"sources": (str(folder),), "module": "hello", "qualname": "f"}
        self.sock, its = socket.socketpair()
        control, its_control = socket.socketpair()
        output, its_output = os.pipe()
        fds = [its.fileno(), its_control.fileno(), its_output]
        self.process = _spawn(["--snapshot", *map(str, fds), "co-0"], fds, folder)
        for sock in (control, its, its_control):
            sock.close()
        os.close(its_output)
        self.frames = Inbox(self.sock)
        self.containers: list[Container] = []
        self.sock.sendall(
            sockets.pack((ToTemplate.TAKE, Configuration("co-0", **self.fields)._asdict()))  # type: ignore[arg-type]
        )
        with open(output, encoding="utf-8") as file:
            self.printed = file.read()  # to the end: it is closed when the snapshot is taken

    def answer(self) -> list[object]:
        answers = FromTemplate.READY, FromTemplate.REFUSED
        return list(self.frames.wait(lambda frames: next((f for f in frames if f[0] in answers), None)))


@contextmanager
def taken(folder: Path, source: str) -> Iterator[Snapshot]:
    """Take a snapshot and end it."""
    snapshot = Snapshot(folder, source)
    with closing(snapshot):
        yield snapshot


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import socket; one = socket.socket()", "a connection is open"),
        ("import os; ends = os.pipe()", "a pipe is open"),
        ("import asyncio; loop = asyncio.new_event_loop()", "open, which copies cannot share"),
        ("import subprocess, sys; child = subprocess.Popen(['sleep', '60'])", "processes run"),
        ("import threading as t; t.Thread(target=t.Event().wait, daemon=True).start()", "threads run"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_what_a_fork_would_break_is_refused(tmp_path: Path, source: str, reason: str) -> None:
    snapshot = Snapshot(tmp_path, f"{source}\ndef f(): pass")
    kind, told, final = snapshot.answer()
    assert kind == FromTemplate.REFUSED
    assert reason in str(told)
    assert final is ("SystemExit" not in source), "what failed may work another time"
    snapshot.frames.wait_closed()
    snapshot.sock.close()
    assert snapshot.process.wait() == 0


def test_forks_share_no_randomness_no_position_and_no_output(tmp_path: Path) -> None:
    source = """
        import logging, os, random, sys, tempfile
        print("taking", file=sys.stderr)
        logging.basicConfig(stream=sys.stderr, level="INFO")
        random.seed(1)
        tempfile.gettempdir()
        file = open(__file__)
        null = open(os.devnull)
        def f():
            logging.info("here")
            return random.random(), file.read(), tempfile.gettempdir(), os.environ["TMPDIR"]
    """
    with taken(tmp_path, source) as snapshot:
        kind, _pid, report = snapshot.answer()
        assert kind == FromTemplate.READY
        assert isinstance(report, dict)
        assert report["memory"] > 1 << 20
        assert snapshot.printed == "taking\n"
        seen = []
        for number in range(2):
            folder = tmp_path / str(number)
            folder.mkdir()
            container = snapshot.fork()
            container.start(**snapshot.fields, surroundings={"TMPDIR": str(folder)})
            seen.append(container.call())
            container.control.wait(lambda _frames, one=container: b"here" in b"".join(one.piped(2).values()))
        (one, text, place, variable), (other, again, *_) = seen
        assert one != other
        assert text == again == textwrap.dedent(source)
        assert place == variable == str(tmp_path / "0")
