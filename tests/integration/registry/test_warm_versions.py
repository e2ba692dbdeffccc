"""What the registry has made ready before a version serves: the sets of options and parameters, too."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from tidemill._bus.protocol import Message
from tidemill._wire import coding, subjects
from tidemill._wire.control import FunctionHandle
from tidemill._wire.deploying import AppDeployed, DeployApp, RollbackApp
from tidemill._wire.scheduling import CountReady, MakeReady, ReadyCounts
from tidemill._wire.specs import ClassSpec, FunctionSpec, MethodSpec, Parameter, Pool
from tidemill._wire.variants import Changes, GetUrlVariant, GetVariant

Client = Any  # see conftest


class Scheduler:
    """Says what is warm, and notes what is to be: the pools as they are told at that moment."""

    def __init__(self, client: Client) -> None:
        self.ready: dict[str, int] = {}
        self.wanted: list[dict[str, int]] = []
        self._client = client
        self._subscriptions: list[Any] = []

    async def start(self) -> None:
        for verb, answer in (("count_ready", self._count), ("make_ready", self._make)):
            subject = subjects.internal("scheduler", verb)
            self._subscriptions.append(await self._client.bus.subscribe(subject, answer))

    async def stop(self) -> None:
        for subscription in self._subscriptions:
            await subscription.close()

    def _count(self, message: Message) -> None:
        asked = coding.decode(CountReady, message.data).pools
        self._answer(message, {pool: self.ready.get(pool, 0) for pool in asked})

    def _make(self, message: Message) -> None:
        wanted = coding.decode(MakeReady, message.data).wanted
        self.wanted.append(wanted)
        self._answer(message, wanted)

    def _answer(self, message: Message, counts: dict[str, int]) -> None:
        self._client.bus.publish(message.reply, coding.encode(ReadyCounts(counts)))


@pytest.fixture
async def scheduler(tenant: Client) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler(tenant)
    await scheduler.start()
    yield scheduler
    await scheduler.stop()


async def deploy(client: Client, *functions: FunctionSpec) -> dict[str, FunctionHandle]:
    deployed = await client.ask("deploy_app", DeployApp("app", functions), AppDeployed)
    return dict(deployed.handles)


async def pool(client: Client, pool_id: str) -> Pool:
    found = await client.pool(pool_id)
    assert found is not None
    return found


async def test_sets_that_are_warm_are_warm_before_a_version_serves(
    tenant: Client, scheduler: Scheduler, spec: Any
) -> None:
    async def ask(base: FunctionHandle, changes: Changes | None = None, **given: str) -> str:
        request = GetVariant(base.pool, given, changes or Changes())
        return str((await tenant.ask("get_variant", request, FunctionHandle)).pool)

    async def of_url(base: FunctionHandle, **given: str) -> str:
        return str(
            (await tenant.ask("get_url_variant", GetUrlVariant(base.pool, given), FunctionHandle)).pool
        )

    sized = ClassSpec((MethodSpec("predict"),), (Parameter("size", "str"),))
    model, patient = replace(spec("Model"), cls=sized), Changes(timeout=99.0)
    first = await deploy(tenant, model, spec("f"))
    large, small = await ask(first["Model"], size="large"), await of_url(first["Model"], size="small")
    slow = await ask(first["f"], patient)
    await ask(first["Model"], size="cold")
    scheduler.ready = {large: 3, small: 1, first["f"].pool: 2, slow: 60}

    second = await deploy(tenant, replace(model, timeout=7.0), spec("f", timeout=7.0))
    (wanted,) = scheduler.wanted
    again = {
        await ask(second["Model"], size="large"): 3,
        await of_url(second["Model"], size="small"): 1,
        second["f"].pool: 2,
        await ask(second["f"], patient): 48,  # 50 of a function
    }
    assert wanted == again
    assert not again.keys() & scheduler.ready.keys()
    for pool_id in again:
        assert not (await pool(tenant, pool_id)).superseded
        assert (await pool(tenant, pool_id)).spec.timeout in (7.0, 99.0)

    # A version before finds its own sets again, and a class that has other parameters has none of them.
    scheduler.ready = dict.fromkeys(again, 1)
    await tenant.ask("rollback_app", RollbackApp("app", version=1), AppDeployed)
    assert scheduler.wanted[1] == {large: 1, small: 1, first["f"].pool: 1, slow: 1}
    scheduler.ready = {large: 1, small: 1}
    named = replace(sized, parameters=(Parameter("name", "str"),))
    await deploy(tenant, replace(model, cls=named), spec("f"))
    assert len(scheduler.wanted) == 2
