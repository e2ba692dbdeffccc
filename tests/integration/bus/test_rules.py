"""The rules of the bus that only a real server can break: its texts, limits and habits."""

import asyncio
import json
import subprocess
import threading
from dataclasses import replace

import pytest
from bus_connections import ConnectNats, connect_to
from waiting import until

from tidemill._bus.jetstream import HELD_TEXT
from tidemill._bus.protocol import AlreadyHeld, Disconnected, Message, NoResponder, Refused, StreamFull
from tidemill_common import streams
from tidemill_common.bus import puller
from tidemill_common.bus.protocol import ConsumerSpec, Delivery, StreamSpec
from tidemill_local.broker import Broker, program

INPUTS = StreamSpec(
    "INPUTS",
    ("in.>",),
    retention="workqueue",
    discard="new",
    discard_new_per_subject=True,
    max_msgs_per_subject=1,
)
QUEUE = ConsumerSpec("INPUTS", "q", "in.q.>", ack_wait=60.0)


# --- rule 1: what a refusal means is in its text


async def test_the_texts_of_refusal_10077(nats: ConnectNats) -> None:
    bus = await nats()
    await bus.ensure_stream(replace(INPUTS, max_bytes=3_000))
    await bus.store("in.a", b"x" * 100)
    texts = {}
    for subject, size in (("in.a", 100), ("in.b", 4_000)):
        try:
            await bus.store(subject, b"x" * size)
        except (AlreadyHeld, StreamFull) as error:
            texts[type(error)] = str(error)
    assert texts == {AlreadyHeld: HELD_TEXT, StreamFull: "maximum bytes exceeded"}
    configuration = (await bus.api("STREAM.INFO.INPUTS"))["config"]
    await bus.api("STREAM.UPDATE.INPUTS", configuration | {"max_msgs": 1})
    with pytest.raises(StreamFull, match="maximum messages exceeded"):
        await bus.store("in.c", b"")
    with pytest.raises(AlreadyHeld):  # a full stream that holds the subject says that it holds it
        await bus.store("in.a", b"")


async def test_a_late_duplicate_without_an_id_runs_again(nats: ConnectNats) -> None:
    """Why every input carries an id: once it is consumed, the subject alone does not protect it."""
    bus = await nats()
    await bus.ensure_stream(INPUTS)
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    pull = bus.pull(QUEUE, inbox.put_nowait)
    for msg_id, repeated in (("", False), ("id", True)):
        await bus.store(f"in.q.x{msg_id}", b"", msg_id=msg_id)
        pull.want(1)
        async with asyncio.timeout(60):
            await (await inbox.get()).ack()
        assert (await bus.store(f"in.q.x{msg_id}", b"", msg_id=msg_id)).duplicate is repeated


async def test_ids_of_what_is_still_held_survive_a_kill(broker: Broker, nats: ConnectNats) -> None:
    bus = await nats()
    await bus.ensure_stream(INPUTS)
    await bus.store("in.q.a", b"", msg_id="a")
    broker.kill()
    await broker.start()
    assert (await bus.store("in.q.a", b"", msg_id="a")).duplicate


