"""Every byte in a pipe is tagged with the input during which it was written."""

import itertools
import os
import random
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill._container import tags
from tidemill._container.tags import Splitter, Tagger, Tags

SIZE = 65_536


class Pipes:
    """Two pipes, with both sides of the tags."""

    def __init__(self) -> None:
        self.tags = Tags()
        self.reading: dict[int, int] = {}
        self.writing: dict[int, int] = {}
        for stream in (1, 2):
            self.reading[stream], self.writing[stream] = os.pipe()
            os.set_blocking(self.reading[stream], False)
        self.tagger = Tagger(self.tags, self.reading, self.writing)
        self.splitters = {stream: Splitter(self.tags, stream) for stream in (1, 2)}

    def read(self, stream: int = 1, size: int = SIZE) -> list[tuple[bytes, str]] | None:
        try:
            return self.splitters[stream].read(self.reading[stream], size)
        except BlockingIOError:
            return []

    def close(self) -> None:
        for fd in (*self.reading.values(), *self.writing.values()):
            os.close(fd)
        self.tags.page.close()


def fill(fd: int) -> int:
    """Write until nothing more goes in; return how much that was."""
    written = 0
    with suppress(BlockingIOError):
        while True:
            written += os.write(fd, bytes(4096))
    return written


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    made = Pipes()
    yield made
    made.close()


def test_output_belongs_to_the_input_that_runs(pipes: Pipes) -> None:
    pipes.tagger.change("a")
    os.write(pipes.writing[1], b"one")
    assert pipes.read() == [(b"one", "a")]


def test_output_that_is_read_late_still_belongs_to_its_input(pipes: Pipes) -> None:
    pipes.tagger.change("a")
    os.write(pipes.writing[1], b"one")
    pipes.tagger.change("b")
    os.write(pipes.writing[1], b"two")
    pipes.tagger.change("")
    os.write(pipes.writing[1], b"three")
    assert pipes.read() == [(b"one", "a"), (b"two", "b"), (b"three", "")]


def test_an_input_that_writes_nothing_leaves_no_marker(pipes: Pipes) -> None:
    for number in range(1000):
        pipes.tagger.change(str(number))
    assert pipes.read(1) == []
    assert pipes.read(2) == []


def test_the_streams_are_tagged_apart(pipes: Pipes) -> None:
    pipes.tagger.change("a")
    os.write(pipes.writing[2], b"error")
    pipes.tagger.change("b")
    os.write(pipes.writing[1], b"output")
    assert pipes.read(1) == [(b"output", "b")]
    assert pipes.read(2) == [(b"error", "a")]


def test_the_end_of_a_pipe_is_told(pipes: Pipes) -> None:
    os.close(pipes.writing[1])
    assert pipes.read() is None
    pipes.writing.pop(1)


def test_what_looks_like_the_beginning_of_a_marker_is_not_kept_back(pipes: Pipes) -> None:
    pipes.tagger.change("a")
    os.write(pipes.writing[1], bytes(10))
    assert pipes.read(size=10) == [(bytes(10), "a")]


def test_a_full_pipe_that_does_not_block_still_gets_its_marker(
    pipes: Pipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tags, "_PATIENCE", 60_000)  # of a process that may be held up itself
    pipes.tagger.change("a")
    os.set_blocking(pipes.writing[1], False)
    written = fill(pipes.writing[1])
    changing = threading.Thread(target=pipes.tagger.change, args=("b",))
    changing.start()
    found: list[tuple[bytes, str]] = []
    while sum(len(data) for data, _ in found) < written or changing.is_alive():
        found += pipes.read() or []
    changing.join()
    assert {input_id for _, input_id in found} == {"a"}


@given(st.lists(st.tuples(st.sampled_from("ab\0"), st.integers(0, 300)), max_size=30), st.integers(40, 200))
def test_markers_are_found_wherever_a_read_tears_them(writes: list[tuple[str, int]], size: int) -> None:
    pipes = Pipes()
    expected: dict[str, bytes] = {}
    for number, (character, count) in enumerate(writes):
        pipes.tagger.change(str(number))
        os.write(pipes.writing[1], character.encode() * count)
        expected[str(number)] = character.encode() * count
    pipes.tagger.change("")
    found: dict[str, bytes] = {}
    while select.select([pipes.reading[1]], [], [], 0)[0]:
        for data, input_id in pipes.read(size=size) or []:
            found[input_id] = found.get(input_id, b"") + data
    assert pipes.splitters[1].rest() == []
    assert found == {number: data for number, data in expected.items() if data}
    pipes.close()


def forked(work: Callable[[], None]) -> int:
    """Have a copy of this process do some work, and nothing else whatever comes of it; return its id."""
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def test_a_reader_that_races_with_the_inputs_never_mistakes_one_for_another(pipes: Pipes) -> None:
    """Reader and writer run in two processes, so that they meet in every order."""
    inputs = 20_000

    def write() -> None:
        choose = random.Random(1)
        for number in range(inputs):
            pipes.tagger.change(str(number))
            if choose.random() < 0.7:
                os.write(pipes.writing[1], b"%d," % number)
        pipes.tagger.change("end")

    writer = forked(write)
    os.close(pipes.writing.pop(1))
    os.set_blocking(pipes.reading[1], True)
    found = []
    while (parts := pipes.read()) is not None:
        found += parts
    assert os.waitpid(writer, 0)[1] == 0
    assert [(data, input_id) for data, input_id in found if data != f"{input_id},".encode()] == []
    assert len(found) > inputs / 2


def test_the_page_is_never_seen_half_written(pipes: Pipes) -> None:
    def write() -> None:
        for number in itertools.count(1):
            pipes.tagger._markers[1] = number
            pipes.tagger.change(str(number))

    writer = forked(write)
    try:
        for _ in range(100_000):
            input_id, markers = pipes.splitters[1]._look()
            assert input_id == (str(markers) if markers else "")
    finally:
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
