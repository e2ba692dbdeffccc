"""The scheduler on a bus, with the worker, the registry and the callers played by the test."""

import time

import pytest
import waiting
from played_parts import Caller, make_pool, publish_pool, until
from running_scheduler import RunningScheduler
from scheduler_stage import Parts

from tidemill._wire import coding, failure, ids, subjects
from tidemill._wire.messages import Outputs, Status
from tidemill._wire.scheduling import GetSchedulerStatus, SchedulerStatus
from tidemill._wire.specs import Autoscaling, Resources
from tidemill_common import lease, streams
from tidemill_scheduler import reconciling

FAILURE = failure.from_text("ExecutionError", "no module named 'nothing'")


def repaired(scheduler: RunningScheduler, kind: str) -> float:
    """Return how often something was repaired; it is counted behind the repair."""
    return scheduler.count("tidemill_scheduler_repairs_total", kind=kind)


async def test_demand_leads_to_a_container(parts: Parts) -> None:
    scheduler, worker = await parts.scheduler(), await parts.worker()
    caller = await parts.caller(make_pool())
    await caller.submit()
    await until(lambda: worker.placements, "a placement")
    (placement,) = worker.placements
    assert placement.pool == caller.pool
    assert placement.term == scheduler.term > 0
    assert not placement.overcommit


async def test_a_pool_gets_a_container_for_each_of_many_inputs_as_far_as_they_fit(parts: Parts) -> None:
    await parts.scheduler()
    worker = await parts.worker(cpu=2.0)
    caller = await parts.caller(make_pool())
    await caller.submit(200)
    await until(lambda: len(worker.placements) == 16, "16 placements")
    assert len({placement.container for placement in worker.placements}) == 16


async def test_a_demand_that_is_ahead_of_its_pool_and_its_input_is_served(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciling, "EVERY", 600.0)  # which finds what rang no bell
    await parts.scheduler()
    worker = await parts.worker()
    pool = make_pool()
    caller = await Caller(parts.bus, pool).start()
    caller.ring()
    await publish_pool(parts.bus, pool)
    await caller.submit(ring=False)
    await until(lambda: worker.placements, "a placement")


async def test_a_refusal_goes_to_the_next_worker(parts: Parts) -> None:
    await parts.scheduler()
    first, second = await parts.worker(cpu=8.0), await parts.worker(cpu=2.0)
    first.refuse = "no disk"
    caller = await parts.caller(make_pool(resources=Resources(cpu=2.0)))
    await caller.submit()
    await until(lambda: second.containers, "a container at the second worker")
    assert len(first.placements) == 1


async def test_silence_goes_to_the_next_worker(parts: Parts) -> None:
    await parts.scheduler()
    first, second = await parts.worker(cpu=8.0), await parts.worker(cpu=2.0)
    first.silent = True
    caller = await parts.caller(make_pool(resources=Resources(cpu=2.0)))
    await caller.submit()
    await until(lambda: second.containers, "a container at the second worker")
    assert first.placements[0].container != second.placements[0].container


async def test_a_draining_worker_gets_nothing_new(parts: Parts) -> None:
    await parts.scheduler()
    first, second = await parts.worker(cpu=8.0), await parts.worker(cpu=2.0)
    first.draining = True
    first.report()
    await first.bus.flush()
    caller = await parts.caller(make_pool())
    await caller.submit(3)
    await until(lambda: second.placements, "a container at the second worker")
    assert not first.placements


async def test_a_lost_workers_inputs_are_handed_back_and_its_containers_placed_again(parts: Parts) -> None:
    scheduler = await parts.scheduler()
    first = await parts.worker(cpu=8.0)
    caller = await parts.caller(make_pool())
    await caller.submit(2)
    await until(lambda: len(first.containers) == 2, "containers at the first worker")
    taken = first.take(caller.pool, 2)
    await until(lambda: len(taken) == 2, "inputs at the first worker")
    first.leases = tuple(delivery.ack_subject for delivery in taken)
    first.set_all("busy")
    await first.bus.flush()
    second = await parts.worker()
    again = second.take(caller.pool, 2)
    await first.lose()
    lost = time.monotonic()
    await until(lambda: len(again) == 2, "the inputs again")
    assert time.monotonic() - lost < 20.0  # their leases run for 30
    assert {delivery.subject for delivery in again} == {delivery.subject for delivery in taken}
    assert all(delivery.redelivered for delivery in again)
    await until(lambda: second.containers, "containers at the second worker")
    await until(lambda: repaired(scheduler, "lost_worker") == 1, "the count")


