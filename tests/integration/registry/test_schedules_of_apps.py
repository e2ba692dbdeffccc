"""Schedules of deployed apps: the timers that NATS holds, and their listing."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from tidemill._bus.protocol import RequestFailed, Stored
from tidemill._wire import coding, subjects
from tidemill._wire.control import Done
from tidemill._wire.deploying import AppDeployed, DeployApp, RollbackApp, StopDeployed
from tidemill._wire.schedules import Fired, Firing, ListSchedules, ScheduleInfo, ScheduleList
from tidemill._wire.specs import FunctionSpec
from tidemill_common import streams

Spec = Callable[..., FunctionSpec]
CRON = {"kind": "cron", "cron": "0 9 * * 1", "timezone": "Asia/Tokyo"}
DAILY = {"kind": "period", "days": 1}
MONTHLY = {"kind": "period", "months": 1}


@pytest.fixture
def client(tenant: Any) -> Any:
    """Each test has a workspace of its own on a registry that they share."""
    return tenant


async def deploy(client: Any, *functions: FunctionSpec, name: str = "app") -> AppDeployed:
    answer: AppDeployed = await client.ask("deploy_app", DeployApp(name, functions), AppDeployed)
    return answer


async def timers(client: Any) -> dict[str, Stored]:
    """Return what waits in the workspace, by the name of its schedule."""
    stored = [one async for one in client.bus.read(streams.TIMERS.name, subjects.ALL_SCHEDULES)]
    named = {subjects.schedule_of(one.subject): one for one in stored}
    return {
        name: one
        for name, one in named.items()
        if one.subject == subjects.schedule_timer(client.workspace, name)
    }


async def listed(client: Any, **fields: Any) -> tuple[ScheduleInfo, ...]:
    answer: ScheduleList = await client.ask("list_schedules", ListSchedules(**fields), ScheduleList)
    return answer.schedules


async def test_a_deployment_sets_the_timers_of_its_functions(client: Any, spec: Spec) -> None:
    deployed = await deploy(client, spec("a", schedule=CRON), spec("b", schedule=MONTHLY), spec("c"))
    firings = [coding.decode(Firing, one.data) for one in (await timers(client)).values()]
    by_function = {firing.function_id: firing for firing in firings}
    assert {name: handle.function_id in by_function for name, handle in deployed.handles.items()} == {
        "a": True,
        "b": True,
        "c": False,
    }
    assert by_function[deployed.handles["a"].function_id].pool == deployed.handles["a"].pool


async def test_a_cron_keeps_its_timer_and_a_period_counts_anew(client: Any, spec: Spec) -> None:
    await deploy(client, spec("a", schedule=CRON), spec("b", schedule=DAILY))
    before = await timers(client)
    await deploy(client, spec("a", schedule=CRON, timeout=7.0), spec("b", schedule=DAILY))
    after = await timers(client)
    assert before.keys() == after.keys()
    declared = {coding.decode(Firing, one.data).declared["kind"]: name for name, one in after.items()}
    assert after[declared["cron"]].sequence == before[declared["cron"]].sequence
    assert after[declared["period"]].sequence > before[declared["period"]].sequence
    assert coding.decode(Firing, after[declared["period"]].data).version == 2


async def test_deploying_the_same_again_leaves_all_timers(client: Any, spec: Spec) -> None:
    await deploy(client, spec("a", schedule=DAILY))
    before = await timers(client)
    assert (await deploy(client, spec("a", schedule=DAILY))).skipped
    assert await timers(client) == before


async def test_timers_go_with_their_schedule_function_or_app(client: Any, spec: Spec) -> None:
    await deploy(client, spec("a", schedule=CRON), spec("b", schedule=DAILY), spec("c", schedule=MONTHLY))
    assert len(await timers(client)) == 3
    await deploy(client, spec("a", schedule=None), spec("c", schedule=MONTHLY))
    (last,) = (await timers(client)).values()
    assert coding.decode(Firing, last.data).declared == MONTHLY
    await client.ask("rollback_app", RollbackApp("app"), AppDeployed)
    assert len(await timers(client)) == 3
    await client.ask("stop_deployed", StopDeployed("app"), Done)
    assert await timers(client) == {}


async def test_schedules_of_an_ephemeral_app_wait_while_it_runs(client: Any, spec: Spec) -> None:
    app = await client.create()
    await client.publish(app, spec("a", schedule=DAILY))
    assert len(await timers(client)) == 1
    await client.stop(app)
    assert await timers(client) == {}


async def test_a_listing_tells_when_schedules_fire_and_fired(client: Any, spec: Spec) -> None:
    await deploy(client, spec("a", schedule=CRON), spec("b", schedule=DAILY))
    first, second = await listed(client, environment="main", app="app")
    assert (first.function, first.text) == ("a", 'Cron("0 9 * * 1", timezone="Asia/Tokyo")')
    assert (second.function, second.text) == ("b", "Period(days=1)")
    assert first.next is not None
    assert 0 < first.next - time.time() <= 7 * 86_400
    assert (first.next - 4 * 86_400) % (7 * 86_400) == 0  # Monday 00:00 UTC
    assert second.next == pytest.approx(time.time() + 86_400, abs=60)
    assert (first.last, first.last_call) == (None, "")
    now = time.time()
    fired = Fired(second.schedule_id, now, "fc-1", now + 5_000)
    await client.bus.bucket(streams.FIRINGS).put(second.schedule_id, coding.encode(fired))
    (again,) = await listed(client, limit=1, cursor=(await page(client)).cursor)
    assert (again.last, again.last_call, again.next) == (now, "fc-1", now + 5_000)


async def page(client: Any) -> ScheduleList:
    answer: ScheduleList = await client.ask("list_schedules", ListSchedules(limit=1), ScheduleList)
    return answer


async def test_timers_that_were_lost_are_set_again_and_strangers_removed(
    client: Any, spec: Spec, start_replica: Any, until: Any
) -> None:
    await deploy(client, spec("a", schedule=CRON), spec("b", schedule=MONTHLY))
    before = {name: coding.decode(Firing, one.data) for name, one in (await timers(client)).items()}
    await client.bus.purge(streams.TIMERS.name, subjects.ALL_SCHEDULES)
    stranger = {
        "Nats-Schedule": "@every 9000s",
        "Nats-Schedule-Target": subjects.schedule_due(client.workspace, "sc-0"),
    }
    await client.bus.store(subjects.schedule_timer(client.workspace, "sc-0"), b"", headers=stranger)
    await start_replica()  # compares first of all

    async def repaired() -> bool:
        return (await timers(client)).keys() == before.keys()

    await until(repaired)
    for name, one in (await timers(client)).items():
        again = coding.decode(Firing, one.data)
        assert (again.due, again.anchor) == (before[name].due, pytest.approx(before[name].anchor))


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        ({"kind": "cron", "cron": "61 * * * *"}, "'61' is no minute"),
        ({"kind": "cron", "cron": "* * * * *", "timezone": "Mars/Olympus"}, "unknown time zone"),
        ({"kind": "sundial"}, "not a schedule"),
    ],
)
async def test_what_is_no_schedule_is_refused(
    client: Any, spec: Spec, schedule: dict[str, Any], told: str
) -> None:
    with pytest.raises(RequestFailed, match=told):
        await deploy(client, spec("a", schedule=schedule))
