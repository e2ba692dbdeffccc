"""What every bus does for callers: on NATS and without a server."""

import asyncio

import pytest
from bus_connections import Connect
from waiting import until

from tidemill._bus.protocol import (
    AlreadyHeld,
    BusError,
    Message,
    NoResponder,
    RequestFailed,
    RequestTimeout,
    StreamFull,
    TooLarge,
    WrongSequence,
)
from tidemill_common.bus.protocol import ServiceBus, StreamSpec


async def received(inbox: "asyncio.Queue[Message]") -> Message:
    async with asyncio.timeout(60):
        return await inbox.get()


async def test_a_message_reaches_a_subscriber_whole(bus: ServiceBus, name: str) -> None:
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    await bus.subscribe(f"{name}.*.c", inbox.put_nowait)
    bus.publish(f"{name}.b.c", b"data", reply="answer.here", headers={"One": "1", "Two": "second"})
    message = await received(inbox)
    assert (message.subject, message.data, message.reply) == (f"{name}.b.c", b"data", "answer.here")
    assert dict(message.headers) == {"One": "1", "Two": "second"}


async def test_messages_arrive_in_order(bus: ServiceBus, name: str) -> None:
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    await bus.subscribe(f"{name}.>", inbox.put_nowait)
    sizes = [0, 1, 100, 70_000, 3, 300_000, 5]
    for number, size in enumerate(sizes):
        bus.publish(f"{name}.{number}", b"x" * size)
    arrived = [await received(inbox) for _ in sizes]
    assert [(m.subject, len(m.data)) for m in arrived] == [(f"{name}.{n}", s) for n, s in enumerate(sizes)]


async def test_a_drained_subscription_still_gets_what_was_on_its_way(bus: ServiceBus, name: str) -> None:
    taken: list[Message] = []
    subscription = await bus.subscribe(name, taken.append)
    for number in range(100):
        bus.publish(name, b"%d" % number)
    await subscription.drain()
    assert [message.data for message in taken] == [b"%d" % number for number in range(100)]
    bus.publish(name, b"late")
    await bus.flush()
    assert len(taken) == 100


async def test_a_closed_subscription_gets_nothing(bus: ServiceBus, name: str) -> None:
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    subscription = await bus.subscribe(name, inbox.put_nowait)
    bus.publish(name, b"before")
    assert (await received(inbox)).data == b"before"
    await subscription.close()
    bus.publish(name, b"after")
    await bus.flush()
    await asyncio.sleep(0)
    assert inbox.empty()


async def test_a_queue_group_shares_the_messages(new_bus: Connect, name: str) -> None:
    counts = [0, 0]
    done = asyncio.Event()

    def count(member: int) -> None:
        counts[member] += 1
        if sum(counts) == 200:
            done.set()

    await (await new_bus()).subscribe(name, lambda _: count(0), queue="workers")
    await (await new_bus()).subscribe(name, lambda _: count(1), queue="workers")
    publisher = await new_bus()
    for _ in range(200):
        publisher.publish(name, b"")
    async with asyncio.timeout(60):
        await done.wait()
    assert min(counts) > 0


async def test_a_failing_callback_does_not_stop_the_others(bus: ServiceBus, name: str) -> None:
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))

    def fail(message: Message) -> None:
        raise ValueError(message.data)

    await bus.subscribe(name, fail)
    await bus.subscribe(name, inbox.put_nowait)
    bus.publish(name, b"first")
    bus.publish(name, b"second")
    assert [(await received(inbox)).data for _ in range(2)] == [b"first", b"second"]
    await until(lambda: len(failures) >= 2)  # who hears of a message first is not said
    assert len(failures) == 2


async def test_a_subject_cannot_smuggle_in_a_command(bus: ServiceBus, name: str) -> None:
    for subject in ("", "a b", "a\r\nPUB b 0", "a\tb"):
        with pytest.raises(ValueError, match="not a subject"):
            bus.publish(subject, b"")
        with pytest.raises(ValueError, match="not a subject"):
            bus.store(subject, b"")


# --- requests


async def test_a_request_is_answered(new_bus: Connect, name: str) -> None:
    service, caller = await new_bus(), await new_bus()

    async def double(request: Message) -> bytes:
        return request.data * 2

    await service.serve("doubler", "1.0.0", {name: double})
    answers = await asyncio.gather(*(caller.request(name, b"%d" % n, timeout=60) for n in range(50)))
    assert answers == [b"%d" % n * 2 for n in range(50)]


async def test_a_request_that_nobody_serves_fails_at_once(bus: ServiceBus, name: str) -> None:
    with pytest.raises(NoResponder):
        await bus.request(name, b"", timeout=60)


