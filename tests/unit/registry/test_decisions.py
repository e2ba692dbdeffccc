"""What may be published, and what that makes of an app."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from tidemill._wire import coding
from tidemill._wire.specs import Autoscaling, FunctionSpec, Pool, Resources, Source
from tidemill.exception import InvalidError
from tidemill_registry import decisions, records
from tidemill_registry.decisions import AppState, KnownFunction, KnownPool, Publication, ServedPool

APP = AppState("ap-1", "app", "team", "main", "ephemeral", 0)


def spec(name: str = "f", **fields: Any) -> FunctionSpec:
    return FunctionSpec(name=name, source=Source(module="m", qualname=name), **fields)


def publish(
    app: AppState, known: dict[str, KnownFunction], *functions: FunctionSpec, first_shard: int = 0
) -> Publication:
    numbers = itertools.count(1)
    return decisions.publish(
        app,
        known,
        functions,
        shards=4,
        first_shard=first_shard,
        new_id=lambda prefix: f"{prefix}-v{app.version + 1}n{next(numbers)}",
    )


def after(publication: Publication, known: dict[str, KnownFunction]) -> dict[str, KnownFunction]:
    """Return what the tables hold once a publication was written."""
    result = {}
    names = {**{name: function.id for name, function in known.items()}, **publication.new_functions}
    for name, function_id in names.items():
        before = known[name].pools if name in known else ()
        served = [item for item in publication.served if item.pool.spec.name == name]
        pools = {pool.id: pool for pool in before}
        for pool in before:
            if pool.id in publication.superseded:
                retired = publication.superseded[pool.id]
                pools[pool.id] = replace(
                    pool, record=retired.record, current=False, served_spec=retired.served_spec
                )
        for item in served:
            pools[item.pool.id] = KnownPool(item.pool.id, item.digest, item.record, current=True)
        result[name] = KnownFunction(function_id, name, tuple(pools.values()))
    return result


def publish_twice(
    first: tuple[FunctionSpec, ...], second: tuple[FunctionSpec, ...]
) -> tuple[Publication, Publication]:
    one = publish(APP, {}, *first)
    return one, publish(replace(APP, version=one.version), after(one, {}), *second)


def as_in_version(version: int, item: ServedPool) -> bytes:
    """Return a pool's record but for the version whose neighbours it knows."""
    return records.encode(replace(item.pool, handles_version=version))


# --- publishing


def test_every_function_gets_a_pool_that_knows_its_handle_and_where_the_others_are() -> None:
    publication = publish(APP, {}, spec("f"), spec("g"))
    assert publication.version == 1
    assert set(publication.handles) == {"f", "g"}
    for item in publication.served:
        pool = coding.decode(Pool, item.record)
        assert pool.handles == {pool.spec.name: publication.handles[pool.spec.name]}
        assert pool.handles_version == 1


def test_a_handle_points_at_its_pool() -> None:
    publication = publish(APP, {}, spec("f", timeout=7.0, is_generator=True), first_shard=2)
    pool, handle = publication.served[0].pool, publication.handles["f"]
    assert (handle.pool, handle.prefix, handle.function_id) == (pool.id, pool.prefix, pool.function_id)
    assert (handle.timeout, handle.is_generator) == (7.0, True)
    assert pool.prefix == f"tm.inputs.cpu.2.team.cpu.{pool.id}"
    assert pool.stream == "INPUTS_cpu_2"


def test_functions_spread_over_the_shards() -> None:
    publication = publish(APP, {}, *(spec(f"f{number}") for number in range(8)), first_shard=3)
    assert [item.pool.shard for item in publication.served] == [3, 0, 1, 2, 3, 0, 1, 2]


def test_the_same_again_changes_nothing() -> None:
    first, second = publish_twice((spec("f"), spec("g")), (spec("f"), spec("g")))
    assert second.handles == first.handles
    assert second.version == first.version
    assert not second.new_functions
    assert not second.superseded
    assert not any(item.changed for item in second.served)


def test_the_order_of_mappings_does_not_make_another_pool() -> None:
    one, other = {"a": "1", "b": "2"}, {"b": "2", "a": "1"}
    first, second = publish_twice((spec(env=one),), (spec(env=other),))
    assert second.handles == first.handles


