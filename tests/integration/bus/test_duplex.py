"""Duplex streams on both buses: what passes, what breaks them, and what that looks like at both ends."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from bus_connections import Connect
from waiting import until

from tidemill import _duplex, exception
from tidemill._bus.protocol import Message
from tidemill._duplex import Duplex, HalfEnded, couple, join, on_bus
from tidemill._wire import coding, ids, subjects
from tidemill._wire.duplex import OPENING, OVERHEAD, PIECE, Kind
from tidemill_common.bus.memory import MemoryBus, MemoryServer
from tidemill_common.bus.protocol import ServiceBus

LIMIT = 60.0  # seconds for anything to happen


class Stage:
    """Streams, each end on a connection of its own."""

    def __init__(self, new_bus: Connect) -> None:
        self.connect = new_bus
        self.stream = ids.new(ids.STREAM)
        self._exits = AsyncExitStack()

    async def end(self, *, opener: bool) -> tuple[Duplex, ServiceBus]:
        bus = await self.connect()
        return await self._exits.enter_async_context(on_bus(bus, "main", self.stream, is_client=opener)), bus

    async def both(self) -> tuple[Duplex, Duplex]:
        """Return both ends of a stream that has begun."""
        (one, self.one_bus), (other, self.other_bus) = (
            await self.end(opener=True),
            await self.end(opener=False),
        )
        one.open()
        other.open()
        return one, other

    async def alone(self) -> "tuple[Duplex, Played]":
        """Return one end; the test plays the other."""
        one, _ = await self.end(opener=True)
        played = Played(await self.connect(), self.stream)
        await played.open()
        one.open()
        return one, played

    async def close(self) -> None:
        await self._exits.aclose()


class Played:
    """The other end of a stream, frame by frame."""

    def __init__(self, bus: ServiceBus, stream: str) -> None:
        self._bus = bus
        self._stream = stream
        self.heard: list[list[Any]] = []
        self._bell = asyncio.Event()

    async def open(self) -> None:
        await self._bus.subscribe(subjects.stream("main", self._stream, down=False), self._on_message)

    def _on_message(self, message: Message) -> None:
        self.heard.append(coding.decode(list[Any], message.data))
        self._bell.set()

    def say(self, *frame: Any) -> None:
        self._bus.publish(subjects.stream("main", self._stream, down=True), coding.encode(frame))

    async def until(self, kind: Kind, count: int = 1) -> list[list[Any]]:
        """Return the frames of a kind when there are so many."""
        async with asyncio.timeout(LIMIT):
            while len(found := [frame for frame in self.heard if frame[0] == kind]) < count:
                self._bell.clear()
                await self._bell.wait()
        return found


@pytest.fixture
async def stage(new_bus: Connect) -> AsyncIterator[Stage]:
    stage = Stage(new_bus)
    yield stage
    await stage.close()


async def whole(end: Duplex) -> bytes:
    """Return everything that comes to an end."""
    async with asyncio.timeout(LIMIT):
        return b"".join([data async for _, data in end])


async def test_what_is_sent_both_ways_at_once_arrives_whole_and_in_order(stage: Stage) -> None:
    one, other = await stage.both()
    there, back = random.Random(1).randbytes(3_000_000), random.Random(2).randbytes(2_000_001)

    async def send(end: Duplex, data: bytes) -> None:
        for start in range(0, len(data), 250_000):
            await end.send(data[start : start + 250_000])
        end.end()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(send(one, there))
        tasks.create_task(send(other, back))
        received = [tasks.create_task(whole(end)) for end in (one, other)]
    assert [task.result() for task in received] == [back, there]
    async with asyncio.timeout(LIMIT):
        await one.wait_over()
        await other.wait_over()
    assert one.error is other.error is None


async def test_no_piece_is_larger_than_it_may_be_and_tags_are_kept(stage: Stage) -> None:
    one, other = await stage.both()
    await one.send(bytes(PIECE + 1), tag=2)
    sizes = [await other.receive(), await other.receive()]
    assert [(piece.tag, len(piece.data)) for piece in sizes if piece] == [(2, PIECE), (2, 1)]


async def test_each_half_ends_by_itself_with_a_last_word(stage: Stage) -> None:
    one, other = await stage.both()
    one.end("that is all")
    assert await whole(other) == b""
    assert other.word == "that is all"
    await other.send(b"but here is more")
    other.end(7)
    assert await whole(one) == b"but here is more"
    assert one.word == 7


async def test_control_frames_pass_after_the_end_of_a_half(stage: Stage) -> None:
    one, other = await stage.both()
    heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    other.on_control = lambda name, _: heard.set_result(name)
    one.end()
    one.control("signal", 2)
    async with asyncio.timeout(LIMIT):
        assert await heard == "signal"
        assert await other.receive() is None


async def test_after_its_end_a_half_takes_nothing(stage: Stage) -> None:
    one, _ = await stage.both()
    one.end()
    with pytest.raises(HalfEnded):
        await one.send(b"more")


async def test_a_reader_that_does_not_read_stops_its_sender(stage: Stage) -> None:
    one, played = await stage.alone()
    sending = asyncio.create_task(one.send(bytes(1 << 20)))
    await played.until(Kind.PIECE)
    played.say(Kind.CREDIT, 300_000, 0)
    pieces = await played.until(Kind.PIECE, 3)
    played.say(Kind.CONTROL, 0, "look", None)  # behind it nothing more has come
    looked = asyncio.get_running_loop().create_future()
    one.on_control = lambda *_: looked.set_result(None)
    async with asyncio.timeout(LIMIT):
        await looked
    assert not sending.done()
    assert len(pieces) == len([frame for frame in played.heard if frame[0] == Kind.PIECE])
    played.say(Kind.CREDIT, 1 << 24, 1)
    async with asyncio.timeout(LIMIT):
        await sending


async def test_what_lies_between_is_bounded_however_much_is_sent(stage: Stage) -> None:
    one, other = await stage.both()
    sending = asyncio.create_task(one.send(bytes(64 << 20)))
    received = held = 0
    async with asyncio.timeout(LIMIT):
        while received < 64 << 20:
            piece = await other.receive()
            assert piece is not None
            received += len(piece.data)
            held = max(held, sum(each.cost for each in other._waiting))
        await sending
    assert held <= _duplex.WINDOW + PIECE + OVERHEAD


async def test_a_control_frame_overtakes_pieces_that_wait(stage: Stage) -> None:
    one, other = await stage.both()
    heard: asyncio.Future[tuple[str, Any]] = asyncio.get_running_loop().create_future()
    other.on_control = lambda name, value: heard.set_result((name, value))
    await one.send(b"waits")
    one.control("resize", [24, 80])
    async with asyncio.timeout(LIMIT):
        assert await heard == ("resize", [24, 80])
        assert await other.receive() == (0, b"waits")


# --- what is lost, doubled, or comes in another order


async def test_a_lost_piece_ends_the_stream_at_both_ends(stage: Stage) -> None:
    one, played = await stage.alone()
    played.say(Kind.PIECE, 0, 0, b"first")
    played.say(Kind.PIECE, 2, 0, b"third")
    assert await one.receive() == (0, b"first")
    with pytest.raises(exception.DataLossError, match="frame 1"):
        await one.receive()
    assert (await played.until(Kind.ABORT))[0][1] == "data_loss"
    with pytest.raises(exception.DataLossError):
        await one.send(b"more")


async def test_a_lost_end_is_noticed_by_the_next_sign_of_life(stage: Stage) -> None:
    one, played = await stage.alone()
    played.say(Kind.PIECE, 0, 0, b"all")
    played.say(Kind.CREDIT, OPENING, 2)
    assert await one.receive() == (0, b"all")
    with pytest.raises(exception.DataLossError):
        await one.receive()


async def test_a_doubled_piece_is_received_once(stage: Stage) -> None:
    one, played = await stage.alone()
    for _ in range(2):
        played.say(Kind.PIECE, 0, 0, b"once")
    played.say(Kind.END, 1, None)
    played.say(Kind.END, 1, None)
    assert await whole(one) == b"once"


async def test_pieces_in_another_order_never_look_right(stage: Stage) -> None:
    one, played = await stage.alone()
    played.say(Kind.PIECE, 1, 0, b"second")
    played.say(Kind.PIECE, 0, 0, b"first")
    with pytest.raises(exception.DataLossError):
        await whole(one)


@pytest.mark.parametrize(
    "frame", [(9, 0), (Kind.PIECE,), (Kind.PIECE, "x", 0, b""), (Kind.PIECE, 0, 0, 7), (Kind.CREDIT, "x", 0)]
)
async def test_a_frame_without_sense_ends_the_stream(stage: Stage, frame: tuple[Any, ...]) -> None:
    one, played = await stage.alone()
    played.say(*frame)
    with pytest.raises(exception.DataLossError):
        await whole(one)


async def test_who_goes_beyond_the_credit_is_cut_off(stage: Stage) -> None:
    one, played = await stage.alone()
    for number in range(20):
        played.say(Kind.PIECE, number, 0, bytes(PIECE))
    await played.until(Kind.ABORT)
    with pytest.raises(exception.DataLossError, match="credit"):
        await whole(one)


# --- somebody dies, or does nothing


async def test_who_leaves_without_an_end_leaves_an_error(stage: Stage) -> None:
    one, other = await stage.both()
    await one.send(b"half of it")
    one.close()
    assert await other.receive() == (0, b"half of it")
    with pytest.raises(exception.ServiceError, match="left"):
        await other.receive()


async def test_an_error_at_one_end_is_told_at_the_other(stage: Stage) -> None:
    one, other = await stage.both()
    one.abort(exception.ResourceExhaustedError("too much"))
    with pytest.raises(exception.ResourceExhaustedError, match="too much"):
        await other.receive()


SILENCE = 0.3  # seconds


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let signs of life come quickly."""
    monkeypatch.setattr(Duplex.__init__, "__kwdefaults__", {**Duplex.__init__.__kwdefaults__, "beat": 0.1})


