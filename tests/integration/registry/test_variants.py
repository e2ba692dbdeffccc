"""Variants: pools of their own for each set of options and parameters."""

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import text
from stored_records import Records, spec
from waiting import until

from tidemill._wire import coding
from tidemill._wire.control import FunctionHandle, GetFunction
from tidemill._wire.deploying import RollbackApp
from tidemill._wire.specs import ClassSpec, FunctionSpec, MethodSpec, Parameter, Pool
from tidemill._wire.variants import Changes, GetVariant
from tidemill.exception import ConflictError, InvalidError, NotFoundError, ResourceExhaustedError
from tidemill_registry import deployments, lookups, variants
from tidemill_registry.database import database_clock

CLASS = ClassSpec(
    (MethodSpec("predict"), MethodSpec("stream", is_generator=True)),
    (Parameter("size", "str"), Parameter("n", "int", False, 3)),
)
OTHER = Changes(cpu=(2.0, None), max_containers=2, timeout=9.0)


def model(**fields: object) -> FunctionSpec:
    return replace(spec("Model"), cls=CLASS, **fields)


async def ask(records: Records, base: FunctionHandle, changes: Changes | None = None, **given: object) -> str:
    request = GetVariant(base.pool, given, changes or Changes())
    handle, _ = await variants.get(records.engine, records.workspace, request, database_clock)
    assert handle.function_id == base.function_id
    assert (await pool(records, handle.pool)).prefix == handle.prefix
    return handle.pool


async def of_url(records: Records, base: FunctionHandle, size: str) -> str:
    request = GetVariant(base.pool, {"size": size})
    handle, _ = await variants.get(records.engine, records.workspace, request, database_clock, of_url=True)
    return handle.pool


async def refused(records: Records, base: FunctionHandle, size: str) -> str:
    with pytest.raises(ResourceExhaustedError) as caught:
        await of_url(records, base, size)
    return str(caught.value)


