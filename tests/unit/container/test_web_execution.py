"""The loop that requests to ASGI apps run on."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from queue import SimpleQueue
from typing import Any

import msgpack
import pytest
from waiting import wait_until

from tidemill._container import sockets
from tidemill._container.execution import Parts
from tidemill._container.frames import FromRunner
from tidemill._container.outbox import Outbox
from tidemill._container.outcomes import Outcomes
from tidemill._container.tags import Tagger, Tags
from tidemill._container.targets import Program, Target
from tidemill._container.terminal import Terminal
from tidemill._container.web import WebExecution
from tidemill._container.work import Chunk
from tidemill._wire.duplex import Kind
from tidemill._wire.messages import Format
from tidemill._wire.web import HTTP, Request

GET = Request(HTTP, "GET", "http", "1.1", "/", b"/", b"", "", [], None, None)
PATIENCE = 30.0  # seconds

Send = Callable[[dict[str, Any]], Awaitable[None]]


def chunk(number: int) -> Chunk:
    payload = [Format.HTTP, msgpack.packb(GET)]
    return Chunk([0, number, f"fc-{number}", [0], 0, [payload], None, "", False, ""])


class Running:
    """An execution of one app, and what comes out of it."""

    def __init__(self, app: Callable[[Send], Awaitable[None]]) -> None:
        async def whole(scope: dict[str, Any], receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await app(send)
                return
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})

        self.ended = threading.Event()  # a stream's end was heard
        self.inbox: SimpleQueue[Chunk | None] = SimpleQueue()
        self._ours, theirs = socket.socketpair()
        self._theirs = theirs
        outbox = self._outbox = Outbox(theirs)
        program = Program({"": Target(lambda: whole, is_generator=False, is_async=False)})
        parts = Parts(
            program,
            Outcomes("co-1", restrict_output=False),
            outbox,
            Tagger(Tags(), {}, {}),
            Terminal(outbox, lambda: None, interactive=False),
        )
        webs = {"": {"kind": "asgi"}}
        self.execution = WebExecution(
            parts, webs, 2, inbox=self.inbox, on_finished=lambda _: None, enter=lambda _: None
        )
        threading.Thread(target=outbox.tick, daemon=True).start()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for kind, *frame in sockets.read(self._ours):
            if kind == FromRunner.STREAM:
                number, (what, *_) = frame
                if what == Kind.END:
                    self.ended.set()
                else:
                    self.execution.feed(number, (Kind.CREDIT, 1 << 20, 0))

    def close(self) -> None:
        self.execution.close()
        # A thread that still had to send something would end this process: there the worker would be gone.
        wait_until(lambda: not self._outbox._ticking)
        self._outbox.flush()
        with self._outbox._sending:
            self._theirs.close()
        self._reader.join()
        self._ours.close()


@pytest.fixture
def run() -> Iterator[Callable[[Callable[[Send], Awaitable[None]]], Running]]:
    running: list[Running] = []

    def start(app: Callable[[Send], Awaitable[None]]) -> Running:
        running.append(Running(app))
        return running[-1]

    yield start
    for one in running:
        one.close()
    asyncio.set_event_loop(None)


def test_an_app_that_keeps_the_loop_does_not_keep_the_end_of_its_response(run: Any) -> None:
    heard = False

    async def app(send: Send) -> None:
        nonlocal heard
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        heard = running.ended.wait(PATIENCE)

    running = run(app)
    running.inbox.put(chunk(1))
    running.inbox.put(None)
    running.execution.serve()
    assert heard


def test_no_request_starts_once_the_container_is_told_to_stop(run: Any) -> None:
    started, waiting = [], chunk(2)

    async def app(_send: Send) -> None:
        started.append(1)
        running.inbox.put(waiting)  # it has come, and the loop has not looked yet
        running.inbox.put(None)
        running.execution.interrupt()
        await asyncio.Event().wait()

    running = run(app)
    running.inbox.put(chunk(1))
    running.execution.serve()
    assert len(started) == 1
    assert waiting.recall() == [0]  # so it is given back


def test_what_still_comes_while_the_app_shuts_down_does_not_cut_that_short(run: Any) -> None:
    async def app(_send: Send) -> None:
        raise AssertionError("nobody asks")

    async def shut_down() -> None:
        heard = asyncio.Event()
        running.execution.watch(ours, heard.set)  # it returns None: the thread reads again
        theirs.send(b"an answer of the worker's")
        await heard.wait()
        running.execution.feed(1, (Kind.CREDIT, 1, 0))
        for _ in range(3):
            await asyncio.sleep(0)
        ended.append(True)

    ended: list[bool] = []
    running = run(app)
    running.inbox.put(None)
    running.execution.serve()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        running.execution.finish_hook(shut_down())
    assert ended