async def test_a_request_without_an_answer_times_out(bus: ServiceBus, name: str) -> None:
    await bus.subscribe(name, lambda _: None)
    with pytest.raises(RequestTimeout):
        await bus.request(name, b"", timeout=0.05)


async def test_a_refusal_arrives_with_code_message_and_hint(new_bus: Connect, name: str) -> None:
    async def refuse(request: Message) -> bytes:
        raise RequestFailed("not_found", "no app\nof that name", "run: tidemill app list")

    await (await new_bus()).serve("refuser", "1.0.0", {name: refuse})
    with pytest.raises(RequestFailed) as caught:
        await (await new_bus()).request(name, b"", timeout=60)
    error = caught.value
    assert (error.code, error.message, error.hint) == (
        "not_found",
        "no app\nof that name",
        "run: tidemill app list",
    )


async def test_an_endpoint_that_breaks_answers_an_internal_error(new_bus: Connect, name: str) -> None:
    async def fail(request: Message) -> bytes:
        raise KeyError("secret detail")

    await (await new_bus()).serve("broken", "1.0.0", {name: fail})
    with pytest.raises(RequestFailed) as caught:
        await (await new_bus()).request(name, b"", timeout=60)
    assert caught.value.code == "internal"
    assert "secret" not in caught.value.message


# --- storing


async def held(bus: ServiceBus, name: str, **options: object) -> StreamSpec:
    """Make a stream for `<name>.>`."""
    spec = StreamSpec(name, (f"{name}.>",), **options)  # type: ignore[arg-type]
    await bus.ensure_stream(spec)
    return spec


async def test_a_store_is_acknowledged_with_its_sequence(bus: ServiceBus, name: str) -> None:
    await held(bus, name)
    acks = await asyncio.gather(*(bus.store(f"{name}.{n}", b"x") for n in range(100)))
    assert [ack.sequence for ack in acks] == list(range(1, 101))
    assert {ack.stream for ack in acks} == {name}
    assert not any(ack.duplicate for ack in acks)


async def test_the_same_id_is_stored_once(bus: ServiceBus, name: str) -> None:
    await held(bus, name)
    first = await bus.store(f"{name}.a", b"x", msg_id="id-1")
    second = await bus.store(f"{name}.a", b"x", msg_id="id-1")
    assert (second.sequence, second.duplicate) == (first.sequence, True)
    assert len([m async for m in bus.read(name, f"{name}.>")]) == 1


async def test_a_held_subject_refuses_another_message(bus: ServiceBus, name: str) -> None:
    await held(bus, name, discard="new", max_msgs_per_subject=1, discard_new_per_subject=True)
    await bus.store(f"{name}.a", b"first", msg_id="1")
    with pytest.raises(AlreadyHeld):
        await bus.store(f"{name}.a", b"second", msg_id="2")
    await bus.store(f"{name}.b", b"other subject", msg_id="3")
    assert (await bus.last(name, f"{name}.a")).data == b"first"  # type: ignore[union-attr]


async def test_a_refused_id_can_be_used_again(bus: ServiceBus, name: str) -> None:
    await held(bus, name, discard="new", max_msgs_per_subject=1, discard_new_per_subject=True)
    await bus.store(f"{name}.a", b"first", msg_id="1")
    with pytest.raises(AlreadyHeld):
        await bus.store(f"{name}.a", b"second", msg_id="2")
    await bus.purge(name, f"{name}.a")
    assert not (await bus.store(f"{name}.a", b"second", msg_id="2")).duplicate


async def test_a_full_stream_refuses_more(bus: ServiceBus, name: str) -> None:
    await held(bus, name, discard="new", max_bytes=20_000)
    stores = (bus.store(f"{name}.{number}", b"x" * 1_000) for number in range(30))
    outcomes = await asyncio.gather(*stores, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, StreamFull)]
    assert 10 < len(refused) < 20


async def test_a_full_stream_that_discards_old_takes_more(bus: ServiceBus, name: str) -> None:
    await held(bus, name, max_bytes=20_000)
    for number in range(30):
        await bus.store(f"{name}.{number}", b"x" * 1_000)
    left = [m.subject async for m in bus.read(name, f"{name}.>")]
    assert left[-1] == f"{name}.29"
    assert 10 < len(left) < 20


async def test_a_store_that_expects_another_sequence_is_refused(bus: ServiceBus, name: str) -> None:
    await held(bus, name)
    header = "Nats-Expected-Last-Subject-Sequence"
    first = await bus.store(f"{name}.a", b"1", headers={header: "0"})
    with pytest.raises(WrongSequence):
        await bus.store(f"{name}.a", b"2", headers={header: "0"})
    await bus.store(f"{name}.a", b"2", headers={header: str(first.sequence)})