async def test_a_pool_goes_to_zero_after_its_window(parts: Parts) -> None:
    await parts.scheduler()
    worker = await parts.worker()
    caller = await parts.caller(make_pool(autoscaling=Autoscaling(scaledown_window=0.5)))
    await caller.submit(3)
    await until(lambda: len(worker.containers) == 3, "containers")
    idle = min(one.since for one in worker.containers.values())
    await parts.bus.purge(caller.pool.stream, subjects.pool_inputs(caller.pool.prefix))
    await until(lambda: not worker.containers, "no container")
    assert time.time() - idle >= 0.45
    assert all(order.graceful for order in worker.stops)


async def test_the_minimum_is_there_without_any_call_and_again_after_a_loss(parts: Parts) -> None:
    await parts.scheduler()
    worker = await parts.worker()
    pool = make_pool(autoscaling=Autoscaling(min_containers=2, scaledown_window=0.1))
    await publish_pool(parts.bus, pool)
    await until(lambda: len(worker.containers) == 2, "the minimum")
    worker.containers.clear()
    worker.report()
    await until(lambda: len(worker.containers) == 2, "the minimum again")
    assert not worker.stops


async def test_a_worker_that_comes_later_gets_what_waits(parts: Parts) -> None:
    await parts.scheduler()
    caller = await parts.caller(make_pool())
    await caller.submit()
    await until(lambda: caller.troubles, "trouble")
    assert caller.troubles[0].message == "no worker is connected"
    assert not caller.troubles[0].final
    worker = await parts.worker()
    await until(lambda: worker.placements, "a placement")


async def test_callers_hear_soon_what_no_worker_has(parts: Parts) -> None:
    await parts.scheduler()
    await parts.worker(gpus={"A100": 1})
    caller = await parts.caller(make_pool(resources=Resources(gpus=(("H100", 1),))))
    await caller.submit()
    await until(lambda: caller.troubles, "trouble")
    assert caller.troubles[0].message == "no worker has a GPU of type H100; there are: A100"
    await until(lambda: len(caller.troubles) >= 2, "trouble again")


async def test_a_crash_loop_of_a_running_app_ends_its_inputs_after_three_failures(parts: Parts) -> None:
    await parts.scheduler()
    worker = await parts.worker()
    worker.ready_at_once = False
    caller = await parts.caller(make_pool())
    await caller.submit(2)
    await until(lambda: len(worker.starting) == 2, "both to start")
    while not any(trouble.final for trouble in caller.troubles):
        await until(lambda: worker.starting or caller.troubles, "a start or trouble")
        await worker.fail_start(FAILURE)
    assert len(worker.rounds) == 3
    assert caller.troubles[-1].failure == FAILURE
    assert "no module named 'nothing'" in caller.troubles[-1].message
    await until(lambda: caller.troubles[-1].final, "the end")
    for index in range(2):
        stored = await parts.stored("RESULTS_main", subjects.result("main", caller.call, index))
        outputs = coding.decode(Outputs, stored.data)
        assert outputs.items[0].status == Status.FAILURE
        assert outputs.items[0].payload.data == FAILURE
    await parts.empty(caller.pool)


async def test_an_image_that_cannot_be_made_is_not_tried_again(parts: Parts) -> None:
    await parts.scheduler()
    worker = await parts.worker()
    worker.ready_at_once = False
    caller = await parts.caller(make_pool())
    await caller.submit()
    await until(lambda: worker.starting, "a start")
    await worker.fail_start(FAILURE, final=True)
    await until(lambda: caller.troubles, "trouble")
    assert caller.troubles[0].final
    await parts.empty(caller.pool)
    assert len(worker.rounds) == 1


