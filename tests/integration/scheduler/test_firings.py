"""Schedules that fire: one call for each firing, whoever dies and however often it is told."""

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from played_parts import make_pool, publish_pool, until
from running_scheduler import RunningScheduler
from scheduler_stage import Parts

from tidemill._bus.protocol import Stored
from tidemill._wire import coding, ids, subjects
from tidemill._wire.control import CallRecord
from tidemill._wire.messages import Chunk
from tidemill._wire.schedules import Fired, Firing
from tidemill._wire.specs import Pool
from tidemill_common import schedules, streams
from tidemill_common.bus.protocol import ServiceBus

HOURLY = {"kind": "cron", "cron": "0 * * * *", "timezone": "UTC"}
EACH_SECOND = {"kind": "period", "seconds": 1}
HALF_SECONDS = {"kind": "period", "seconds": 1.5}
MONTHLY = {"kind": "period", "months": 1}


def scheduled_pool(declared: dict[str, Any]) -> Pool:
    """Return a pool of a function of its own that has a schedule."""
    return replace(make_pool(schedule=declared), function_id=ids.new(ids.FUNCTION))


def firing_of(pool: Pool, **more: Any) -> Firing:
    """Return what waits in TIMERS for a pool's schedule."""
    schedule = ids.related(ids.SCHEDULE, pool.function_id)
    return Firing(
        schedule, 1, pool.id, pool.prefix, pool.workspace, pool.app_id, pool.function_id,
        dict(pool.spec.schedule or {}), **more,
    )  # fmt: skip


async def set_timer(bus: ServiceBus, firing: Firing) -> None:
    """Set a schedule's timer as the registry does."""
    timer = schedules.timer(firing, time.time())
    await bus.store(timer.subject, timer.data, headers=timer.headers)


async def fire(bus: ServiceBus, firing: Firing, upcoming: str = "") -> None:
    """Store a firing as NATS does. It lets nobody else say when the next one is due."""
    headers = {"Nats-Schedule-Next": upcoming} if upcoming else {}
    await bus.store(
        subjects.schedule_due(firing.workspace, firing.schedule), coding.encode(firing), headers=headers
    )


def whole_second() -> float:
    """Return the time in whole seconds: no rounding makes a moment later than itself."""
    return float(int(time.time()))


def due_now(pool: Pool, **more: Any) -> Firing:
    """Return a firing that is due now, of a schedule that was set 40 days ago."""
    due = whole_second()
    return firing_of(pool, anchor=due - 40 * 86_400, due=due, armed=due - 1, **more)


def due_time(call: str) -> float:
    """Return when a firing was due, as its call's id says."""
    alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
    number = 0
    for letter in call.partition("-")[2][:10]:
        number = number * 32 + alphabet.index(letter)
    return number / 1_000


async def waiting(bus: ServiceBus, pool: Pool) -> list[Chunk]:
    """Return the inputs in a pool's queue."""
    stored = bus.read(pool.stream, subjects.pool_inputs(pool.prefix))
    return [coding.decode(Chunk, one.data) async for one in stored]


async def due_times(bus: ServiceBus, pool: Pool) -> list[float]:
    """Return when the calls in a pool's queue were due, sorted: two at once may be stored in any order."""
    return sorted(due_time(chunk.call) for chunk in await waiting(bus, pool))


async def timers(bus: ServiceBus) -> list[Stored]:
    """Return the schedules that wait."""
    return [one async for one in bus.read(streams.TIMERS.name, subjects.ALL_SCHEDULES)]


async def nothing_due(bus: ServiceBus) -> bool:
    """Return whether TIMERS holds nothing that has fired."""
    return not [one async for one in bus.read(streams.TIMERS.name, "tm.due.>")]


async def acted(*schedulers: RunningScheduler, times: int = 1) -> None:
    """Return when replicas have acted on so many firings."""
    outcomes = ("fired", "repeated", "out of date", "buried")

    def count() -> float:
        return sum(
            one.count("tidemill_scheduler_due_total", outcome=outcome)
            for one in schedulers
            for outcome in outcomes
        )

    await until(lambda: count() >= times, f"{times} firings")