async def somebody_waits(records: Records) -> None:
    """Return when a transaction waits for a row that another one has changed."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%pools%'"
    await until(lambda: records.sql(waiting))


async def pool(records: Records, pool_id: str) -> Pool:
    return coding.decode(Pool, await records.sql("SELECT record FROM pools WHERE id = :id", id=pool_id))


async def test_equal_parameters_and_options_are_one_pool(records: Records) -> None:
    base = (await records.deploy(model())).handles["Model"]
    large = await ask(records, base, size="large")
    assert await ask(records, base, size="large") == large
    found = await pool(records, large)
    assert (found.spec.parameters, found.variant_of) == ({"size": "large"}, base.pool)
    other = await ask(records, base, OTHER, size="large")
    assert len({base.pool, large, other, await ask(records, base, size="small")}) == 4
    spec_ = (await pool(records, other)).spec
    assert (spec_.resources.cpu, spec_.timeout, spec_.autoscaling.max_containers) == (2.0, 9.0, 2)


async def test_a_variant_of_a_variant_is_one_of_their_base(records: Records) -> None:
    base = (await records.deploy(model())).handles["Model"]
    request = GetVariant(base.pool, {"size": "large"})
    handle, _ = await variants.get(records.engine, records.workspace, request, database_clock)
    assert await variants.given(records.engine, base.function_id, handle.pool) == request
    assert await variants.given(records.engine, base.function_id, base.pool) is None
    with pytest.raises(NotFoundError):
        await variants.given(records.engine, "fu-other", handle.pool)
    further = await ask(records, handle, OTHER)
    assert further == await ask(records, base, OTHER, size="large")


async def test_an_option_that_is_the_declared_one_makes_no_other_pool(records: Records) -> None:
    base = (await records.deploy(spec("f", timeout=9.0))).handles["f"]
    assert await ask(records, base, Changes(timeout=9.0)) == base.pool


@pytest.mark.parametrize(
    ("given", "changes", "message"),
    [
        ({}, Changes(), "lacks the parameter 'size'"),
        ({"size": 1}, Changes(), "expected str"),
        ({"size": "s", "other": 1}, Changes(), "unexpected keyword argument 'other'"),
        ({"size": "s", "n": 3}, Changes(), "is its default"),
        ({"size": "s"}, Changes(timeout=-1.0), "timeout must be above 0"),
    ],
)
async def test_what_cannot_be_a_variant(
    records: Records, given: dict[str, object], changes: Changes, message: str
) -> None:
    base = (await records.deploy(model())).handles["Model"]
    with pytest.raises(InvalidError, match=message):
        await ask(records, base, changes, **given)


async def test_a_variant_is_repeated_for_another_base_and_takes_nobodys_room(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = (await records.deploy(model())).handles["Model"]
    second = (await records.deploy(model(timeout=7.0))).handles["Model"]
    base = await pool(records, second.pool)

    async def repeat(of_url: bool, **given: object) -> str | None:
        earlier = GetVariant(first.pool, given)
        async with records.engine.begin() as connection:
            return await variants.repeat(connection, base, earlier, database_clock, of_url=of_url)

    small = await of_url(records, first, "small")
    monkeypatch.setattr(variants, "MAX_OF_URLS", 2)
    again = await repeat(of_url=True, size="small")
    assert again not in (None, small)
    assert await repeat(of_url=True, size="small") == again == await of_url(records, second, "small")
    assert await repeat(of_url=True, size="large") is None
    assert await repeat(of_url=False, size="large") == await ask(records, second, size="large")
    assert await repeat(of_url=False, colour="red") is None
    assert {small, again} == {await of_url(records, each, "small") for each in (first, second)}


async def test_variants_go_along_with_their_base(records: Records) -> None:
    base = (await records.deploy(model())).handles["Model"]
    large = await ask(records, base, size="large")
    await records.deploy(model(timeout=7.0))
    assert (await pool(records, large)).superseded
    back = RollbackApp("app", version=1)
    await deployments.roll_back(records.engine, records.workspace, back, database_clock)
    assert not (await pool(records, large)).superseded
    told = "SELECT count(*) FROM outbox WHERE kind = 'put' AND key = :id"
    assert await records.sql(told, id=large) == 3


async def test_a_stopped_app_has_no_variants(records: Records) -> None:
    deployed = await records.deploy(model())
    stopped = "UPDATE apps SET state = 'stopped', stopped_at = now() WHERE id = :id"
    await records.sql(stopped, id=deployed.app_id)
    with pytest.raises(ConflictError, match="is stopped"):
        await ask(records, deployed.handles["Model"], size="s")
    request = GetVariant("po-none")
    with pytest.raises(NotFoundError, match="there is no pool"):
        await variants.get(records.engine, records.workspace, request, database_clock)


async def test_variants_are_bounded_and_go_when_nobody_asks(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "MAX_VARIANTS", 2)
    base = (await records.deploy(model())).handles["Model"]
    old, new = await ask(records, base, size="a"), await ask(records, base, size="b")
    with pytest.raises(ResourceExhaustedError, match="2 sets of options and parameters"):
        await ask(records, base, size="c")
    for name in (old, new):
        await records.sql("UPDATE pools SET asked_at = now() - interval '8 days' WHERE id = :id", id=name)
    assert await ask(records, base, size="b") == new  # asked for again: it stays
    while await variants.forget(records.engine, database_clock):
        pass
    left = "SELECT string_agg(id, ' ') FROM pools WHERE variant_of = :id"
    assert await records.sql(left, id=base.pool) == new
    gone = "SELECT count(*) FROM outbox WHERE kind = 'delete' AND key = :id"
    assert await records.sql(gone, id=old) == 1
    assert await ask(records, base, size="c") != old


async def test_sets_of_urls_are_few_and_idle_ones_make_room(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "MAX_OF_URLS", 2)
    base = (await records.deploy(model())).handles["Model"]

    async def is_gone(pool: str) -> bool:
        told = "SELECT count(*) FROM outbox WHERE kind = 'delete' AND key = :id"
        return bool(await records.sql(told, id=pool))

    first, second = await of_url(records, base, "a"), await of_url(records, base, "b")
    assert await of_url(records, base, "a") == first
    with pytest.raises(ResourceExhaustedError, match="in use with 2 sets of parameters from URLs"):
        await of_url(records, base, "c")
    assert await ask(records, base, size="sdk") not in (first, second)  # callers have a bound of their own
    for idle in (first, second):
        await records.sql("UPDATE pools SET asked_at = now() - interval '61 s' WHERE id = :id", id=idle)
    assert await of_url(records, base, "b") == second  # asked for again: it stays
    third = await of_url(records, base, "c")
    assert (await is_gone(first), await is_gone(second)) == (True, False)
    with pytest.raises(ResourceExhaustedError):
        await of_url(records, base, "a")

    await records.sql("UPDATE pools SET asked_at = now() - interval '61 s' WHERE id = :id", id=third)
    assert await ask(records, base, size="c") == third  # now it is a caller's, and stays
    assert await of_url(records, base, "a") != first
    assert not await is_gone(third)


async def test_requests_for_sets_at_the_same_time_keep_the_bound(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "MAX_OF_URLS", 3)
    base = (await records.deploy(model())).handles["Model"]

    sizes = [str(number % 5) for number in range(15)]
    asked = (of_url(records, base, size) for size in sizes)
    got = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(each) for each in got} == {str, ResourceExhaustedError}
    assert len({each for each in got if isinstance(each, str)}) == 3
    held = "SELECT count(*) FROM pools WHERE of_url AND variant_of = :id"
    assert await records.sql(held, id=base.pool) == 3


async def test_a_set_that_is_asked_for_while_another_wants_its_room_stays(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "MAX_OF_URLS", 1)
    base = (await records.deploy(model())).handles["Model"]
    first = await of_url(records, base, "a")
    await records.sql("UPDATE pools SET asked_at = now() - interval '61 s' WHERE id = :id", id=first)
    async with asyncio.TaskGroup() as tasks, records.engine.begin() as other:
        await other.execute(text("UPDATE pools SET asked_at = now() WHERE id = :id"), {"id": first})
        wanted = tasks.create_task(refused(records, base, "b"))
        await somebody_waits(records)
    assert "in use with 1 sets" in wanted.result()
    assert await of_url(records, base, "a") == first


async def test_a_set_that_goes_while_it_is_asked_for_is_made_again(records: Records) -> None:
    base = (await records.deploy(model())).handles["Model"]
    first = await of_url(records, base, "a")
    await records.sql("UPDATE pools SET asked_at = now() - interval '61 s' WHERE id = :id", id=first)
    async with asyncio.TaskGroup() as tasks, records.engine.begin() as other:
        await other.execute(text("DELETE FROM pools WHERE id = :id"), {"id": first})
        wanted = tasks.create_task(of_url(records, base, "a"))
        await somebody_waits(records)
    assert wanted.result() != first
    assert (await pool(records, wanted.result())).spec.parameters == {"size": "a"}


async def test_a_method_of_a_class_without_required_parameters_is_found_by_name(records: Records) -> None:
    plain = replace(model(), name="Plain", cls=replace(CLASS, parameters=()))
    await records.deploy(model(), plain)

    async def find(name: str) -> FunctionHandle:
        request = GetFunction("app", name)
        return (await lookups.get_function(records.engine, records.workspace, request))[0]

    found = await find("Plain.stream")
    assert (found.name, found.method, found.is_generator) == ("Plain.stream", "stream", True)
    with pytest.raises(NotFoundError, match="no method 'nothing'"):
        await find("Plain.nothing")
    with pytest.raises(InvalidError, match="Model needs parameters"):
        await find("Model.predict")
