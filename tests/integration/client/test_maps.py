"""The map family: order, values, errors, laziness, windows."""

import asyncio
import gc
import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from played_worker import PlayedWorker
from waiting import wait_until

from tidemill import _client, exception


def square(x: int) -> int:
    return x * x


def add(a: int, b: int, c: int = 0) -> int:
    return a + b + c


def refuse_odd(x: int) -> int:
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x


def broken_inputs() -> Iterator[int]:
    yield 1
    yield 2
    raise OSError("the file ended")


async def counted(n: int) -> AsyncIterator[int]:
    for x in range(n):
        await asyncio.sleep(0)
        yield x


def test_results_come_in_the_order_of_the_inputs(worker: PlayedWorker) -> None:
    async def later_first(x: int) -> int:
        await asyncio.sleep(0.05 if x % 5 == 0 else 0)
        return x

    f = worker.function(later_first)
    assert list(f.map(range(30))) == list(range(30))


def test_results_come_as_they_are_ready_when_order_does_not_matter(worker: PlayedWorker) -> None:
    others, done = asyncio.Event(), 0

    async def first_last(x: int) -> int:
        nonlocal done
        if x == 0:
            await others.wait()
        else:
            done += 1
        if done == 9:
            others.set()
        return x

    results = list(worker.function(first_last).map(range(10), order_outputs=False))
    assert results[-1] == 0
    assert sorted(results) == list(range(10))


def test_a_long_map_gives_every_value_once_and_in_order(worker: PlayedWorker) -> None:
    f = worker.function(square, slots=4)
    assert list(f.map(range(5_000))) == [x * x for x in range(5_000)]
    assert max(worker.pool_of(f).chunks) > 8
    assert sum(worker.pool_of(f).runs.values()) == 5_000


def test_several_iterables_are_zipped_and_constants_added(worker: PlayedWorker) -> None:
    f = worker.function(add)
    assert list(f.map([1, 2, 3], [10, 20])) == [11, 22]
    assert list(f.map([1], [2], kwargs={"c": 5})) == [8]
    assert list(f.starmap([(1, 2), (3, 4)], kwargs={"c": 1})) == [4, 8]
    assert list(f.starmap(zip([1, 2], [3, 4], [5, 6], strict=True))) == [9, 12]


def test_a_map_feeds_another(worker: PlayedWorker) -> None:
    f = worker.function(square)
    assert list(f.map(f.map(range(5)))) == [0, 1, 16, 81, 256]


def test_no_inputs_give_no_results(worker: PlayedWorker) -> None:
    f = worker.function(square)
    assert list(f.map([])) == []
    assert list(f.map()) == []
    f.for_each([])
    f.spawn_map([])
    assert list(f.experimental_spawn_map([]).iter()) == []


def test_none_is_a_value(worker: PlayedWorker) -> None:
    f = worker.function(lambda x: x)
    assert list(f.map([None, 1, None])) == [None, 1, None]


@pytest.mark.parametrize("method", ["map", "starmap", "for_each", "spawn_map", "experimental_spawn_map"])
def test_an_error_of_the_input_iterator_reaches_the_caller(worker: PlayedWorker, method: str) -> None:
    f = worker.function(lambda *_: None)
    inputs: Any = ((x,) for x in broken_inputs()) if method == "starmap" else broken_inputs()
    with pytest.raises(OSError, match="the file ended"):
        for _ in getattr(f, method)(inputs) or ():
            pass


async def test_async_iterables_are_inputs_too(worker: PlayedWorker) -> None:
    f = worker.function(add)
    assert [x async for x in f.map.aio(counted(4), itertools.count(10))] == [10, 12, 14, 16]
    await f.for_each.aio(counted(3), counted(3))
    call = await f.experimental_spawn_map.aio(counted(3), counted(3))
    assert [x async for x in call.iter.aio()] == [0, 2, 4]


def test_async_iterables_are_inputs_of_blocking_maps(worker: PlayedWorker) -> None:
    assert list(worker.function(square).map(counted(300))) == [x * x for x in range(300)]


def test_inputs_are_sent_as_they_come(worker: PlayedWorker) -> None:
    """Each input is made from the result of the one before: a map that waits for more would hang."""
    results: list[int] = []
    arrived = threading.Event()

    def inputs() -> Iterator[int]:
        for x in range(5):
            yield x
            assert arrived.wait(60)
            arrived.clear()

    for value in worker.function(square).map(inputs()):
        results.append(value)
        arrived.set()
    assert results == [0, 1, 4, 9, 16]


