"""Work queues: who gets what, for how long, and what comes again. On NATS and without a server."""

import asyncio
import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from bus_connections import Connect
from waiting import until

from tidemill_common.bus.protocol import ConsumerSpec, Delivery, ServiceBus, StreamSpec


@pytest.fixture
async def queue(bus: ServiceBus, name: str) -> ConsumerSpec:
    """A work queue on `<name>.>`, and the consumer of `<name>.q.>`."""
    stream = StreamSpec(
        name,
        (f"{name}.>",),
        retention="workqueue",
        discard="new",
        discard_new_per_subject=True,
        max_msgs_per_subject=1,
    )
    await bus.ensure_stream(stream)
    return ConsumerSpec(name, "q", f"{name}.q.>", ack_wait=100.0)  # no lease runs out by chance


@pytest.fixture
async def hurried(queue: ConsumerSpec) -> ConsumerSpec:
    """The same, with leases that run out soon."""
    return replace(queue, ack_wait=0.6)


async def fill(bus: ServiceBus, queue: ConsumerSpec, count: int) -> None:
    """Store `count` messages, numbered."""
    stores = (bus.store(f"{queue.stream}.q.{n}", b"%d" % n, msg_id=f"{n}") for n in range(count))
    await asyncio.gather(*stores)


async def taken(inbox: "asyncio.Queue[Delivery]", count: int = 1) -> list[Delivery]:
    async with asyncio.timeout(60):
        return [await inbox.get() for _ in range(count)]


async def delivered(bus: ServiceBus, queue: ConsumerSpec) -> int:
    """Return how many messages the server has sent, of all that it was asked for."""
    await bus.flush()
    state = await bus.consumer_state(queue.stream, queue.name)
    return state.delivered if state is not None else 0


async def test_as_many_come_as_are_wanted(bus: ServiceBus, queue: ConsumerSpec) -> None:
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    await fill(bus, queue, 10)
    puller = bus.pull(queue, inbox.put_nowait)
    assert await delivered(bus, queue) == 0
    puller.want(3)
    first = await taken(inbox, 3)
    assert [delivery.data for delivery in first] == [b"0", b"1", b"2"]
    assert [delivery.pending for delivery in first] == [9, 8, 7]
    assert not any(delivery.redelivered for delivery in first)
    assert await delivered(bus, queue) == 3
    puller.want(2)
    assert [delivery.data for delivery in await taken(inbox, 2)] == [b"3", b"4"]


async def test_what_is_wanted_is_not_added_up(bus: ServiceBus, queue: ConsumerSpec) -> None:
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    puller = bus.pull(queue, inbox.put_nowait)
    for _ in range(5):
        puller.want(2)
        await bus.flush()
    await fill(bus, queue, 10)
    await taken(inbox, 2)
    assert await delivered(bus, queue) == 2


async def test_an_acknowledged_message_is_gone(bus: ServiceBus, queue: ConsumerSpec) -> None:
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    await fill(bus, queue, 3)
    bus.pull(queue, inbox.put_nowait).want(3)
    for delivery in await taken(inbox, 3):
        await delivery.ack()
    assert [m async for m in bus.read(queue.stream, f"{queue.stream}.>")] == []
    state = await bus.consumer_state(queue.stream, queue.name)
    assert state is not None
    assert (state.pending, state.ack_pending, state.delivered) == (0, 0, 3)


async def test_messages_acknowledged_together_are_gone_together(bus: ServiceBus, queue: ConsumerSpec) -> None:
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    await fill(bus, queue, 6)
    other = replace(queue, name="other", filter=f"{queue.stream}.other.>")
    await bus.store(f"{queue.stream}.other.0", b"other", msg_id="other")
    bus.pull(other, inbox.put_nowait).want(1)
    bus.pull(queue, inbox.put_nowait).want(5)
    acks = [delivery.ack() for delivery in await taken(inbox, 6)]
    acks[0].cancel()  # who no longer waits for one leaves the others alone
    async with asyncio.timeout(60):
        await asyncio.gather(*acks[1:])

    async def only_one_is_left() -> bool:  # two consumers may hear of theirs in any order
        left = [stored.data async for stored in bus.read(queue.stream, f"{queue.stream}.>")]
        assert b"5" in left
        return left == [b"5"]

    await until(only_one_is_left)


