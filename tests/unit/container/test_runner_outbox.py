"""What is added comes out in order, in few frames, and soon."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from waiting import PATIENCE

from tidemill._container import sockets
from tidemill._container.frames import FromRunner
from tidemill._container.outbox import LIMIT, Outbox


class Ends:
    """An outbox and the other end of its socket."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair()
        self.ours.settimeout(PATIENCE)
        self.outbox = Outbox(theirs)
        self._theirs = theirs
        self._frames = sockets.read(self.ours)

    def next(self) -> list[Any]:
        return next(self._frames)

    def is_silent(self) -> bool:
        self.ours.setblocking(False)
        try:
            self.ours.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        finally:
            self.ours.settimeout(PATIENCE)
        return False

    def just_sent(self) -> None:
        """Have the outbox hold back: it has just sent something."""
        self.outbox.frame(FromRunner.READY, {})
        self.next()

    def close(self) -> None:
        self.ours.close()
        self._theirs.close()


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    monkeypatch.setattr("tidemill._container.outbox.AGE", 1000.0)  # no test depends on how fast it runs
    made = Ends()
    yield made
    made.close()


def test_the_last_result_of_a_chunk_is_sent_at_once(ends: Ends) -> None:
    ends.outbox.output(7, 0, 0, (1, b"x"), seconds=0.5, last=True)
    assert ends.next() == [FromRunner.OUTPUTS, 7, [[0, 0, 1, b"x"]], 0.5, -1]


def test_results_of_a_chunk_share_a_frame(ends: Ends) -> None:
    ends.just_sent()
    ends.outbox.running = (7, 2)
    ends.outbox.output(7, 0, 0, (1, b"x"), seconds=0.25, last=False)
    ends.outbox.output(7, 1, 0, (1, b"y"), seconds=0.25, last=False)
    assert ends.is_silent()
    ends.outbox.flush()
    assert ends.next() == [FromRunner.OUTPUTS, 7, [[0, 0, 1, b"x"], [1, 0, 1, b"y"]], 0.5, 2]


def test_a_result_after_a_pause_is_sent_at_once(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidemill._container.outbox.AGE", 0.0)
    ends.outbox.output(7, 0, 0, (1, b"x"), last=False)
    assert ends.next()[1] == 7


def test_what_is_held_back_is_sent_soon_by_the_other_thread(ends: Ends) -> None:
    threading.Thread(target=ends.outbox.tick, daemon=True).start()
    ends.just_sent()
    for number in range(3):
        ends.outbox.output(7, number, 0, (1, b"x"), last=False)
        assert ends.next()[2][0][0] == number


def test_much_is_sent_without_waiting(ends: Ends) -> None:
    ends.just_sent()
    ends.outbox.output(7, 0, 0, (1, bytes(LIMIT + 1)), last=False)
    assert len(ends.next()[2][0][3]) == LIMIT + 1


def test_everything_keeps_its_order(ends: Ends) -> None:
    ends.just_sent()
    ends.outbox.log(1, "a", "in-0")
    ends.outbox.log(1, "b\n", "in-0")
    ends.outbox.log(2, "error\n", "in-0")
    ends.outbox.piece(7, 0, 0, (1, b"p"))
    ends.outbox.piece(7, 0, 1, (1, b"q"))
    ends.outbox.output(7, 0, 5, (1, b"\x02"))
    frames = [ends.next() for _ in range(4)]
    assert [frame[0] for frame in frames] == [
        FromRunner.LOG,
        FromRunner.LOG,
        FromRunner.PIECES,
        FromRunner.OUTPUTS,
    ]
    assert frames[0][1:3] == [1, "ab\n"]
    assert frames[2][1:] == [7, 0, 0, [[1, b"p"], [1, b"q"]]]


def test_text_of_two_inputs_stays_apart(ends: Ends) -> None:
    ends.just_sent()
    ends.outbox.log(1, "a", "in-0")
    ends.outbox.log(1, "b", "in-1")
    ends.outbox.flush()
    assert [ends.next()[4] for _ in range(2)] == ["in-0", "in-1"]


def test_large_frames_come_through_whole(ends: Ends) -> None:
    data = bytes(3_000_000)
    sender = threading.Thread(target=ends.outbox.output, args=(7, 0, 0, (1, data)))
    sender.start()
    assert ends.next()[2][0][3] == data
    sender.join()


def test_a_thread_that_may_not_wait_leaves_its_frame_to_the_one_that_sends(ends: Ends) -> None:
    data = bytes(5_000_000)  # more than the socket holds: the sender waits until we read
    sender = threading.Thread(target=ends.outbox.output, args=(7, 0, 0, (1, data)))
    sender.start()
    while not ends.outbox._sending.locked():
        pass
    ends.outbox.frame(FromRunner.RETURNED, 8, [1], wait=False)
    assert ends.next()[1] == 7
    assert ends.next() == [FromRunner.RETURNED, 8, [1]]
    sender.join()


def test_who_waited_while_another_thread_sent_everything_sends_nothing(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Waited:
        """The lock of who sends: while it was waited for, all that there was has been taken."""

        def acquire(self, *, blocking: bool) -> bool:
            assert ends.outbox._take()
            return blocking

        def release(self) -> None: ...

    sent: list[list[bytes]] = []
    monkeypatch.setattr(ends.outbox, "_send", sent.append)  # it ends the process where the socket is closed
    monkeypatch.setattr(ends.outbox, "_sending", Waited())
    ends.outbox.frame(FromRunner.READY, {})
    assert sent == []


def test_frames_of_many_threads_are_never_mixed(ends: Ends) -> None:
    def send(number: int) -> None:
        for i in range(200):
            ends.outbox.frame(FromRunner.ASK, number, str(i), bytes(number * 100))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    seen: dict[int, list[int]] = {}
    for _ in range(1000):
        _, number, text, _data = ends.next()
        seen.setdefault(number, []).append(int(text))
    for thread in threads:
        thread.join()
    assert seen == {number: list(range(200)) for number in range(5)}