def test_slow_iterators_do_not_hold_other_calls_up(worker: PlayedWorker) -> None:
    f = worker.function(square)
    go_on = threading.Event()

    def inputs() -> Iterator[int]:
        yield 1
        assert go_on.wait(60)
        yield 2

    maps = [iter(f.map(inputs())) for _ in range(3)]
    assert [next(each) for each in maps] == [1, 1, 1]
    assert f.remote(5) == 25
    go_on.set()
    assert [list(each) for each in maps] == [[4]] * 3


def test_the_first_failure_ends_the_map_and_cancels_the_rest(worker: PlayedWorker, eventually: Any) -> None:
    f = worker.function(refuse_odd)
    with pytest.raises(ValueError, match="is odd"):
        list(f.map(itertools.count()))
    eventually(lambda: worker.cancelled)


def test_exceptions_can_be_returned_in_place_of_results(worker: PlayedWorker) -> None:
    f = worker.function(refuse_odd)
    results = list(f.map(range(4), return_exceptions=True))
    assert results[0] == 0
    assert results[2] == 2
    assert [str(error) for error in results[1::2]] == ["1 is odd", "3 is odd"]
    assert all(type(error) is ValueError for error in results[1::2])
    with pytest.warns(exception.DeprecationError, match="wrap_returned_exceptions"):
        assert list(f.map([2], wrap_returned_exceptions=False)) == [2]


def test_for_each_runs_all_and_can_ignore_failures(worker: PlayedWorker) -> None:
    seen: list[int] = []

    def note(x: int) -> int:
        seen.append(x)
        return refuse_odd(x)

    f = worker.function(note)
    f.for_each(range(0, 20, 2))
    assert sorted(seen) == list(range(0, 20, 2))
    f.for_each(range(6), ignore_exceptions=True)
    with pytest.raises(ValueError, match="odd"):
        f.for_each([2, 3])


def test_spawn_map_queues_all_and_returns_nothing(worker: PlayedWorker, eventually: Any) -> None:
    seen: list[int] = []
    f = worker.function(lambda x: seen.append(x))
    assert f.spawn_map(range(2_000)) is None
    eventually(lambda: len(seen) == 2_000)
    assert sorted(seen) == list(range(2_000))


async def test_blocking_maps_are_refused_in_an_event_loop(worker: PlayedWorker) -> None:
    f = worker.function(square)
    with pytest.raises(exception.InvalidError) as caught:
        list(f.map([1]))
    assert "map.aio" in caught.value.hint
    for call in (lambda: list(f.starmap([(1,)])), lambda: f.for_each([1]), lambda: f.spawn_map([1])):
        with pytest.raises(exception.InvalidError):
            call()
    assert [x async for x in f.map.aio([1, 2])] == [1, 4]
    assert [x async for x in f.starmap.aio([(1,), (2,)])] == [1, 4]
    assert [x async for x in f.map([3, 4])] == [9, 16]
    await f.spawn_map.aio([1])


def test_generators_are_iterated_mapped_and_spawned_but_not_called(worker: PlayedWorker) -> None:
    def generate() -> Iterator[int]:
        yield 1

    f = worker.function(generate)
    with pytest.raises(exception.InvalidError, match="generator"):
        f.remote()
    with pytest.raises(exception.InvalidError, match="not a generator"):
        next(worker.function(square).remote_gen(1))


def test_a_map_that_nobody_iterates_says_so(worker: PlayedWorker, caplog: pytest.LogCaptureFixture) -> None:
    f = worker.function(square)
    f.map([1, 2])
    gc.collect()
    assert "never iterated" in caplog.text
    assert not worker.chunks_of_calls


def test_a_map_that_is_left_early_is_cancelled_and_reads_no_further(
    worker: PlayedWorker, eventually: Any
) -> None:
    f = worker.function(square)
    numbers = itertools.count()
    for value in f.map(numbers):
        if value > 100:
            break
    eventually(lambda: worker.cancelled)
    eventually(lambda: not any(thread.name == "tidemill-inputs" for thread in threading.enumerate()))


def test_something_that_cannot_be_iterated_is_refused(worker: PlayedWorker) -> None:
    with pytest.raises(exception.InvalidError, match="iterables"):
        worker.function(add).map([1, 2], 3)  # type: ignore[call-overload]