async def test_the_state_tells_waiting_and_taken(bus: ServiceBus, queue: ConsumerSpec) -> None:
    assert await bus.consumer_state(queue.stream, queue.name) is None
    await fill(bus, queue, 5)
    assert (await bus.ensure_consumer(queue)).pending == 5
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    bus.pull(queue, inbox.put_nowait).want(2)
    await taken(inbox, 2)
    state = await bus.consumer_state(queue.stream, queue.name)
    assert state is not None
    assert (state.pending, state.ack_pending) == (3, 2)


async def test_making_a_consumer_again_changes_nothing(bus: ServiceBus, queue: ConsumerSpec) -> None:
    await fill(bus, queue, 5)
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    bus.pull(queue, inbox.put_nowait).want(2)
    await taken(inbox, 2)
    state = await bus.ensure_consumer(queue)
    assert (state.pending, state.ack_pending) == (3, 2)


async def test_a_consumer_goes_unless_somebody_holds_something_of_it(
    bus: ServiceBus, queue: ConsumerSpec
) -> None:
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    await fill(bus, queue, 2)
    puller = bus.pull(queue, inbox.put_nowait)
    puller.want(1)
    (held,) = await taken(inbox)
    assert not await bus.delete_consumer(queue.stream, queue.name)
    assert await bus.consumer_state(queue.stream, queue.name)
    await held.ack()
    await puller.close()
    assert await bus.delete_consumer(queue.stream, queue.name)
    assert await bus.consumer_state(queue.stream, queue.name) is None
    assert await bus.delete_consumer(queue.stream, queue.name)
    assert (await bus.ensure_consumer(queue)).pending == 1


async def test_a_message_comes_again_when_its_lease_ran_out(bus: ServiceBus, hurried: ConsumerSpec) -> None:
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    await fill(bus, hurried, 1)
    puller = bus.pull(hurried, inbox.put_nowait)
    puller.want(1)
    await taken(inbox)
    puller.want(1)
    (again,) = await taken(inbox)
    assert again.redelivered
    await again.ack()


async def test_a_renewed_lease_does_not_run_out(bus: ServiceBus, queue: ConsumerSpec) -> None:
    lease, clock, numbers = 1.0, asyncio.get_running_loop().time, itertools.count()

    async def renewed_in_time() -> bool:
        """Renew one of two leases until the other has run out; False if the machine stood for that long."""
        own = f"q{next(numbers)}"
        mine = replace(queue, name=own, filter=f"{queue.stream}.{own}.>", ack_wait=lease)
        for word in ("one", "other"):
            await bus.store(f"{queue.stream}.{own}.{word}", word.encode(), msg_id=f"{own}.{word}")
        inbox: asyncio.Queue[Delivery] = asyncio.Queue()
        puller = bus.pull(mine, inbox.put_nowait)
        heard, longest = clock(), 0.0
        puller.want(2)
        renewed, left = await taken(inbox, 2)
        puller.want(2)
        while inbox.empty():
            renewed.renew()
            await bus.flush()
            longest, heard = max(longest, clock() - heard), clock()
        came = await delivered(bus, mine)
        if max(longest, clock() - heard) > 0.8 * lease:
            return False
        # Both leases began together: had the renewed one run out, it would have come with the other.
        assert came == 3
        assert [delivery.data for delivery in await taken(inbox)] == [left.data]
        await renewed.ack()
        return True

    await until(renewed_in_time)


async def test_a_message_handed_back_comes_at_once(bus: ServiceBus, queue: ConsumerSpec) -> None:
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    await fill(bus, queue, 1)
    puller = bus.pull(queue, inbox.put_nowait)
    puller.want(1)
    (delivery,) = await taken(inbox)
    delivery.nak()
    puller.want(1)
    (again,) = await taken(inbox)
    assert again.redelivered


async def test_a_message_can_be_handed_back_for_later(bus: ServiceBus, queue: ConsumerSpec) -> None:
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    await fill(bus, queue, 1)
    puller = bus.pull(queue, inbox.put_nowait)
    puller.want(1)
    (delivery,) = await taken(inbox)
    clock = asyncio.get_running_loop().time
    handed_back = clock()
    delivery.nak(0.4)
    puller.want(1)
    await taken(inbox)
    assert clock() - handed_back > 0.35