async def test_attached_callers_of_a_crash_loop_get_their_outputs(parts: Parts) -> None:
    await parts.scheduler()
    worker = await parts.worker()
    worker.ready_at_once = False
    caller = await parts.caller(make_pool(), reply=subjects.replies("main", ids.new(ids.CALLER)))
    await caller.submit(2)
    await until(lambda: worker.starting, "a start")
    await worker.fail_start(FAILURE, final=True)
    await parts.empty(caller.pool)
    outputs = [
        coding.decode(Outputs, stored.data) async for stored in parts.bus.read("REPLIES_main", caller.reply)
    ]
    assert {output.items[0].index for output in outputs} == {0, 1}
    assert {output.items[0].status for output in outputs} == {Status.FAILURE}


async def test_a_crash_loop_of_a_deployed_app_is_told_and_tried_again(parts: Parts) -> None:
    await parts.scheduler()
    worker = await parts.worker()
    worker.ready_at_once = False
    caller = await parts.caller(make_pool(deployed=True))
    await caller.submit()
    for _ in range(4):
        await until(lambda: worker.starting, "a start")
        await worker.fail_start(FAILURE)
    await until(lambda: caller.troubles, "trouble")
    assert not caller.troubles[0].final
    worker.ready_at_once = True
    await until(lambda: worker.containers, "another start")


async def test_a_container_that_ends_without_a_word_counts_as_a_failed_start(parts: Parts) -> None:
    await parts.scheduler()
    worker = await parts.worker()
    worker.ready_at_once = False
    caller = await parts.caller(make_pool())
    await caller.submit()
    while not caller.troubles:
        await until(lambda: worker.starting or caller.troubles, "a start or trouble")
        worker.containers.clear()
        worker.report()
    assert caller.troubles[0].final
    assert len(worker.placements) == 3


async def test_a_pool_that_is_gone_is_stopped_and_emptied(parts: Parts) -> None:
    await parts.scheduler()
    worker = await parts.worker()
    caller = await parts.caller(make_pool())
    await caller.submit(3)
    await until(lambda: len(worker.containers) == 3, "containers")
    await parts.bus.bucket(streams.POOLS).delete(caller.pool.id)
    await until(lambda: not worker.containers, "no container")
    assert not worker.stops[0].graceful
    await parts.empty(caller.pool)
    stored = await parts.stored("RESULTS_main", subjects.result("main", caller.call, 2))
    assert coding.decode(Outputs, stored.data).items[0].status == Status.CANCELLED
    caller.ring()
    await until(lambda: caller.troubles, "trouble")
    assert caller.troubles[0].final
    assert caller.troubles[0].message == "the app app has stopped"


async def test_idle_containers_of_others_make_room(parts: Parts) -> None:
    await parts.scheduler()
    worker = await parts.worker(cpu=1.0)
    hoarder = await parts.caller(make_pool(resources=Resources(cpu=0.5)))
    await hoarder.submit(2)
    await until(lambda: len(worker.containers) == 2, "a full worker")
    await parts.bus.purge(hoarder.pool.stream, subjects.pool_inputs(hoarder.pool.prefix))
    caller = await parts.caller(make_pool(resources=Resources(cpu=0.5)))
    await caller.submit(2)
    await until(lambda: worker.running(caller.pool) == 2, "containers of the other pool")
    assert worker.placements[2].overcommit
    assert worker.running(hoarder.pool) == 0


async def test_containers_of_a_pool_that_was_never_known_are_stopped(parts: Parts) -> None:
    scheduler = await parts.scheduler()
    worker = await parts.worker()
    pool = make_pool()
    worker.pools[pool.id] = pool
    worker.set("co-orphan", pool.id, "busy")
    await until(lambda: not worker.containers, "no container")
    await until(lambda: repaired(scheduler, "orphans") >= 1, "the count")


async def test_an_accepted_placement_that_never_appears_is_decided_again(parts: Parts) -> None:
    scheduler = await parts.scheduler()
    worker = await parts.worker()
    worker.forgetful = True
    caller = await parts.caller(make_pool())
    await caller.submit()
    await until(lambda: worker.placements, "a placement")
    worker.forgetful = False
    await until(lambda: worker.containers, "another placement")
    await until(lambda: repaired(scheduler, "lost_placement") == 1, "the count")