def test_slow_functions_keep_single_inputs_and_all_slots(worker: PlayedWorker) -> None:
    active = most = 0
    all_slots = asyncio.Event()

    async def nap(x: int) -> int:
        nonlocal active, most
        active += 1
        most = max(most, active)
        if most == 16:
            all_slots.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(all_slots.wait(), 30)
        await asyncio.sleep(0.02)
        active -= 1
        return x

    f = worker.function(nap, slots=16)
    assert list(f.map(range(200))) == list(range(200))
    assert set(worker.pool_of(f).chunks) == {1}
    assert most == 16


def test_a_slow_taker_holds_the_map_back(worker: PlayedWorker, eventually: Any) -> None:
    """What is finished and not taken is bounded, so memory is too."""

    async def large(x: int) -> str:
        await asyncio.sleep(0.005)
        return "x" * 200_000

    f = worker.function(large, slots=4)
    results = iter(f.map(itertools.count()))
    next(results)
    (call,) = _client.current().caller.calls.values()  # type: ignore[union-attr]
    eventually(lambda: call._starved and not call._in_flight)  # type: ignore[attr-defined]
    assert sum(worker.pool_of(f).chunks) * 200_000 < 400 << 20
    results.close()  # type: ignore[attr-defined]


def test_an_output_that_comes_twice_counts_once(worker: PlayedWorker) -> None:
    pool = worker.deploy(square)
    pool.answers_again = True
    f = worker.caller_of(pool)
    assert list(f.map(range(500))) == [x * x for x in range(500)]
    assert f.remote(3) == 9


def test_inputs_that_cannot_even_begin_end_their_map(worker: PlayedWorker, tmp_path: Path) -> None:
    (tmp_path / "inputs").write_text("1\n")
    with (tmp_path / "inputs").open() as lines:
        pass
    f = worker.function(square)
    for start in (f.map, f.starmap):
        with pytest.raises(ValueError, match="closed file"):
            list(start(lines))
    with pytest.raises(ValueError, match="closed file"):
        f.spawn_map(lines)


async def test_a_spawned_map_that_is_given_up_half_way_leaves_nothing_running(worker: PlayedWorker) -> None:
    pool = worker.deploy(square, slots=1)
    pool.held = asyncio.Event()
    read = asyncio.Event()

    async def inputs() -> AsyncIterator[int]:
        for x in range(20):
            yield x
        read.set()
        await asyncio.Event().wait()

    spawning = asyncio.create_task(worker.caller_of(pool).experimental_spawn_map.aio(inputs()))
    async with asyncio.timeout(60):
        await read.wait()
        await asyncio.to_thread(wait_until, lambda: worker.chunks_of_calls)
        spawning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await spawning
        await asyncio.to_thread(wait_until, lambda: worker.cancelled)


def test_a_full_queue_holds_a_map_back_and_refuses_a_single_call(worker: PlayedWorker) -> None:
    from dataclasses import replace

    from tidemill_common import streams

    pool = worker.deploy(square, slots=1)
    pool.held = asyncio.Event()
    f = worker.caller_of(pool)
    full = next(spec for spec in streams.common_streams() if spec.name == pool.record.stream)
    worker.do(worker.bus.ensure_stream(replace(full, max_bytes=4_000)))
    f.spawn(2)
    with pytest.raises(exception.ResourceExhaustedError):
        [f.spawn(2) for _ in range(100)]
    with pytest.raises(exception.ResourceExhaustedError):
        f.remote(2)
    worker._loop.call_soon_threadsafe(pool.held.set)
    assert list(f.map(range(300))) == [x * x for x in range(300)]
    f.spawn_map(range(300))


def test_a_map_that_waits_long_for_room_is_not_taken_for_lost(
    worker: PlayedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from tidemill import _caller, _lost, _map_call
    from tidemill_common import streams

    for module, name in ((_caller, "SILENT"), (_caller, "SILENT_MAX"), (_lost, "SILENT_MAX")):
        monkeypatch.setattr(module, name, 1.0)
    monkeypatch.setattr(_map_call, "BACKOFF_MAX", 0.2)
    crowd, pool = worker.deploy(square, slots=1, name="crowd"), worker.deploy(square)
    crowd.held = asyncio.Event()
    full = next(spec for spec in streams.common_streams() if spec.name == pool.record.stream)
    worker.do(worker.bus.ensure_stream(replace(full, max_bytes=4_000)))
    with pytest.raises(exception.ResourceExhaustedError):
        [worker.caller_of(crowd).spawn(2) for _ in range(100)]
    room = threading.Timer(5, lambda: worker._loop.call_soon_threadsafe(crowd.held.set))
    room.start()
    try:
        assert list(worker.caller_of(pool).map(range(3))) == [0, 1, 4]
    finally:
        room.join()