async def test_a_firing_is_a_kept_call_without_arguments(parts: Parts) -> None:
    scheduler, worker = await parts.scheduler(), await parts.worker()
    pool = scheduled_pool(MONTHLY)
    await publish_pool(parts.bus, pool)
    firing = due_now(pool)
    await fire(parts.bus, firing)
    await until(lambda: worker.placements, "a placement")
    (chunk,) = await waiting(parts.bus, pool)
    assert (chunk.indices, chunk.reply, chunk.root) == ([0], "", chunk.call)
    assert (chunk.inputs[0].format, chunk.inputs[0].data) == (1, b"\x92\x90\x80")
    stored = await parts.stored(subjects.results_stream("main"), subjects.call_record("main", chunk.call))
    record = coding.decode(CallRecord, stored.data)
    assert (record.pool, record.prefix, record.num_inputs) == (pool.id, pool.prefix, 1)
    await acted(scheduler)
    assert await nothing_due(parts.bus)
    noted = await parts.bus.bucket(streams.FIRINGS).get(firing.schedule)
    assert noted is not None
    fired = coding.decode(Fired, noted)
    (timer,) = await timers(parts.bus)
    assert fired == Fired(firing.schedule, fired.time, chunk.call, coding.decode(Firing, timer.data).due)


async def test_a_firing_that_is_told_twice_is_one_call(parts: Parts) -> None:
    first, second = await parts.scheduler(), await parts.scheduler(leads=False)
    pool = scheduled_pool(MONTHLY)
    await publish_pool(parts.bus, pool)
    firing = due_now(pool)
    for _ in range(5):
        await fire(parts.bus, firing)
    await acted(first, second, times=5)
    assert len(await waiting(parts.bus, pool)) == 1
    await fire(parts.bus, replace(firing, due=firing.due + 1))
    await acted(first, second, times=6)
    assert len(await waiting(parts.bus, pool)) == 2


async def test_a_firing_told_again_after_its_call_has_run_runs_nothing(parts: Parts) -> None:
    scheduler = await parts.scheduler()
    pool = scheduled_pool(MONTHLY)
    await publish_pool(parts.bus, pool)
    firing = due_now(pool)
    await fire(parts.bus, firing)
    await acted(scheduler)
    await parts.bus.purge(pool.stream, subjects.pool_inputs(pool.prefix))  # as if it had run
    await fire(parts.bus, firing)
    await acted(scheduler, times=2)
    assert await waiting(parts.bus, pool) == []


@pytest.mark.parametrize("subject", ["tm.inputs.", "tm.results."])
async def test_a_replica_that_dies_while_it_acts_leaves_one_call(parts: Parts, subject: str) -> None:
    dying = await parts.dying_scheduler(subject)
    pool = scheduled_pool(MONTHLY)
    await publish_pool(parts.bus, pool)
    firing = due_now(pool)
    await fire(parts.bus, firing)
    await until(lambda: dying.dead, "a death after the publish")
    follower = await parts.scheduler(leads=False)
    (lease,) = dying.leases
    parts.bus.publish(lease, b"-NAK")  # as if the lease had run out
    await acted(follower)
    (chunk,) = await waiting(parts.bus, pool)
    assert await parts.bus.last(subjects.results_stream("main"), subjects.call_record("main", chunk.call))
    assert await nothing_due(parts.bus)


async def test_a_firing_whose_input_waits_since_long_before_a_death_gets_its_record(parts: Parts) -> None:
    scheduler = await parts.scheduler()
    pool = scheduled_pool(MONTHLY)
    await publish_pool(parts.bus, pool)
    firing = due_now(pool)
    call = schedules.call_id(firing, {})
    # The id of the message is forgotten by now, so that storing it again is refused and no repeat.
    await parts.bus.store(subjects.inputs(pool.prefix, call, 0, 0), b"waits")
    await fire(parts.bus, firing)
    await acted(scheduler)
    assert await parts.bus.last(subjects.results_stream("main"), subjects.call_record("main", call))