async def test_a_stream_that_is_not_there_yet_is_waited_for(
    nats: ConnectNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidemill._bus.unanswered.AGAIN_TRIES", 1_000)  # a busy disk makes it late
    bus = await nats()
    store = bus.store("in.q.a", b"", msg_id="a")
    await until(lambda: any(entry.tries for entry in bus._unanswered._entries.values()))
    assert not store.done()
    await bus.ensure_stream(INPUTS)
    async with asyncio.timeout(60):
        assert (await store).stream == "INPUTS"


async def test_a_stream_that_never_comes_is_an_error(
    nats: ConnectNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidemill._bus.unanswered.AGAIN_TRIES", 2)
    with pytest.raises(NoResponder):
        await (await nats()).store("nowhere", b"", msg_id="a")


# --- rules 2 and 3: consumers and pulls


async def test_a_deleted_consumer_is_made_again(nats: ConnectNats) -> None:
    bus = await nats()
    await bus.ensure_stream(INPUTS)
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    pull = bus.pull(QUEUE, inbox.put_nowait)
    pull.want(2)
    for number in range(3):
        await bus.store(f"in.q.{number}", b"", msg_id=f"{number}")
        async with asyncio.timeout(60):
            await (await inbox.get()).ack()
        pull.want(2)
        await bus.flush()
        await bus.api("CONSUMER.DELETE.INPUTS.q")


async def test_a_consumer_is_made_as_the_rules_say(nats: ConnectNats) -> None:
    bus = await nats()
    await bus.ensure_stream(INPUTS)
    await bus.ensure_consumer(ConsumerSpec("INPUTS", "q", "in.q.>"))
    config = (await bus.api("CONSUMER.INFO.INPUTS.q"))["config"]
    expected = {
        "ack_policy": "explicit",
        "ack_wait": 30 * 10**9,
        "max_ack_pending": 20_000,
        "max_waiting": 4_096,
        "max_deliver": -1,
        "inactive_threshold": 600 * 10**9,
        "priority_policy": "prioritized",
        "filter_subject": "in.q.>",
    }
    assert {key: config.get(key) for key in expected} == expected
    assert "backoff" not in config


async def test_an_acknowledgement_outlives_its_consumer(nats: ConnectNats) -> None:
    """A new consumer delivers once more what the old one did: a worker only acknowledges that."""
    bus = await nats()
    await bus.ensure_stream(INPUTS)
    await bus.store("in.q.0", b"")
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    pull = bus.pull(QUEUE, inbox.put_nowait)
    pull.want(1)
    async with asyncio.timeout(60):
        delivery = await inbox.get()
    await bus.api("CONSUMER.DELETE.INPUTS.q")
    ack = delivery.ack()
    pull.want(1)
    async with asyncio.timeout(60):
        await (await inbox.get()).ack()
        await ack
    assert await bus.last("INPUTS", "in.q.0") is None


@pytest.mark.parametrize("heartbeat", [0, 200_000_000])
async def test_too_many_pulls_back_off_and_come_back(
    nats: ConnectNats, monkeypatch: pytest.MonkeyPatch, heartbeat: int
) -> None:
    """The server refuses a pull too many; one with heartbeats it forgets without a word."""
    monkeypatch.setattr(puller, "_HEARTBEAT", heartbeat)
    monkeypatch.setattr(puller, "LOOK", 0.3 if heartbeat else 60.0)
    buses = [await nats() for _ in range(4)]
    await buses[0].ensure_stream(INPUTS)
    queue = replace(QUEUE, max_waiting=2)
    done: list[str] = []
    finished = asyncio.Event()

    def work(delivery: Delivery) -> None:
        done.append(delivery.subject)
        delivery.ack()
        if len(done) == 8:
            finished.set()

    await buses[0].ensure_consumer(queue)
    for bus in buses:
        bus.pull(queue, work).want(2)
        await bus.flush()
    await asyncio.gather(*(buses[0].store(f"in.q.{n}", b"", msg_id=f"{n}") for n in range(8)))
    async with asyncio.timeout(60):
        await finished.wait()
    assert len(set(done)) == 8


async def test_pulls_overlap_and_leave_nothing_behind(nats: ConnectNats) -> None:
    bus, publisher = await nats(), await nats()
    await bus.ensure_stream(INPUTS)
    free, done = 8, 0
    finished = asyncio.Event()

    def work(delivery: Delivery) -> None:
        nonlocal free
        free -= 1
        asyncio.get_running_loop().call_later(0.001, finish, delivery)

    def finish(delivery: Delivery) -> None:
        nonlocal free, done
        free, done = free + 1, done + 1
        delivery.ack()
        pull.want(free)
        if done == 1_000:
            finished.set()

    pull = bus.pull(QUEUE, work)
    pull.want(free)
    await asyncio.gather(*(publisher.store(f"in.q.{n}", b"", msg_id=f"{n}") for n in range(1_000)))
    async with asyncio.timeout(60):
        await finished.wait()

    async def all_are_acknowledged() -> bool:
        state = await bus.consumer_state("INPUTS", "q")
        assert state is not None
        assert state.delivered == 1_000
        return (state.pending, state.ack_pending) == (0, 0)

    await until(all_are_acknowledged)


# --- rule 6: nothing is dropped on this side


async def test_a_slow_callback_loses_nothing(nats: ConnectNats) -> None:
    bus, publisher = await nats(), await nats()
    seen: list[int] = []
    finished = asyncio.Event()

    def slow(number: int) -> None:
        threading.Event().wait(0.001)  # holds the loop, as a callback must not
        seen.append(number)
        if number == 999:
            finished.set()

    await bus.subscribe("numbers", lambda message: slow(int(message.data)))
    for number in range(1_000):
        publisher.publish("numbers", b"%d" % number)
    async with asyncio.timeout(60):
        await finished.wait()
    assert seen == list(range(1_000))


async def test_what_a_standing_caller_missed_is_in_the_stream(broker: Broker, nats: ConnectNats) -> None:
    """A server that may not slow publishers drops what a connection does not take, without a word."""
    bus = await nats()
    await bus.ensure_stream(StreamSpec("REPLIES", ("replies.*",)))
    seen: list[int] = []
    await bus.subscribe("replies.me", lambda message: seen.append(len(message.data)))

    async def flood() -> None:
        publisher = await connect_to(broker)
        for _ in range(15):  # more than `max_pending`
            await asyncio.gather(*(publisher.store("replies.me", bytes(1_000_000)) for _ in range(10)))
        await publisher.close()

    thread = threading.Thread(target=lambda: asyncio.run(flood()))
    thread.start()
    thread.join(100)  # meanwhile this loop stands still

    async def has_come_to_itself() -> bool:
        try:
            await bus.flush()
        except Disconnected:  # the server leaves who takes nothing for ten seconds
            return False
        return True

    await until(has_come_to_itself)
    assert len(seen) < 150
    assert len([1 async for _ in bus.read("REPLIES", "replies.me")]) == 150


# --- rules 8 and 9: buckets and backlog


async def test_leases_have_what_the_recipe_needs(nats: ConnectNats) -> None:
    bus = await nats()
    await bus.ensure_bucket("leases")
    config = (await bus.api("STREAM.INFO.KV_leases"))["config"]
    assert config["allow_msg_ttl"]
    assert config["max_msgs_per_subject"] == 1
    assert "subject_delete_marker_ttl" not in config


async def test_all_streams_are_made_and_made_again(nats: ConnectNats) -> None:
    bus = await nats()
    await asyncio.gather(*(streams.apply(bus, "main") for _ in range(3)))  # services start together
    await streams.apply(bus, "main")
    names = {stream["config"]["name"] for stream in (await bus.api("STREAM.LIST"))["streams"]}
    assert names >= {spec.name for spec in (*streams.common_streams(), *streams.workspace_streams("main"))}


async def test_a_changed_storage_is_refused_not_ignored(nats: ConnectNats) -> None:
    bus = await nats()
    await bus.ensure_stream(INPUTS)
    with pytest.raises(Refused):
        await bus.ensure_stream(replace(INPUTS, storage="memory"))


# --- rule 10: the server


async def test_the_server_runs_with_our_settings(broker: Broker, nats: ConnectNats) -> None:
    bus = await nats()
    assert bus.max_payload == 2 << 20
    folder = broker.settings.folder
    configuration = json.loads((folder / "nats.conf").read_text())
    assert configuration["no_fast_producer_stall"] is True
    assert configuration["jetstream"]["limits"]["default_max_consumers"] > 1_000
    assert (folder.stat().st_mode & 0o777, (folder / "nats.conf").stat().st_mode & 0o777) == (0o700, 0o600)
    checked = subprocess.run([program(), "-t", "-c", folder / "nats.conf"], capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr


async def test_a_server_keeps_its_port_and_what_it_stored(broker: Broker, nats: ConnectNats) -> None:
    port = broker.port
    bus = await nats()
    await bus.ensure_stream(StreamSpec("KEPT", ("kept.>",)))
    await bus.store("kept.a", b"x")
    await broker.restart()
    assert broker.port == port
    fresh = await nats()
    stored = await fresh.last("KEPT", "kept.a")
    assert stored is not None
    assert stored.data == b"x"


# --- discovery


async def test_services_are_found_by_the_micro_protocol(nats: ConnectNats) -> None:
    service, other = await nats(), await nats()

    async def echo(request: Message) -> bytes:
        return request.data

    stop = await service.serve("echo", "1.2.3", {"tm.echo.say": echo}, metadata={"part": "test"})
    await other.request("tm.echo.say", b"x")
    ping = json.loads(await other.request("$SRV.PING.echo", b""))
    assert (ping["type"], ping["name"], ping["version"]) == (
        "io.nats.micro.v1.ping_response",
        "echo",
        "1.2.3",
    )
    info = json.loads(await other.request(f"$SRV.INFO.echo.{ping['id']}", b""))
    assert info["endpoints"][0]["subject"] == "tm.echo.say"
    assert info["metadata"] == {"part": "test"}
    stats = json.loads(await other.request("$SRV.STATS", b""))
    assert stats["endpoints"][0]["num_requests"] == 1
    await stop()
    await service.flush()
    with pytest.raises(NoResponder):
        await other.request("tm.echo.say", b"x")