async def test_inputs_that_rang_no_bell_are_found(parts: Parts) -> None:
    scheduler = await parts.scheduler()
    worker = await parts.worker()
    caller = await parts.caller(make_pool())
    await caller.submit(ring=False)
    await until(lambda: worker.placements, "a placement")
    await until(lambda: repaired(scheduler, "unheard") == 1, "the count")


async def test_the_status_tells_of_pools_and_workers(parts: Parts) -> None:
    scheduler = await parts.scheduler()
    worker = await parts.worker()
    caller = await parts.caller(make_pool())
    await caller.submit(2)
    await until(lambda: len(worker.containers) == 2, "containers")
    worker.leases = ("$JS.ACK.1",)
    worker.report()
    await worker.bus.flush()

    async def told() -> SchedulerStatus | None:
        """Return the status once it tells of both containers."""
        asked = coding.encode(GetSchedulerStatus())
        data = await parts.bus.request(subjects.scheduler("main", "status"), asked)
        status = coding.decode(SchedulerStatus, data)
        return status if [pool.ready for pool in status.pools] == [2] else None

    status = await waiting.until(told)
    assert status.term == scheduler.term
    (pool,) = status.pools
    assert (pool.pool, pool.desired, pool.backlog) == (caller.pool.id, 2, 2)
    (seen,) = status.workers
    assert (seen.worker, seen.leases) == (worker.id, ())


async def test_a_follower_takes_over_from_a_killed_leader_and_places_nothing_twice(parts: Parts) -> None:
    leader = await parts.scheduler()
    follower = await parts.scheduler(leads=False)
    worker = await parts.worker()
    caller = await parts.caller(make_pool(resources=Resources(cpu=0.5)))
    await caller.submit(2)
    await until(lambda: len(worker.containers) == 2, "containers")
    term = leader.term
    await leader.kill()
    await caller.submit(3)  # the bell is heard by nobody
    await follower.lead()
    assert follower.term > term
    await until(lambda: len(worker.containers) == 3, "the third container")
    assert worker.placements[-1].term == follower.term
    for _ in range(3):  # a second decision would come with the next report
        worker.report()
        await worker.bus.flush()
        await parts.bus.request(subjects.scheduler("main", "status"), coding.encode(GetSchedulerStatus()))
    assert len(worker.placements) == 3


async def test_a_leader_that_is_stopped_is_followed_before_its_lease_runs_out(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "TTL", 600.0)
    monkeypatch.setattr(lease, "ATTEMPT", 30.0)
    leader = await parts.scheduler()
    follower = await parts.scheduler(leads=False)
    await leader.stop()
    await follower.lead()


async def test_a_restarted_scheduler_hands_back_what_a_worker_lost_meanwhile_held(parts: Parts) -> None:
    scheduler = await parts.scheduler()
    worker = await parts.worker()
    caller = await parts.caller(make_pool())
    await caller.submit()
    await until(lambda: worker.containers, "a container")
    taken = worker.take(caller.pool, 1)
    await until(lambda: taken, "the input")
    worker.leases = (taken[0].ack_subject,)
    worker.set_all("busy")
    await parts.bus.bucket(streams.WORKERS).put(worker.id, coding.encode(worker.state()))
    await scheduler.stop()
    await worker.lose()
    await parts.scheduler()
    other = await parts.worker()
    again = other.take(caller.pool, 1)
    await until(lambda: again, "the input again")


@pytest.mark.parametrize("parts", ["nats"], indirect=True)
async def test_a_broker_that_was_away_kills_no_worker(parts: Parts) -> None:
    scheduler = await parts.scheduler()
    worker = await parts.worker()
    caller = await parts.caller(make_pool())
    await caller.submit()
    await until(lambda: worker.containers, "a container")
    await parts.restart_broker()
    await caller.submit(4)
    await until(lambda: len(worker.containers) == 4, "more containers")
    assert repaired(scheduler, "lost_worker") == 0
    assert len(worker.placements) == 4
