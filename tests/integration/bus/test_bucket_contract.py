"""Buckets and leases, on NATS and without a server."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from bus_connections import Connect
from waiting import until

from tidemill._bus.protocol import WrongSequence
from tidemill_common import lease
from tidemill_common.bus.protocol import ServiceBus
from tidemill_common.lease import Lease


async def following(changes: AsyncIterator[tuple[str, bytes | None]]) -> tuple[str, bytes | None]:
    async with asyncio.timeout(60):
        return await anext(changes)


async def test_a_key_has_its_last_value(bus: ServiceBus, name: str) -> None:
    await bus.ensure_bucket(name)
    bucket = bus.bucket(name)
    assert await bucket.get("a") is None
    first = await bucket.put("a", b"1")
    assert await bucket.put("a", b"2") > first
    assert await bucket.get("a") == b"2"


async def test_a_deleted_key_is_gone(bus: ServiceBus, name: str) -> None:
    await bus.ensure_bucket(name)
    bucket = bus.bucket(name)
    await bucket.put("a", b"1")
    await bucket.put("b", b"2")
    await bucket.delete("a")
    assert await bucket.get("a") is None
    assert await bucket.items() == {"b": b"2"}


async def test_making_a_bucket_again_keeps_it(bus: ServiceBus, name: str) -> None:
    await bus.ensure_bucket(name, ttl=60.0)
    await bus.bucket(name).put("a", b"1")
    await bus.ensure_bucket(name, ttl=60.0)
    assert await bus.bucket(name).items() == {"a": b"1"}


async def test_a_watch_tells_what_is_there_then_what_changes(bus: ServiceBus, name: str) -> None:
    await bus.ensure_bucket(name)
    bucket = bus.bucket(name)
    await bucket.put("a", b"1")
    await bucket.put("b", b"2")
    await bucket.delete("b")
    changes = bucket.watch()
    assert await following(changes) == ("a", b"1")
    assert await following(changes) == ("", None)
    await bucket.put("c", b"3")
    assert await following(changes) == ("c", b"3")
    await bucket.delete("a")
    assert await following(changes) == ("a", None)
    await changes.aclose()  # type: ignore[attr-defined]


async def test_a_watch_of_an_empty_bucket_says_so(bus: ServiceBus, name: str) -> None:
    await bus.ensure_bucket(name)
    changes = bus.bucket(name).watch()
    assert await following(changes) == ("", None)
    await bus.bucket(name).put("a", b"1")
    assert await following(changes) == ("a", b"1")
    await changes.aclose()  # type: ignore[attr-defined]


async def test_a_watch_keeps_up_with_many_changes(bus: ServiceBus, name: str) -> None:
    await bus.ensure_bucket(name)
    bucket = bus.bucket(name)
    changes = bucket.watch()
    assert await following(changes) == ("", None)
    await asyncio.gather(*(bucket.put(f"k{n}", b"x" * 1_000) for n in range(2_000)))
    seen = {(await following(changes))[0] for _ in range(2_000)}
    assert len(seen) == 2_000
    await changes.aclose()  # type: ignore[attr-defined]


async def test_only_one_of_many_takes_a_free_key(new_bus: Connect, name: str) -> None:
    buses = [await new_bus() for _ in range(4)]
    await buses[0].ensure_bucket(name)
    subject = f"$KV.{name}.leader"
    tries = (buses[n % 4].replace(subject, b"%d" % n, expected=0, ttl=60.0) for n in range(20))
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    winners = [outcome for outcome in outcomes if isinstance(outcome, int)]
    assert len(winners) == 1
    assert sum(isinstance(outcome, WrongSequence) for outcome in outcomes) == 19
    entry = await buses[0].last_in_bucket(name, "leader")
    assert entry is not None
    assert entry.sequence == winners[0]


async def test_a_key_with_a_time_to_live_goes_and_its_number_grows(bus: ServiceBus, name: str) -> None:
    await bus.ensure_bucket(name)
    subject = f"$KV.{name}.leader"
    first = await bus.replace(subject, b"a", expected=0, ttl=60.0)
    second = await bus.replace(subject, b"a", expected=first, ttl=60.0)
    with pytest.raises(WrongSequence):
        await bus.replace(subject, b"b", expected=0)
    third = await bus.replace(subject, b"a", expected=second, ttl=1.0)

    async def gone() -> bool:
        return await bus.last_in_bucket(name, "leader") is None

    await until(gone)
    assert await bus.replace(subject, b"b", expected=0, ttl=1.0) > third


# --- leadership


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no lease run out because the machine is busy."""
    for name, seconds in (("TTL", 60.0), ("TRUST", 50.0), ("ATTEMPT", 30.0)):
        monkeypatch.setattr(lease, name, seconds)


class CountingLease(Lease):
    """A lease that counts how often it was renewed or tried to be taken."""

    attempts = 0

    async def _attempt(self) -> bool:
        written = await super()._attempt()
        self.attempts += 1
        return written


class Replica:
    """Leads when it may, and writes down when."""

    def __init__(self, bus: ServiceBus, name: str) -> None:
        self.lease = CountingLease(bus, "test", name)
        self.terms: list[int] = []
        self.leads = asyncio.Event()
        self.task = asyncio.create_task(self.lease.run(self._lead))

    async def _lead(self, term: int) -> None:
        self.terms.append(term)
        self.leads.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.leads.clear()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})


async def free_lease(bus: ServiceBus) -> None:
    await bus.ensure_bucket("leases")
    await bus.purge("KV_leases", "$KV.leases.test")


async def test_one_replica_leads_and_hands_over_when_it_stops(new_bus: Connect) -> None:
    bus = await new_bus()
    await free_lease(bus)
    first = Replica(bus, "first")
    async with asyncio.timeout(60):
        await first.leads.wait()
    second = Replica(await new_bus(), "second")
    await until(lambda: second.lease.attempts)
    assert (first.lease.term, second.lease.term) == (first.terms[0], None)
    assert await second.lease.holder() == "first"
    await first.stop()
    assert first.lease.term is None
    async with asyncio.timeout(60):
        await second.leads.wait()
    assert second.terms[0] > first.terms[0]
    await second.stop()
    assert await second.lease.holder() == ""


async def test_an_error_of_the_leader_ends_its_leadership(new_bus: Connect) -> None:
    bus = await new_bus()
    await free_lease(bus)

    async def fail(term: int) -> None:
        raise ValueError(f"in term {term}")

    lease = Lease(bus, "test", "failing")
    with pytest.raises(ValueError, match="in term"):
        await lease.run(fail)
    assert lease.term is None
    other = Replica(bus, "other")
    async with asyncio.timeout(60):
        await other.leads.wait()
    await other.stop()


async def test_a_term_ends_when_somebody_else_has_the_key(new_bus: Connect) -> None:
    bus = await new_bus()
    await free_lease(bus)
    replica = Replica(bus, "victim")
    async with asyncio.timeout(60):
        await replica.leads.wait()
    await bus.bucket("leases").put("test", b"intruder")
    await until(lambda: replica.lease.term is None)
    await replica.stop()
    assert await replica.lease.holder() == "intruder"