async def test_a_firing_calls_the_version_that_serves_the_function_now(parts: Parts) -> None:
    scheduler = await parts.scheduler()
    old = scheduled_pool(MONTHLY)
    new = replace(scheduled_pool(MONTHLY), function_id=old.function_id)
    await publish_pool(parts.bus, new)
    await publish_pool(parts.bus, replace(old, superseded=True))
    assert scheduler.service.replica is not None
    directory = scheduler.service.replica.directory
    await until(lambda: old.id in directory.pools and new.id in directory.pools, "known pools")
    await fire(parts.bus, due_now(old))
    await acted(scheduler)
    assert await waiting(parts.bus, old) == []
    assert len(await waiting(parts.bus, new)) == 1


async def test_a_firing_of_a_schedule_that_was_replaced_does_nothing(parts: Parts) -> None:
    scheduler = await parts.scheduler()
    old = scheduled_pool(MONTHLY)
    new = replace(scheduled_pool(EACH_SECOND), function_id=old.function_id)
    await publish_pool(parts.bus, new)
    await fire(parts.bus, due_now(old))
    await acted(scheduler)
    assert await waiting(parts.bus, new) == []
    assert await nothing_due(parts.bus)


@pytest.mark.parametrize("how", ["stopped", "superseded", "without"])
async def test_a_firing_of_a_function_that_has_no_schedule_now_does_nothing(parts: Parts, how: str) -> None:
    scheduler = await parts.scheduler()
    pool = scheduled_pool(MONTHLY)
    if how == "superseded":
        await publish_pool(parts.bus, replace(pool, superseded=True))
    elif how == "without":
        await publish_pool(parts.bus, replace(pool, spec=replace(pool.spec, schedule=None)))
    await fire(parts.bus, due_now(pool))
    await acted(scheduler)
    assert await waiting(parts.bus, pool) == []
    assert await nothing_due(parts.bus)


@pytest.mark.parametrize("parts", ["memory"], indirect=True)
async def test_a_repeated_firing_is_told_apart_by_what_nats_says_comes_next(parts: Parts) -> None:
    scheduler = await parts.scheduler()
    pool = scheduled_pool(HOURLY)
    await publish_pool(parts.bus, pool)
    for times, upcoming in enumerate(["12:00:00", "13:00:00", "13:00:00"], 1):
        await fire(parts.bus, firing_of(pool), f"2026-11-21T{upcoming}+02:00")
        await acted(scheduler, times=times)
    calls = sorted(chunk.call for chunk in await waiting(parts.bus, pool))
    at = datetime(2026, 11, 21, 9, tzinfo=UTC).timestamp()  # an hour before what follows
    assert [due_time(call) for call in calls] == [at, at + 3_600]


async def test_a_monthly_firing_sets_the_next_one_once(parts: Parts) -> None:
    scheduler = await parts.scheduler()
    pool = scheduled_pool(MONTHLY)
    await publish_pool(parts.bus, pool)
    due = whole_second()
    anchor = datetime.fromtimestamp(due, UTC)
    anchor = anchor.replace(year=anchor.year - 1, day=min(anchor.day, 28))
    firing = firing_of(pool, anchor=anchor.timestamp(), due=due, armed=due - 1)
    for _ in range(2):
        await fire(parts.bus, firing)
    await acted(scheduler, times=2)
    assert len(await waiting(parts.bus, pool)) == 1
    (timer,) = await timers(parts.bus)
    following = coding.decode(Firing, timer.data)
    assert (following.anchor, following.version) == (firing.anchor, 1)
    assert 0 < following.due - due <= 32 * 86_400
    assert timer.headers["Nats-Schedule"].startswith("@at ")