async def test_a_message_above_the_limit_is_refused(bus: ServiceBus, name: str) -> None:
    await held(bus, name)
    with pytest.raises(TooLarge):
        await bus.store(f"{name}.a", bytes(bus.max_payload + 1))
    with pytest.raises(TooLarge):
        bus.publish(f"{name}.a", bytes(bus.max_payload + 1))
    await bus.store(f"{name}.a", bytes(bus.max_payload))


async def test_a_subscriber_sees_even_what_the_stream_refuses(bus: ServiceBus, name: str) -> None:
    await held(bus, name, discard="new", max_msgs_per_subject=1, discard_new_per_subject=True)
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    await bus.subscribe(f"{name}.>", inbox.put_nowait)
    await bus.store(f"{name}.a", b"winner")
    with pytest.raises(AlreadyHeld):
        await bus.store(f"{name}.a", b"loser")
    assert [(await received(inbox)).data for _ in range(2)] == [b"winner", b"loser"]
    assert (await bus.last(name, f"{name}.a")).data == b"winner"  # type: ignore[union-attr]


# --- reading


async def test_the_last_message_is_found(bus: ServiceBus, name: str) -> None:
    await held(bus, name)
    for number in range(3):
        await bus.store(f"{name}.a", b"%d" % number, headers={"Kind": "test"})
    stored = await bus.last(name, f"{name}.a")
    assert stored is not None
    assert (stored.subject, stored.data, stored.sequence) == (f"{name}.a", b"2", 3)
    assert stored.headers["Kind"] == "test"
    assert await bus.last(name, f"{name}.b") is None


async def test_asking_a_stream_that_is_not_there_is_an_error(bus: ServiceBus, name: str) -> None:
    with pytest.raises(BusError):
        await bus.last(name, name)
    with pytest.raises(BusError):
        _ = [m async for m in bus.read(name, name)]


async def test_reading_yields_everything_in_order(bus: ServiceBus, name: str) -> None:
    await held(bus, name)
    await asyncio.gather(*(bus.store(f"{name}.{n % 2}", b"%d" % n) for n in range(2_500)))
    assert [int(m.data) async for m in bus.read(name, f"{name}.*")] == list(range(2_500))
    assert [int(m.data) async for m in bus.read(name, f"{name}.1")] == list(range(1, 2_500, 2))
    assert [int(m.data) async for m in bus.read(name, f"{name}.*", sequence=2_499)] == [2_498, 2_499]
    assert [m async for m in bus.read(name, f"{name}.none")] == []


async def test_large_messages_are_read_in_several_batches(bus: ServiceBus, name: str) -> None:
    await held(bus, name)
    for number in range(20):
        await bus.store(f"{name}.a", bytes([number]) * 1_000_000)
    assert [m.data[0] async for m in bus.read(name, f"{name}.a")] == list(range(20))


async def test_reading_begins_at_a_time(bus: ServiceBus, name: str) -> None:
    await held(bus, name)
    await bus.store(f"{name}.a", b"early")
    await bus.store(f"{name}.a", b"late")
    late = await bus.last(name, f"{name}.a")
    assert late is not None
    found = [m.data async for m in bus.read(name, f"{name}.a", since=late.time)]
    assert found[-1] == b"late"
    assert [m async for m in bus.read(name, f"{name}.a", since=late.time + 60)] == []


async def test_purging_counts_what_it_removes(bus: ServiceBus, name: str) -> None:
    await held(bus, name)
    for number in range(10):
        await bus.store(f"{name}.{number % 2}", b"")
    assert await bus.purge(name, f"{name}.0", below=5) == 2
    assert await bus.purge(name, f"{name}.0") == 3
    assert await bus.purge(name, f"{name}.0") == 0
    assert len([m async for m in bus.read(name, f"{name}.>")]) == 5


async def test_a_stream_is_brought_to_its_specification(bus: ServiceBus, name: str) -> None:
    await held(bus, name, max_bytes=10_000)
    await bus.store(f"{name}.a", b"")
    await held(bus, name, max_bytes=10_000)
    await held(bus, name, max_bytes=20_000)
    assert await bus.last(name, f"{name}.a") is not None


async def test_a_message_goes_when_its_time_is_over(bus: ServiceBus, name: str) -> None:
    await held(bus, name, allow_msg_ttl=True)
    await bus.store(f"{name}.a", b"", headers={"Nats-TTL": "1s"})

    async def gone() -> bool:
        return await bus.last(name, f"{name}.a") is None

    await until(gone)


async def test_the_account_answers(bus: ServiceBus) -> None:
    assert await bus.account()