async def test_anybody_can_hand_back_by_the_ack_subject(new_bus: Connect, bus: ServiceBus, name: str) -> None:
    await bus.ensure_stream(StreamSpec(name, (f"{name}.>",), retention="workqueue"))
    queue = ConsumerSpec(name, "q", f"{name}.>", ack_wait=60.0)
    lost: asyncio.Queue[Delivery] = asyncio.Queue()
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    await bus.store(f"{name}.a", b"x")
    bus.pull(queue, lost.put_nowait).want(1)
    (delivery,) = await taken(lost)
    leader = await new_bus()
    leader.pull(queue, inbox.put_nowait).want(1)
    leader.publish(delivery.ack_subject, b"-NAK")
    (again,) = await taken(inbox)
    assert again.data == b"x"


async def test_a_late_acknowledgement_still_removes_the_message(
    bus: ServiceBus, hurried: ConsumerSpec
) -> None:
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    await fill(bus, hurried, 1)
    puller = bus.pull(hurried, inbox.put_nowait)
    puller.want(1)
    (first,) = await taken(inbox)
    puller.want(1)
    await taken(inbox)
    await first.ack()
    assert await bus.last(hurried.stream, f"{hurried.stream}.q.0") is None


async def test_two_pullers_never_get_the_same_message(new_bus: Connect, bus: ServiceBus, name: str) -> None:
    await bus.ensure_stream(StreamSpec(name, (f"{name}.>",), retention="workqueue"))
    queue = ConsumerSpec(name, "q", f"{name}.q.>")
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    for _ in range(2):
        (await new_bus()).pull(queue, inbox.put_nowait).want(60)
    await fill(bus, queue, 100)
    got = await taken(inbox, 100)
    assert {delivery.data for delivery in got} == {b"%d" % n for n in range(100)}
    assert not any(delivery.redelivered for delivery in got)


async def test_what_is_only_to_be_at_hand_comes_after_what_somebody_can_begin_with(
    new_bus: Connect, bus: ServiceBus, name: str
) -> None:
    await bus.ensure_stream(StreamSpec(name, (f"{name}.>",), retention="workqueue"))
    queue = ConsumerSpec(name, "q", f"{name}.q.>")
    await bus.ensure_consumer(queue)
    here: asyncio.Queue[Delivery] = asyncio.Queue()
    there: asyncio.Queue[Delivery] = asyncio.Queue()
    for inbox in (here, there):
        other = await new_bus()
        other.pull(queue, inbox.put_nowait).want(3, first=1)
        await other.flush()
    while (state := await bus.ensure_consumer(queue)).waiting < 4:
        assert state.pending == 0
    await fill(bus, queue, 6)
    assert {delivery.data for inbox in (here, there) for delivery in await taken(inbox, 1)} == {b"0", b"1"}
    assert sorted([delivery.data for inbox in (here, there) for delivery in await taken(inbox, 2)]) == [
        b"2", b"3", b"4", b"5",
    ]  # fmt: skip


async def test_the_first_priority_is_served_first(new_bus: Connect, bus: ServiceBus, name: str) -> None:
    await bus.ensure_stream(StreamSpec(name, (f"{name}.>",), retention="workqueue"))
    queue = ConsumerSpec(name, "q", f"{name}.q.>")
    await bus.ensure_consumer(queue)
    cold: asyncio.Queue[Delivery] = asyncio.Queue()
    warm: asyncio.Queue[Delivery] = asyncio.Queue()
    for first, inbox in ((0, cold), (2, warm)):
        other = await new_bus()
        puller = other.pull(queue, inbox.put_nowait)
        puller.want(2, first=first)
        await other.flush()
    while (state := await bus.ensure_consumer(queue)).waiting < 2:
        assert state.pending == 0
    await fill(bus, queue, 4)
    assert [delivery.data for delivery in await taken(warm, 2)] == [b"0", b"1"]
    assert [delivery.data for delivery in await taken(cold, 2)] == [b"2", b"3"]