def test_other_options_are_another_pool_of_the_same_function() -> None:
    first, second = publish_twice((spec(timeout=1.0),), (spec(timeout=2.0),))
    assert second.version == 2
    assert second.handles["f"].function_id == first.handles["f"].function_id
    assert second.handles["f"].pool != first.handles["f"].pool
    assert set(second.superseded) == {first.handles["f"].pool}


def test_a_superseded_pool_keeps_no_containers_waiting() -> None:
    kept = Autoscaling(min_containers=3, buffer_containers=2, max_containers=5)
    first, second = publish_twice((spec(autoscaling=kept),), (spec(timeout=2.0),))
    pool = coding.decode(Pool, second.superseded[first.handles["f"].pool].record)
    assert pool.superseded
    assert pool.spec.autoscaling == Autoscaling(max_containers=5)


def test_a_function_that_is_no_longer_there_loses_its_pool() -> None:
    first, second = publish_twice((spec("f"), spec("g")), (spec("f"),))
    assert set(second.superseded) == {first.handles["g"].pool}
    assert set(second.handles) == {"f"}
    assert second.version == 2


def test_going_back_brings_the_earlier_pool_back_as_it_was() -> None:
    waiting = spec(autoscaling=Autoscaling(min_containers=1))
    first = publish(APP, {}, waiting)
    tables = after(first, {})
    second = publish(replace(APP, version=1), tables, spec(timeout=2.0))
    third = publish(replace(APP, version=2), after(second, tables), waiting)
    assert third.version == 3
    assert third.handles == first.handles
    assert as_in_version(1, third.served[0]) == first.served[0].record
    assert third.served[0].changed
    assert set(third.superseded) == {second.handles["f"].pool}


def test_pools_that_stay_know_their_neighbours_of_the_new_version_and_others_those_they_had() -> None:
    first, second = publish_twice((spec("f"),), (spec("f"), spec("g")))
    stayed = next(item for item in second.served if item.pool.spec.name == "f")
    assert stayed.known
    assert stayed.changed
    assert stayed.pool.id == first.handles["f"].pool
    assert coding.decode(Pool, stayed.record).handles_version == 2
    _, second = publish_twice((spec("f"), spec("g")), (spec("f", timeout=7.0), spec("g")))
    (left,) = second.superseded.values()
    assert coding.decode(Pool, left.record).handles_version == 1


def test_records_that_have_the_handles_of_all_are_written_anew() -> None:
    first = publish(APP, {}, spec("f"), spec("g"))
    tables = after(first, {})
    old = {}
    for name, function in tables.items():
        (pool,) = function.pools
        record = replace(pool.serving(), handles=first.handles, handles_version=0)
        old[name] = replace(function, pools=(replace(pool, record=records.encode(record)),))
    again = publish(replace(APP, version=1), old, spec("f"), spec("g"))
    assert again.version == 1
    assert [item.changed for item in again.served] == [True, True]
    assert {item.pool.id: item.record for item in again.served} == {
        item.pool.id: item.record for item in first.served
    }


# --- rolling back and over


def current(known: dict[str, KnownFunction]) -> dict[str, str]:
    """Return the pools that serve, by function."""
    return {name: pool.id for name, function in known.items() for pool in function.pools if pool.current}


def versions_of_two() -> tuple[Publication, Publication, dict[str, KnownFunction]]:
    """Return a first version of f and g, a second one of f alone, and the tables after them."""
    waiting = spec("f", autoscaling=Autoscaling(min_containers=2))
    first = publish(APP, {}, waiting, spec("g"))
    tables = after(first, {})
    second = publish(replace(APP, version=1), tables, spec("f", timeout=2.0))
    return first, second, after(second, tables)


def test_a_rollback_serves_with_the_pools_of_the_earlier_version_as_they_were() -> None:
    first, second, tables = versions_of_two()
    wanted = [item.pool.id for item in first.served]
    back = decisions.restore(replace(APP, version=2), tables, wanted, strategy="rolling")
    assert (back.version, back.handles) == (3, first.handles)
    assert [as_in_version(1, item) for item in back.served] == [item.record for item in first.served]
    assert set(back.superseded) == {second.handles["f"].pool}
    assert current(after(back, tables)) == {name: handle.pool for name, handle in first.handles.items()}


