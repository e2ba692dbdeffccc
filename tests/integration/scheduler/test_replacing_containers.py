"""New versions and generations: what happens to the containers that are there."""

from dataclasses import replace

from played_parts import make_pool, publish_pool, until
from scheduler_stage import Parts

from tidemill._wire import ids
from tidemill._wire.specs import Autoscaling, Pool

MINIMUM = Autoscaling(min_containers=2)


def versions(scaling: Autoscaling) -> tuple[Pool, Pool]:
    """Return the pools of two versions of one deployed function."""
    function = ids.new(ids.FUNCTION)
    one = make_pool(deployed=True, autoscaling=scaling)
    two = make_pool(deployed=True, autoscaling=scaling)
    return replace(one, function_id=function), replace(two, function_id=function)


async def test_an_earlier_version_goes_when_the_new_one_has_its_minimum(parts: Parts) -> None:
    await parts.scheduler()
    worker = await parts.worker()
    old, new = versions(MINIMUM)
    await publish_pool(parts.bus, old)
    await until(lambda: worker.running(old) == 2, "two containers")
    worker.ready_at_once = False
    await publish_pool(parts.bus, new)
    await publish_pool(parts.bus, replace(old, superseded=True))
    await until(lambda: len(worker.starting) == 2, "two more")
    assert worker.running(old) == 2
    for one in list(worker.starting):
        worker.set(one.container, one.pool, "idle")
    await until(lambda: worker.running(old) == 0, "none of the old version")
    assert worker.running(new) == 2
    assert all(order.graceful for order in worker.stops)


async def test_recreate_stops_the_busy_ones_of_an_earlier_version(parts: Parts) -> None:
    await parts.scheduler()
    worker = await parts.worker()
    old, new = versions(MINIMUM)
    await publish_pool(parts.bus, old)
    await until(lambda: worker.running(old) == 2, "two containers")
    worker.set_all("busy")
    await publish_pool(parts.bus, replace(new, strategy="recreate"))
    await publish_pool(parts.bus, replace(old, superseded=True, strategy="recreate"))
    await until(lambda: worker.running(old) == 0 and worker.running(new) == 2, "only the new version")
    assert not any(order.graceful for order in worker.stops)


async def test_what_recreate_interrupted_runs_again_in_its_own_version(parts: Parts) -> None:
    await parts.scheduler()
    worker = await parts.worker()
    old, new = versions(Autoscaling())
    caller = await parts.caller(old)
    await caller.submit()
    await until(lambda: worker.running(old) == 1, "a container")
    taken = worker.take(old, 1)
    await until(lambda: taken, "its input")
    worker.set_all("busy")
    (first,) = worker.containers
    await publish_pool(parts.bus, replace(new, strategy="recreate"))
    await publish_pool(parts.bus, replace(old, superseded=True, strategy="recreate"))
    await until(lambda: first not in worker.containers, "the end of the container")
    await until(lambda: worker.running(old) == 1, "another container of the old version")
    (second,) = worker.containers.values()
    assert second.superseded
    assert worker.running(new) == 0


async def test_an_earlier_version_still_starts_for_its_callers_and_goes_to_zero(parts: Parts) -> None:
    await parts.scheduler()
    worker = await parts.worker()
    old, new = versions(Autoscaling(min_containers=1, scaledown_window=2.0))
    await publish_pool(parts.bus, new)
    caller = await parts.caller(replace(old, superseded=True))
    await until(lambda: worker.running(new) == 1, "the new version")
    assert worker.running(old) == 0
    await caller.submit()
    await until(lambda: worker.running(old) == 1, "a container for the pinned caller")
    taken = worker.take(old, 1)
    await until(lambda: taken, "its input")
    await taken[0].ack()
    await until(lambda: worker.running(old) == 0, "its end")
    assert worker.running(new) == 1


async def test_a_rollover_replaces_every_container_though_the_leader_changes(parts: Parts) -> None:
    leader = await parts.scheduler()
    worker = await parts.worker()
    pool = make_pool(deployed=True, autoscaling=MINIMUM)
    await publish_pool(parts.bus, pool)
    await until(lambda: worker.running(pool) == 2, "two containers")
    before = set(worker.containers)
    worker.ready_at_once = False
    await publish_pool(parts.bus, replace(pool, generation=1))
    await until(lambda: worker.starting, "the first new one")
    assert before <= set(worker.containers)
    await leader.kill()
    await parts.scheduler()
    worker.ready_at_once = True
    for one in list(worker.starting):
        worker.set(one.container, one.pool, "idle")
    await until(lambda: not before & set(worker.containers), "none of the old generation")
    await until(lambda: worker.running(pool) == 2, "two containers")
    assert {one.generation for one in worker.containers.values()} == {1}


async def test_a_recreating_rollover_starts_after_all_have_gone(parts: Parts) -> None:
    await parts.scheduler()
    worker = await parts.worker()
    pool = make_pool(deployed=True, autoscaling=MINIMUM)
    await publish_pool(parts.bus, pool)
    await until(lambda: worker.running(pool) == 2, "two containers")
    before = set(worker.containers)
    await publish_pool(parts.bus, replace(pool, generation=1, strategy="recreate"))
    await until(lambda: worker.running(pool) == 2 and not before & set(worker.containers), "two new ones")
    assert not any(order.graceful for order in worker.stops)


async def test_a_minimum_is_kept_after_everything_restarted(parts: Parts) -> None:
    leader, worker = await parts.scheduler(), await parts.worker()
    pool = make_pool(deployed=True, autoscaling=MINIMUM)
    await publish_pool(parts.bus, pool)
    await until(lambda: worker.running(pool) == 2, "two containers")
    await leader.kill()
    await worker.lose()
    await parts.scheduler()
    heir = await parts.worker()
    await until(lambda: heir.running(pool) == 2, "two containers again")
