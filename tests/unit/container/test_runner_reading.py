"""Frames are read by the loop, as long as that is free to; by a thread where user code needs it."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tidemill._container.reading import Reading
from tidemill._container.sockets import Frame, Reader, pack

PATIENCE = 20.0


class Runner:
    """What reads at one end of a socket, and which thread handled each frame."""

    def __init__(self) -> None:
        self.worker, self.sock = socket.socketpair()
        self.handled: list[tuple[Any, str]] = []
        self.news = threading.Condition()
        self.ended = threading.Event()
        self.reading = Reading(Reader(self.sock), self._handle, self.ended.set)
        self.thread = threading.Thread(target=self.reading.run, name="reader")
        self.thread.start()

    def _handle(self, frame: Frame) -> None:
        with self.news:
            self.handled.append((frame[1], threading.current_thread().name))
            self.news.notify_all()

    def send(self, *values: Any) -> None:
        self.worker.sendall(b"".join(pack((1, value)) for value in values))

    def wait(self, count: int) -> list[tuple[Any, str]]:
        """Block until so many frames were handled; return them."""
        with self.news:
            assert self.news.wait_for(lambda: len(self.handled) >= count, PATIENCE)
        return self.handled

    async def follow(self, count: int) -> list[tuple[Any, str]]:
        """Do as `wait`, and leave the loop free."""
        async with asyncio.timeout(PATIENCE):
            while len(self.handled) < count:
                await asyncio.sleep(0)
        return self.handled

    def let_loop(self) -> None:
        """Let the loop that runs read."""
        loop = asyncio.get_running_loop()

        def on_readable(read: Callable[[], bool]) -> None:
            if not read():
                loop.remove_reader(self.sock)

        def watch(read: Callable[[], bool]) -> None:
            loop.call_soon_threadsafe(loop.add_reader, self.sock, on_readable, read)

        self.reading.let_loop(watch)

    def close(self) -> None:
        self.reading.by_thread()
        self.worker.close()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        self.sock.close()


@pytest.fixture
def runner() -> Iterator[Runner]:
    made = Runner()
    yield made
    made.close()


async def test_the_loop_reads_from_the_first_request_on(runner: Runner) -> None:
    runner.send("before")
    runner.wait(1)
    runner.let_loop()
    runner.send("first")
    await runner.follow(2)
    large = "x" * 1_000_000
    runner.send(*range(100))
    sending = threading.Thread(target=runner.send, args=(large,))
    sending.start()
    names = [name for _, name in await runner.follow(103)]
    sending.join()
    assert [value for value, _ in runner.handled] == ["before", "first", *range(100), large]
    assert names[0] == "reader"
    assert set(names[2:]) == {"MainThread"}


async def test_who_blocks_the_loop_and_waits_for_the_worker_gets_its_answer(runner: Runner) -> None:
    runner.let_loop()
    runner.send("first")
    await runner.follow(1)
    runner.send("second")
    assert (await runner.follow(2))[1] == ("second", "MainThread")
    runner.reading.by_thread()  # as user code does when it asks the worker
    runner.send("answer")
    assert runner.wait(3)[2] == ("answer", "reader")  # the loop does not run here
    runner.send(*range(100))
    assert [value for value, _ in await runner.follow(103)] == ["first", "second", "answer", *range(100)]
    assert {name for _, name in runner.handled[2:]} == {"reader"}


async def test_who_has_used_the_bus_before_leaves_it_to_the_thread(runner: Runner) -> None:
    runner.reading.by_thread()
    runner.let_loop()
    runner.send(1, 2)
    runner.wait(2)
    runner.send(3)
    assert {name for _, name in runner.wait(3)} == {"reader"}


async def test_the_loop_notices_that_the_worker_is_gone(runner: Runner) -> None:
    runner.let_loop()
    runner.send("first")
    await runner.follow(1)
    runner.send("second")
    await runner.follow(2)
    runner.worker.close()
    async with asyncio.timeout(PATIENCE):
        while not runner.ended.is_set():
            await asyncio.sleep(0)