async def test_a_firing_under_way_leaves_the_timer_of_a_new_deployment(parts: Parts) -> None:
    scheduler = await parts.scheduler()
    pool = scheduled_pool(MONTHLY)
    await publish_pool(parts.bus, pool)
    redeployed = replace(firing_of(pool), version=2)
    await set_timer(parts.bus, redeployed)
    await fire(parts.bus, due_now(pool))
    await acted(scheduler)
    (timer,) = await timers(parts.bus)
    assert coding.decode(Firing, timer.data).version == 2


@pytest.mark.parametrize("data", [b"?", coding.encode(firing_of(scheduled_pool(HOURLY)))])
async def test_what_is_no_firing_is_kept_among_the_dead(parts: Parts, data: bytes) -> None:
    scheduler = await parts.scheduler()
    await parts.bus.store(subjects.schedule_due("main", "sc-1"), data)
    await acted(scheduler)
    assert await nothing_due(parts.bus)
    assert [one async for one in parts.bus.read(streams.DEAD.name, "tm.dead.>")]


@pytest.mark.parametrize("parts", ["nats"], indirect=True)
@pytest.mark.parametrize("declared", [EACH_SECOND, HALF_SECONDS])
async def test_a_period_fires_again_and_again(parts: Parts, declared: Mapping[str, Any]) -> None:
    scheduler = await parts.scheduler()
    pool = scheduled_pool(dict(declared))
    await publish_pool(parts.bus, pool)
    began = time.time()
    await set_timer(parts.bus, firing_of(pool))
    armed = time.time()
    await acted(scheduler, times=2)
    first, second, *_ = await due_times(parts.bus, pool)
    period = float(declared["seconds"])
    queued = [one async for one in parts.bus.read(pool.stream, subjects.pool_inputs(pool.prefix))]
    latest = max(armed + period, queued[0].time)  # a server that was held up goes on from there
    assert began + period - 0.9 <= first <= latest + 0.9  # a server may round to the second
    assert second - first >= period - 0.9


@pytest.mark.parametrize("parts", ["nats"], indirect=True)
async def test_a_cron_fires_at_its_minute(parts: Parts) -> None:
    scheduler = await parts.scheduler()
    pool = scheduled_pool(EACH_SECOND)
    await publish_pool(parts.bus, pool)
    timer = schedules.timer(firing_of(pool), time.time())
    headers = {**timer.headers, "Nats-Schedule": "* * * * * *", "Nats-Schedule-Time-Zone": "Asia/Kolkata"}
    await parts.bus.store(timer.subject, timer.data, headers=headers)  # a minute of one second
    await acted(scheduler, times=2)
    assert len(await waiting(parts.bus, pool)) >= 2


@pytest.mark.parametrize("parts", ["nats"], indirect=True)
@pytest.mark.parametrize("declared", [EACH_SECOND, HALF_SECONDS])
async def test_what_was_missed_while_the_broker_was_down_is_fired_once(
    parts: Parts, declared: Mapping[str, Any]
) -> None:
    pool = scheduled_pool(dict(declared))
    await publish_pool(parts.bus, pool)
    await set_timer(parts.bus, firing_of(pool))
    killed = time.time()
    back = await parts.restart_broker(down=4.0)
    await parts.scheduler()

    async def since() -> list[float]:
        return [each for each in await due_times(parts.bus, pool) if each > killed]

    async def goes_on() -> bool:
        return len(await since()) >= 2

    await until(goes_on, "two firings")
    _missed, following, *_ = await since()
    assert following > back - 0.6  # a server may round to the second


@pytest.mark.parametrize("parts", ["nats"], indirect=True)
async def test_nobody_needs_to_be_there_when_a_schedule_fires(parts: Parts) -> None:
    scheduler = await parts.scheduler()
    pool = scheduled_pool(EACH_SECOND)
    await publish_pool(parts.bus, pool)
    await scheduler.kill()
    await set_timer(parts.bus, firing_of(pool))
    await parts.stored(streams.TIMERS.name, subjects.schedule_due(pool.workspace, firing_of(pool).schedule))
    heir = await parts.scheduler()
    await acted(heir)
    assert await waiting(parts.bus, pool)