def test_a_rollback_to_what_serves_is_no_version() -> None:
    _, second, tables = versions_of_two()
    serving = [item.pool.id for item in second.served]
    back = decisions.restore(replace(APP, version=2), tables, serving, strategy="recreate")
    assert back.version == 2
    assert not any(item.changed for item in back.served)


def test_functions_that_only_the_version_before_had_are_told() -> None:
    _, second, tables = versions_of_two()
    assert second.removed == ("g",)
    assert publish(replace(APP, version=2), tables, spec("f", timeout=3.0)).removed == ()


def test_rolling_over_gives_present_pools_a_new_generation_and_others_none() -> None:
    first, second, tables = versions_of_two()
    over = decisions.roll_over(replace(APP, version=2), tables, strategy="rolling")
    assert (over.version, over.handles) == (3, second.handles)
    assert [item.pool.generation for item in over.served] == [1]
    assert not over.superseded
    old = next(pool for pool in tables["f"].pools if pool.id == first.handles["f"].pool)
    assert coding.decode(Pool, old.record).generation == 0


def test_a_generation_never_goes_back() -> None:
    first, _, tables = versions_of_two()
    app = replace(APP, version=2)
    over = decisions.roll_over(app, tables, strategy="recreate")
    tables = after(over, tables)
    wanted = [item.pool.id for item in first.served]
    back = decisions.restore(replace(app, version=3), tables, wanted, strategy="recreate")
    tables = after(back, tables)
    again = [item.pool.id for item in over.served]
    forth = decisions.restore(replace(app, version=4), tables, again, strategy="rolling")
    generations = [coding.decode(Pool, item.record).generation for item in (*over.served, *forth.served)]
    assert generations == sorted(generations)


def test_an_app_without_functions_is_a_version_too() -> None:
    publication = publish(APP, {})
    assert publication.version == 1
    assert publication.handles == {}


def test_pools_know_whether_their_app_is_deployed() -> None:
    deployed = replace(APP, state="deployed")
    assert publish(deployed, {}, spec()).served[0].pool.deployed
    assert not publish(APP, {}, spec()).served[0].pool.deployed


def test_a_record_that_no_message_can_carry_is_refused() -> None:
    with pytest.raises(InvalidError, match=r"'f'.*bytes"):
        publish(APP, {}, spec(env={"BIG": "x" * decisions.MAX_RECORD}))


# --- capabilities


@pytest.mark.parametrize(
    ("gpus", "capability"),
    [
        ((), "cpu"),
        ((("H100", 1),), "gpu-H100"),
        ((("H100", 2), ("A100-80GB", 1)), "gpu-H100+gpu-A100-80GB"),
        ((("any", 1),), "gpu-any"),
        ((("T4", 2), ("T4", 1)), "gpu-T4"),
    ],
)
def test_the_capability_follows_the_gpus(gpus: tuple[tuple[str, int], ...], capability: str) -> None:
    assert decisions.capability(Resources(gpus=gpus)) == capability


def test_gpu_pools_live_in_gpu_streams() -> None:
    pool = publish(APP, {}, spec(resources=Resources(gpus=(("T4", 1),))), first_shard=1).served[0].pool
    assert pool.stream == "INPUTS_gpu_1"
    assert pool.prefix.startswith("tm.inputs.gpu.1.team.gpu-T4.po-")


def test_a_list_of_gpus_too_long_for_a_subject_is_refused() -> None:
    gpus = tuple((f"{number}-{'x' * 29}", 1) for number in range(5))
    with pytest.raises(InvalidError, match="list of GPUs"):
        publish(APP, {}, spec(resources=Resources(gpus=gpus)))


# --- the sweep


def test_silence_means_nothing_until_everybody_could_have_been_heard() -> None:
    assert not decisions.may_expire(now=100.0, hearing_since=None)
    assert not decisions.may_expire(now=100.0, hearing_since=41.0)
    assert decisions.may_expire(now=100.0, hearing_since=40.0)