@pytest.mark.usefixtures("hurried")
async def test_silence_of_the_other_side_ends_the_stream(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await stage.both()
    await one.send(b"the last words")
    await stage.one_bus.close()  # as the death of its process does
    assert await other.receive() == (0, b"the last words")
    monkeypatch.setattr(_duplex, "SILENCE", SILENCE)
    with pytest.raises(exception.TimeoutError, match="silent"):
        await other.receive()


@pytest.mark.usefixtures("hurried")
async def test_a_stream_on_which_nobody_says_anything_goes_on(
    memory_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without a server: a busy machine can stop that for longer than the silence that is borne here.
    monkeypatch.setattr(_duplex, "SILENCE", SILENCE)
    one, played = await memory_stage.alone()
    for _ in range(8):  # 0.8 s by the signs of life, more than the silence that is borne
        signs = len(played.heard)
        async with asyncio.timeout(LIMIT):
            while len(played.heard) == signs:
                played._bell.clear()
                await played._bell.wait()
        played.say(Kind.CREDIT, OPENING, 0)
    assert one.error is None


async def test_a_sender_without_credit_gives_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_duplex, "PATIENCE", 0.05)
    one, played = await stage.alone()
    with pytest.raises(exception.TimeoutError, match="nobody has read"):
        await one.send(bytes(1 << 20))
    assert (await played.until(Kind.ABORT))[0][1] == "timeout"


@pytest.fixture
async def memory_stage() -> AsyncIterator[Stage]:
    """Streams on the bus in memory, whose connections can be taken away."""
    server = MemoryServer()

    async def connect() -> ServiceBus:
        return server.connect()

    stage = Stage(connect)
    yield stage
    await stage.close()


async def test_without_a_connection_a_sender_fails_at_once(memory_stage: Stage) -> None:
    one, _ = await memory_stage.both()
    assert isinstance(memory_stage.one_bus, MemoryBus)
    memory_stage.one_bus.disconnect()
    with pytest.raises(exception.ConnectionError):
        await one.send(b"nowhere")


async def test_what_got_lost_with_a_connection_is_noticed_after_it(memory_stage: Stage) -> None:
    one, other = await memory_stage.both()
    assert isinstance(memory_stage.one_bus, MemoryBus)
    assert isinstance(memory_stage.other_bus, MemoryBus)
    listening = {
        key: each for key, each in _subscriptions(memory_stage.other_bus).items() if "streams" in each.subject
    }
    for key in listening:
        _subscriptions(memory_stage.other_bus).pop(key)
    await one.send(b"lost on the way")
    _subscriptions(memory_stage.other_bus).update(listening)
    memory_stage.one_bus.reconnect()
    with pytest.raises(exception.DataLossError):
        await other.receive()


def _subscriptions(bus: MemoryBus) -> dict[Any, Any]:
    server: MemoryServer = bus._server
    return server.subscriptions


# --- two streams, one after the other


async def relayed(stage: Stage) -> tuple[Duplex, Duplex, "asyncio.Task[None]"]:
    """Return the outer ends of two streams that are joined in the middle."""
    further = Stage(stage.connect)
    here, middle = await stage.both()
    middle_too, there = await further.both()
    stage._exits.push_async_callback(further.close)
    return here, there, asyncio.create_task(join(middle, middle_too))


async def test_a_joined_stream_passes_everything_on(stage: Stage) -> None:
    here, there, joined = await relayed(stage)
    heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    there.on_control = lambda name, _: heard.set_result(name)
    here.control("signal", 2)
    data = random.Random(3).randbytes(5_000_000)
    sending = asyncio.create_task(here.send(data, 5))
    received = b""
    async with asyncio.timeout(LIMIT):
        while len(received) < len(data):
            piece = await there.receive()
            assert piece is not None
            assert piece.tag == 5
            received += piece.data
        assert received == data
        assert await heard == "signal"
        await sending
        here.end("bye")
        assert await there.receive() is None
        there.end(3)
        assert await here.receive() is None
        assert (there.word, here.word) == ("bye", 3)
        await joined


@pytest.mark.parametrize("first", [0, 1])
async def test_what_breaks_one_of_two_joined_streams_breaks_the_other(stage: Stage, first: int) -> None:
    *ends, joined = await relayed(stage)
    ends[first].abort(exception.ResourceExhaustedError("no more"))
    with pytest.raises(exception.ResourceExhaustedError, match="no more"):
        await ends[1 - first].receive()
    async with asyncio.timeout(LIMIT):
        await joined


async def test_a_slow_reader_behind_a_join_stops_the_sender_in_front_of_it(stage: Stage) -> None:
    here, there, joined = await relayed(stage)
    sending = asyncio.create_task(here.send(bytes(16 << 20)))
    await until(lambda: not here._out.is_open and there._in.received >= there._in.limit, LIMIT)
    assert not sending.done()
    assert here._out.used <= 3 * (_duplex.WINDOW + PIECE)
    here.close()
    with pytest.raises(exception.ServiceError):
        await sending
    await joined


async def test_what_arrives_in_one_turn_is_passed_on_in_its_order_whatever_has_to_wait() -> None:
    """Two ends without a carrier in between: pieces that need no credit overtake none that do."""
    sent: list[Any] = []
    source = Duplex(lambda _: None, window=16 << 20, beat=0)
    sink = Duplex(sent.append, piece=PIECE, beat=0)
    source.open()
    couple(source, sink)
    chance, numbers, expected = random.Random(7), itertools.count(), b""
    credit = OPENING

    async def feed(turns: int) -> None:
        nonlocal expected
        for _ in range(turns):
            for _ in range(chance.randrange(4)):
                data = chance.randbytes(chance.choice((1, 1_000, PIECE + 1)))
                source.feed((Kind.PIECE, next(numbers), 0, data))
                expected += data
            await asyncio.sleep(0)

    await feed(3)
    joined = asyncio.create_task(join(source, sink))
    for _ in range(100):
        await feed(2)
        credit += chance.choice((0, 2_000, 200_000))
        sink.feed((Kind.CREDIT, credit, 0))
    sink.feed((Kind.CREDIT, 1 << 30, 0))
    source.feed((Kind.END, next(numbers), "bye"))
    sink.feed((Kind.END, 0, None))
    async with asyncio.timeout(LIMIT):
        while sent[-1][0] != Kind.END:
            await asyncio.sleep(0)
            sink.feed((Kind.CREDIT, sink._out.used + (1 << 20), 0))
        await joined
    pieces = [frame for frame in sent if frame[0] == Kind.PIECE]
    assert b"".join(frame[3] for frame in pieces) == expected
    assert max(len(frame[3]) for frame in pieces) <= PIECE
    assert source._in.taken == len(expected) + OVERHEAD * (next(numbers) - 1)


async def test_pieces_that_wait_are_gathered_where_their_ends_mean_nothing() -> None:
    sent: list[Any] = []
    reader = Duplex(sent.append, window=4_096, beat=0)
    for number, (tag, data) in enumerate([(0, b"ab"), (0, b"cd"), (0, b"ef"), (1, b"gh"), (0, b"ij")]):
        reader.feed((Kind.PIECE, number, tag, data))
    gathered = []
    reader.feed((Kind.END, 5, None))
    while (content := await reader.gather(4)) is not None:
        gathered.append(tuple(content))
    assert gathered == [(0, b"abcd"), (0, b"ef"), (1, b"gh"), (0, b"ij")]
    assert reader._in.taken == 5 * (2 + OVERHEAD)