async def test_a_closed_puller_hands_back_what_still_comes(
    new_bus: Connect, bus: ServiceBus, name: str
) -> None:
    await bus.ensure_stream(StreamSpec(name, (f"{name}.>",), retention="workqueue"))
    queue = ConsumerSpec(name, "q", f"{name}.q.>", ack_wait=60.0)
    gone: asyncio.Queue[Delivery] = asyncio.Queue()
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    puller = bus.pull(queue, gone.put_nowait)
    puller.want(3)
    await bus.flush()
    await puller.close()
    (await new_bus()).pull(queue, inbox.put_nowait).want(3)
    await fill(bus, queue, 3)
    assert {delivery.data for delivery in await taken(inbox, 3)} == {b"0", b"1", b"2"}
    assert gone.empty()


async def test_what_is_no_longer_wanted_is_handed_back(new_bus: Connect, bus: ServiceBus, name: str) -> None:
    await bus.ensure_stream(StreamSpec(name, (f"{name}.>",), retention="workqueue"))
    queue = ConsumerSpec(name, "q", f"{name}.q.>", ack_wait=60.0)
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    puller = bus.pull(queue, inbox.put_nowait)
    puller.want(3)
    await bus.flush()
    puller.want(0)
    await fill(bus, queue, 3)
    other: asyncio.Queue[Delivery] = asyncio.Queue()
    (await new_bus()).pull(queue, other.put_nowait).want(3)
    assert {delivery.data for delivery in await taken(other, 3)} == {b"0", b"1", b"2"}
    assert inbox.empty()


async def test_a_limit_holds_for_what_is_not_acknowledged(bus: ServiceBus, name: str) -> None:
    await bus.ensure_stream(StreamSpec(name, (f"{name}.>",), retention="workqueue"))
    queue = ConsumerSpec(name, "q", f"{name}.q.>", max_ack_pending=2)
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    await fill(bus, queue, 4)
    bus.pull(queue, inbox.put_nowait).want(4)
    first, _ = await taken(inbox, 2)
    assert await delivered(bus, queue) == 2
    await first.ack()
    await taken(inbox)


async def test_the_same_input_can_be_published_again_when_it_is_done(
    bus: ServiceBus, queue: ConsumerSpec
) -> None:
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    subject = f"{queue.stream}.q.0"
    await bus.store(subject, b"x", msg_id="first")
    puller = bus.pull(queue, inbox.put_nowait)
    puller.want(1)
    (delivery,) = await taken(inbox)
    await delivery.ack()
    # The id of what was consumed is remembered: a late repeat is not run again.
    assert (await bus.store(subject, b"x", msg_id="first")).duplicate
    assert not (await bus.store(subject, b"x", msg_id="second")).duplicate


async def test_headers_come_along(bus: ServiceBus, queue: ConsumerSpec) -> None:
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    await bus.store(f"{queue.stream}.q.0", b"x", msg_id="0", headers={"Tidemill-Subject": "elsewhere"})
    bus.pull(queue, inbox.put_nowait).want(1)
    (delivery,) = await taken(inbox)
    assert delivery.headers["Tidemill-Subject"] == "elsewhere"


async def test_a_schedule_is_published_when_it_is_due(bus: ServiceBus, name: str) -> None:
    await bus.ensure_stream(StreamSpec(name, (f"{name}.>",), retention="workqueue", allow_msg_schedules=True))
    due, later = (
        (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        for seconds in (0.6, 600)
    )
    for token, at in (("kept", due), ("cancelled", later)):
        headers = {
            "Nats-Schedule": f"@at {at}",
            "Nats-Schedule-Target": f"{name}.due.{token}",
            "Tidemill-Subject": "there",
        }
        await bus.store(f"{name}.timers.{token}", b"later", msg_id=token, headers=headers)
    assert await bus.purge(name, f"{name}.timers.cancelled") == 1
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    bus.pull(ConsumerSpec(name, "due", f"{name}.due.>"), inbox.put_nowait).want(2)
    (delivery,) = await taken(inbox)
    assert (delivery.subject, delivery.data) == (f"{name}.due.kept", b"later")
    assert delivery.headers["Tidemill-Subject"] == "there"
    assert datetime.now(UTC) >= datetime.fromisoformat(due)
    await delivery.ack()

    async def is_empty() -> bool:
        return not [message async for message in bus.read(name, f"{name}.>")]

    await until(is_empty)
    assert await bus.last(name, f"{name}.timers.kept") is None
