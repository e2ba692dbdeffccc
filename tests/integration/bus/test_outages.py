"""What survives when the server is killed and comes back, or the connection alone is cut."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

import pytest
from bus_connections import ConnectNats
from waiting import until

from tidemill._bus import unanswered
from tidemill._bus.nats import connect
from tidemill._bus.protocol import Disconnected, Message
from tidemill_common import lease as lease_module
from tidemill_common.bus.nats import NatsServiceBus
from tidemill_common.bus.protocol import ConsumerSpec, Delivery, StreamSpec
from tidemill_common.lease import Lease
from tidemill_local.broker import MEMBER, Broker

INPUTS = StreamSpec(
    "INPUTS",
    ("in.>",),
    retention="workqueue",
    discard="new",
    discard_new_per_subject=True,
    max_msgs_per_subject=1,
)
KEPT = StreamSpec("KEPT", ("kept.>",))
QUEUE = ConsumerSpec("INPUTS", "q", "in.q.>", ack_wait=3.0)
PATIENT = replace(QUEUE, ack_wait=100.0)  # longer than any of these tests


async def lost(bus: NatsServiceBus) -> None:
    """Return when the connection has noticed that it is gone."""
    gone = asyncio.Event()
    undo = bus.on_disconnect(gone.set)
    async with asyncio.timeout(60):
        if bus.connected:
            await gone.wait()
    undo()


def stop_answering(broker: Broker) -> None:
    """Halt the server."""
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGSTOP)
    os.waitpid(broker.pid, os.WUNTRACED)


async def back(bus: NatsServiceBus) -> None:
    await until(lambda: bus.connected)


async def all_of(bus: NatsServiceBus, stream: str, subject: str) -> list[bytes]:
    return [stored.data async for stored in bus.read(stream, subject)]


async def test_unanswered_stores_are_sent_again_in_order(broker: Broker, nats: ConnectNats) -> None:
    bus = await nats()
    await bus.ensure_stream(KEPT)
    stores = [bus.store(f"kept.{n}", b"%d" % n, msg_id=f"id-{n}") for n in range(2_000)]
    await asyncio.sleep(0)  # written, not answered
    broker.kill()
    await lost(bus)
    stores += [bus.store(f"kept.{n}", b"%d" % n, msg_id=f"id-{n}") for n in range(2_000, 2_100)]
    await broker.start()
    await asyncio.gather(*stores)
    assert await all_of(bus, "KEPT", "kept.>") == [b"%d" % n for n in range(2_100)]


async def test_a_store_without_an_id_fails_at_the_moment_of_loss(broker: Broker, nats: ConnectNats) -> None:
    bus = await nats()
    await bus.ensure_stream(KEPT)
    stop_answering(broker)
    store = bus.store("kept.a", b"")
    request, flush = asyncio.ensure_future(bus.account()), asyncio.ensure_future(bus.flush())
    for _ in range(3):  # turns of the loop: begun, written, left
        await asyncio.sleep(0)
    assert not bus._connection.waiting_to_leave()
    broker.kill()
    async with asyncio.timeout(60):
        for waiting in (store, request, flush):
            with pytest.raises(Disconnected):
                await waiting


async def test_without_a_connection_everything_but_stores_fails_at_once(
    broker: Broker, nats: ConnectNats
) -> None:
    bus = await nats()
    await bus.ensure_stream(KEPT)
    broker.kill()
    await lost(bus)
    with pytest.raises(Disconnected):
        bus.publish("kept.a", b"")
    for call in (bus.account(), bus.flush(), bus.last("KEPT", "kept.a"), bus.subscribe("x", print)):
        with pytest.raises(Disconnected):
            await call
    store = bus.store("kept.a", b"waits")
    await broker.start()
    assert (await store).sequence == 1


async def test_what_waits_for_a_connection_is_bounded(
    broker: Broker, nats: ConnectNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unanswered, "MAX_WAITING", 10_000)
    bus = await nats()
    await bus.ensure_stream(KEPT)
    broker.kill()
    await lost(bus)
    stores = [bus.store(f"kept.{n}", b"x" * 1_000, msg_id=f"{n}") for n in range(20)]
    refused = [store for store in stores if store.done()]
    assert len(refused) > 10
    for store in refused:
        with pytest.raises(Disconnected):
            await store
    await broker.start()
    await asyncio.gather(*(store for store in stores if store not in refused))


async def test_it_reconnects_soon_after_the_server_is_back(broker: Broker, nats: ConnectNats) -> None:
    bus = await nats()
    told: list[str] = []
    bus.on_disconnect(lambda: told.append("lost"))
    bus.on_reconnect(lambda: told.append("back"))
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    await bus.subscribe("bell.>", inbox.put_nowait)
    for _ in range(3):
        broker.kill()
        await lost(bus)
        await broker.start()
        await back(bus)
        bus.publish("bell.x", b"")
        async with asyncio.timeout(60):
            await inbox.get()
    assert told == ["lost", "back"] * 3


async def test_a_cut_connection_is_made_again(nats: ConnectNats) -> None:
    bus, other = await nats(), await nats()
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    await bus.subscribe("bell", inbox.put_nowait)
    bus._connection.cut()
    await lost(bus)
    await back(bus)
    other.publish("bell", b"rings")
    async with asyncio.timeout(60):
        assert (await inbox.get()).data == b"rings"


async def test_acknowledgements_survive_a_kill_of_the_server(broker: Broker, nats: ConnectNats) -> None:
    bus = await nats()
    await bus.ensure_stream(INPUTS)
    await asyncio.gather(*(bus.store(f"in.q.{n}", b"", msg_id=f"{n}") for n in range(200)))
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    puller = bus.pull(PATIENT, inbox.put_nowait)
    puller.want(200)
    async with asyncio.timeout(60):
        deliveries = [await inbox.get() for _ in range(200)]
    acks = [delivery.ack() for delivery in deliveries]
    await asyncio.sleep(0)  # they are written; a flush would not save them either
    broker.kill()
    await broker.start()
    # A server killed this soon may have forgotten that it delivered: such a repeat is acknowledged too.
    puller.want(200)

    async def acknowledge_repeats() -> None:
        while True:
            await (await inbox.get()).ack()

    repeats = asyncio.create_task(acknowledge_repeats())
    _, waiting = await asyncio.wait(acks, timeout=60)  # nobody waits for a lease
    repeats.cancel()
    assert not waiting
    assert not any(ack.exception() for ack in acks)
    await back(bus)
    assert await all_of(bus, "INPUTS", "in.>") == []


async def test_leases_are_renewed_first_thing_after_a_reconnect(broker: Broker, nats: ConnectNats) -> None:
    bus = await nats()
    await bus.ensure_stream(INPUTS)
    await bus.store("in.q.0", b"")
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    bus.pull(PATIENT, inbox.put_nowait).want(1)
    async with asyncio.timeout(60):
        delivery = await inbox.get()
    said: asyncio.Queue[Message] = asyncio.Queue()  # by this connection itself
    for subject in ("$JS.ACK.>", "in.>"):
        await bus.subscribe(subject, said.put_nowait)
    broker.kill()
    await lost(bus)
    waiting = bus.store("in.q.1", b"", msg_id="waits")
    await broker.start()
    async with asyncio.timeout(60):
        first = await said.get()
        await waiting
    assert (first.subject, first.data) == (delivery.ack_subject, b"+WPI")
    await until(lambda: not bus._unanswered._entries)  # the consumer has taken it
    await delivery.ack()


async def test_pulls_go_on_after_a_restart(broker: Broker, nats: ConnectNats) -> None:
    bus, publisher = await nats(), await nats()
    await bus.ensure_stream(INPUTS)
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    puller = bus.pull(PATIENT, inbox.put_nowait)
    puller.want(4)
    await bus.flush()
    broker.kill()
    await broker.start()
    await asyncio.gather(*(publisher.store(f"in.q.{n}", b"", msg_id=f"{n}") for n in range(8)))
    async with asyncio.timeout(60):
        for _ in range(8):
            delivery = await inbox.get()
            await delivery.ack()
            puller.want(4)
    assert await all_of(publisher, "INPUTS", "in.>") == []


async def test_a_cut_worker_gets_its_work_once(nats: ConnectNats) -> None:
    """The old pulls of a connection that was cut may live on at the server: nothing is run twice."""
    bus, publisher = await nats(), await nats()
    await bus.ensure_stream(INPUTS)
    done: list[str] = []
    finished = asyncio.Event()

    def work(delivery: Delivery) -> None:
        done.append(delivery.subject)
        delivery.ack()
        puller.want(4)
        if len(set(done)) == 400:
            finished.set()

    puller = bus.pull(QUEUE, work)
    puller.want(4)

    async def publish() -> None:
        for n in range(400):
            await publisher.store(f"in.q.{n}", b"", msg_id=f"{n}")

    async def cut() -> None:
        for number in range(5):
            await until(lambda number=number: len(done) >= 60 * number)
            bus._connection.cut()
            await back(bus)

    async with asyncio.timeout(60):
        await asyncio.gather(publish(), cut(), finished.wait())
    # What was on its way to a cut connection comes again after its lease; nothing else does.
    assert set(done) == {f"in.q.{n}" for n in range(400)}


async def test_nothing_is_lost_while_the_server_is_killed_again_and_again(
    broker: Broker, nats: ConnectNats
) -> None:
    caller, worker = await nats(MEMBER), await nats("worker")
    await worker.ensure_stream(INPUTS)
    await worker.ensure_stream(StreamSpec("REPLIES", ("replies.*",)))
    results: set[bytes] = set()
    everything = asyncio.Event()

    def work(delivery: Delivery) -> None:
        stored = worker.store("replies.me", delivery.data, msg_id=delivery.subject)
        stored.add_done_callback(lambda _: finish(delivery))

    def finish(delivery: Delivery) -> None:
        delivery.ack()
        puller.want(16)

    def take(data: bytes) -> None:
        results.add(data)
        if len(results) == 3_000:
            everything.set()

    puller = worker.pull(QUEUE, work)
    puller.want(16)
    await caller.subscribe("replies.me", lambda message: take(message.data))

    async def call() -> None:
        for first in range(0, 3_000, 50):
            batch = range(first, first + 50)
            await asyncio.gather(*(caller.store(f"in.q.{n}", b"%d" % n, msg_id=f"{n}") for n in batch))

    async def torment() -> None:
        for number in range(1, 4):
            await until(lambda number=number: len(results) >= 300 * number)
            broker.kill()
            await broker.start()
        await back(caller)
        while not everything.is_set():  # what the subscription missed is read again
            async for stored in caller.read("REPLIES", "replies.me"):
                take(stored.data)
            with suppress(TimeoutError):
                await asyncio.wait_for(everything.wait(), 0.5)

    async with asyncio.timeout(60):
        await asyncio.gather(call(), torment())
    assert results == {b"%d" % n for n in range(3_000)}
    assert len(await all_of(caller, "REPLIES", "replies.me")) == 3_000


async def test_a_watch_survives_a_restart(broker: Broker, nats: ConnectNats) -> None:
    bus = await nats()
    await bus.ensure_bucket("pools")
    bucket = bus.bucket("pools")
    await bucket.put("a", b"1")
    await bucket.put("b", b"2")
    changes: AsyncIterator[tuple[str, bytes | None]] = bucket.watch()

    async def following() -> tuple[str, bytes | None]:
        async with asyncio.timeout(60):
            return await anext(changes)

    assert [await following() for _ in range(3)] == [("a", b"1"), ("b", b"2"), ("", None)]
    broker.kill()
    await broker.start()
    await back(bus)
    await bucket.delete("a")
    await bucket.put("c", b"3")
    assert {await following(), await following()} == {("a", None), ("c", b"3")}
    await bucket.put("d", b"4")
    assert await following() == ("d", b"4")
    await changes.aclose()  # type: ignore[attr-defined]


async def test_a_key_deleted_while_nobody_looked_is_told(broker: Broker, nats: ConnectNats) -> None:
    bus, other = await nats(), await nats()
    await bus.ensure_bucket("pools")
    bucket = bus.bucket("pools")
    await bucket.put("a", b"1")
    changes = bucket.watch()
    async with asyncio.timeout(60):
        assert [await anext(changes), await anext(changes)] == [("a", b"1"), ("", None)]
        await other.purge("KV_pools", "$KV.pools.a")  # leaves no trace that a consumer would push
        bus._connection.cut()
        assert await anext(changes) == ("a", None)
    await changes.aclose()  # type: ignore[attr-defined]


async def test_a_leader_without_a_server_steps_down_by_its_own_clock(
    broker: Broker, nats: ConnectNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "TTL", 60.0)  # the key outlives whatever happens before the outage
    bus = await nats()
    await bus.ensure_bucket("leases")
    now = 0.0
    led: list[int] = []
    leads, over = asyncio.Event(), asyncio.Event()

    async def lead(term: int) -> None:
        led.append(term)
        leads.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            over.set()

    lease = Lease(bus, "test", "me", clock=lambda: now)
    task = asyncio.create_task(lease.run(lead))
    async with asyncio.timeout(60):
        await leads.wait()
    broker.kill()
    await lost(bus)
    now += 3.9
    assert lease.term == led[0]
    now += 0.2
    assert lease.term is None  # at once, whatever the loops are doing
    async with asyncio.timeout(60):
        await over.wait()
    await broker.start()
    task.cancel()
    await asyncio.wait({task})


async def test_leadership_goes_on_over_a_short_outage(
    broker: Broker, nats: ConnectNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "TTL", 60.0)  # than which any outage here is shorter
    monkeypatch.setattr(lease_module, "TRUST", 50.0)
    bus = await nats()
    await bus.ensure_bucket("leases")
    terms: list[int] = []
    leads = asyncio.Event()

    async def lead(term: int) -> None:
        terms.append(term)
        leads.set()
        await asyncio.get_running_loop().create_future()

    lease = Lease(bus, "test", "me")
    task = asyncio.create_task(lease.run(lead))
    async with asyncio.timeout(60):
        await leads.wait()
    broker.kill()
    await broker.start()
    before = lease._sequence
    await until(lambda: lease._sequence > before)  # it was renewed afterwards
    assert lease.term == terms[0]
    assert len(terms) == 1
    task.cancel()
    await asyncio.wait({task})


async def test_the_first_connection_fails_fast_and_clearly(broker: Broker) -> None:
    url, password = broker.url, broker.settings.passwords[MEMBER]
    with pytest.raises(Disconnected, match="Authorization Violation"):
        await connect(url, MEMBER, "wrong", timeout=60)
    stop_answering(broker)  # the system accepts for it
    with pytest.raises(Disconnected, match="no answer from"):
        await connect(url, MEMBER, password, timeout=0.2)
    broker.kill()
    with pytest.raises(Disconnected, match="cannot connect"):
        await connect(url, MEMBER, password, timeout=60)


async def test_one_server_of_several_is_enough(broker: Broker) -> None:
    password = broker.settings.passwords[MEMBER]
    bus = await connect(f"nats://127.0.0.1:1,{broker.url}", MEMBER, password, timeout=60)
    await bus.flush()
    await bus.close()


async def test_closing_sends_what_is_buffered(nats: ConnectNats) -> None:
    bus, other = await nats(), await nats()
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    await other.subscribe("last.words", inbox.put_nowait)
    for number in range(100):
        bus.publish("last.words", b"%d" % number)
    await bus.close()
    async with asyncio.timeout(60):
        assert [(await inbox.get()).data for _ in range(100)] == [b"%d" % n for n in range(100)]


async def test_closing_sends_the_acknowledgements_of_this_turn(nats: ConnectNats) -> None:
    bus, other = await nats(), await nats()
    await bus.ensure_stream(INPUTS)
    await bus.store("in.q.0", b"")
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    bus.pull(QUEUE, inbox.put_nowait).want(1)
    async with asyncio.timeout(60):
        delivery = await inbox.get()
    delivery.ack()
    await bus.close()

    async def is_gone() -> bool:
        return await other.last("INPUTS", "in.q.0") is None

    await until(is_gone)


async def test_closing_without_a_server_ends(broker: Broker, nats: ConnectNats) -> None:
    bus = await nats()
    await bus.ensure_stream(KEPT)
    broker.kill()
    await lost(bus)
    store = bus.store("kept.a", b"", msg_id="1")
    async with asyncio.timeout(60):
        await bus.close()
    with pytest.raises(Disconnected):
        await store
