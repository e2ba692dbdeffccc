"""`remote`, `spawn` and `FunctionCall`: values, errors, waiting, giving up."""

import asyncio
import dataclasses
import os
import pickle
import threading
import time
from typing import Any

import pytest
from played_worker import Cancelled, PlayedPool, PlayedWorker, Timeout

from tidemill import _client, _loop, _pools, exception
from tidemill._pools import RING_EVERY
from tidemill._wire import subjects
from tidemill._wire.messages import Blob
from tidemill._wire.payload import INLINE_LIMIT
from tidemill.function_call import FunctionCall
from tidemill.functions import Function
from tidemill_local.broker import MEMBER, WORKSPACE, Broker


def square(x: int) -> int:
    return x * x


def fail(message: str) -> None:
    raise ValueError(message)


def test_a_call_gives_the_value_that_the_function_returned(worker: PlayedWorker) -> None:
    f = worker.function(square)
    assert f.remote(3) == 9
    assert f.remote(x=4) == 16


async def test_a_call_can_be_awaited(worker: PlayedWorker) -> None:
    f = worker.function(square)
    assert await f.remote.aio(3) == 9
    assert await asyncio.gather(*(f.remote.aio(x) for x in range(50))) == [x * x for x in range(50)]


def test_calls_of_several_threads_overlap(worker: PlayedWorker) -> None:
    barrier = threading.Barrier(2, timeout=60)

    async def meet(name: str) -> str:
        await asyncio.to_thread(barrier.wait)
        return name

    f = worker.function(meet)
    results: list[str] = []
    threads = [threading.Thread(target=lambda name=name: results.append(f.remote(name))) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["a", "b"]


async def test_a_blocking_call_in_an_event_loop_works_with_a_warning(worker: PlayedWorker) -> None:
    f = worker.function(square)
    with pytest.warns(exception.AsyncUsageWarning, match=r"use .*remote\.aio"):
        assert f.remote(5) == 25


def test_an_exception_comes_back_as_its_own_type_with_its_message(worker: PlayedWorker) -> None:
    f = worker.function(fail)
    with pytest.raises(ValueError, match="no such row") as caught:
        f.remote("no such row")
    frames = [entry.frame.code.name for entry in caught.traceback]
    assert "fail" in frames


def test_an_exit_in_the_function_is_raised_here_and_ends_nothing_else(worker: PlayedWorker) -> None:
    def leave(status: int) -> None:
        raise SystemExit(status)

    f, g = worker.function(leave), worker.function(square)
    with pytest.raises(SystemExit) as caught:
        f.remote(3)
    assert caught.value.code == 3
    with pytest.raises(SystemExit):
        f.spawn(3).get(timeout=60)
    assert g.remote(2) == 4


def test_a_relative_import_that_fails_comes_with_a_hint(worker: PlayedWorker) -> None:
    def relative() -> None:
        raise ImportError("attempted relative import with no known parent package")

    with pytest.raises(ImportError, match="tidemill run -m"):
        worker.function(relative).remote()


def test_a_timeout_of_the_function_is_its_own_error(worker: PlayedWorker) -> None:
    def slow() -> None:
        raise Timeout("ran for more than 1 s")

    with pytest.raises(exception.FunctionTimeoutError, match="1 s"):
        worker.function(slow).remote()


def test_a_cancelled_input_is_a_remote_error(worker: PlayedWorker) -> None:
    def stopped() -> None:
        raise Cancelled

    f = worker.function(stopped)
    with pytest.raises(exception.RemoteError, match="cancelled"):
        f.remote()
    with pytest.raises(exception.RemoteError, match="cancelled"):
        list(f.starmap([(), ()]))


def test_arguments_that_cannot_be_sent_are_refused_before_anything_is_sent(worker: PlayedWorker) -> None:
    f = worker.function(square)
    with pytest.raises(exception.SerializationError):
        f.remote(threading.Lock())
    with pytest.raises(exception.SerializationError):
        list(f.map([1, threading.Lock()]))
    assert f.remote(2) == 4


def test_large_arguments_and_results_give_the_same_values(worker: PlayedWorker) -> None:
    def reverse(data: bytes) -> bytes:
        return data[::-1]

    f = worker.function(reverse)
    data = os.urandom(2 * INLINE_LIMIT)
    assert f.remote(data) == data[::-1]
    inputs = [data, b"small", data[: INLINE_LIMIT + 1], data[: INLINE_LIMIT // 2]]
    assert list(f.map(inputs)) == [each[::-1] for each in inputs]
    assert f.spawn(data).get(timeout=60) == data[::-1]
    assert any(isinstance(chunk.inputs[0].data, Blob) for chunk in worker.chunks_of_calls)


def test_payloads_of_attached_calls_do_not_stay_in_the_object_store(
    worker: PlayedWorker, eventually: Any
) -> None:
    f = worker.function(lambda data: data)
    f.remote(os.urandom(INLINE_LIMIT + 1))

    async def stored() -> int:
        return sum([1 async for _ in worker.bus.read("OBJ_blobs_local", "$O.blobs_local.C.>")])

    eventually(lambda: worker.do(stored()) == 0)


def test_a_function_outside_of_a_running_app_says_so(connected: Broker) -> None:
    f: Function[Any, Any, Any] = Function(square, name="square", is_generator=False)
    for call in (lambda: f.remote(1), lambda: list(f.map([1])), lambda: f.spawn(1), lambda: f.object_id):
        with pytest.raises(exception.ExecutionError) as caught:
            call()
        assert "app.run()" in caught.value.hint
    assert f.local(3) == 9


def test_a_function_cannot_be_called_directly(worker: PlayedWorker) -> None:
    with pytest.raises(exception.InvalidError) as caught:
        worker.function(square)(3)
    assert ".remote" in caught.value.hint
    assert ".local" in caught.value.hint


def test_functions_and_calls_travel_as_arguments(worker: PlayedWorker) -> None:
    f = worker.function(square)
    sent: list[Any] = []

    def take(*values: Any) -> None:
        sent.extend(values)

    g = worker.function(take)
    call = f.spawn(6)
    g.remote(f, call)
    assert sent[0].object_id == f.object_id
    assert sent[0].remote(3) == 9
    assert sent[1] == call
    assert sent[1].get(timeout=60) == 36


# --- found by name


def test_a_function_is_found_by_its_name_when_it_is_used(worker: PlayedWorker) -> None:
    deployed = worker.deploy(square)
    f = Function.from_name("app", "square")
    assert not f.is_hydrated
    assert f.remote(3) == 9
    assert f.object_id == deployed.handle.function_id
    assert list(Function.from_name("app", "square").map([1, 2])) == [1, 4]
    assert Function.from_name("app", "square").spawn(3).get(timeout=60) == 9
    assert Function.from_id(deployed.handle.function_id).hydrate().name == "square"


def test_a_function_that_is_not_there_names_app_and_environment(worker: PlayedWorker) -> None:
    f = Function.from_name("shop", "missing", environment_name="staging")
    with pytest.raises(exception.NotFoundError, match=r"'missing'.*'shop'.*'staging'"):
        f.remote()
    with pytest.raises(exception.NotFoundError):
        list(f.map([1]))
    with pytest.raises(exception.InvalidError):
        Function.from_name("shop", "Class.method")


# --- spawn


def test_a_spawned_call_is_read_when_it_is_ready_and_stays_readable(worker: PlayedWorker) -> None:
    pool = worker.deploy(square)
    pool.held = asyncio.Event()
    call = worker.caller_of(pool).spawn(7)
    with pytest.raises(TimeoutError):
        call.get(timeout=0)
    with pytest.raises(TimeoutError):
        call.get(timeout=0.05)
    worker._loop.call_soon_threadsafe(pool.held.set)
    assert call.get(timeout=60) == 49
    assert call.get(timeout=0) == 49
    again = FunctionCall.from_id(call.object_id)
    assert again.get() == 49
    assert again.num_inputs() == 1
    assert pickle.loads(pickle.dumps(call)).get(timeout=0) == 49


def test_nothing_of_a_kept_result_of_a_restricted_function_is_unpickled(worker: PlayedWorker) -> None:
    pool = worker.deploy(lambda plain: [plain] if plain else object(), name="gives")
    pool.handle = dataclasses.replace(pool.handle, restrict_output=True)
    f = worker.caller_of(pool)
    assert f.spawn(True).get() == [True]
    pickled = f.spawn(False)
    for call in (pickled, FunctionCall.from_id(pickled.object_id)):
        with pytest.raises(exception.ExecutionError, match="restricted output returned a pickle"):
            call.get()


async def test_a_spawned_call_can_be_awaited(worker: PlayedWorker) -> None:
    call = await worker.function(square).spawn.aio(8)
    assert await call.get.aio(timeout=60) == 64


def test_gather_keeps_the_order_and_raises_the_first_failure(worker: PlayedWorker) -> None:
    f, g = worker.function(square), worker.function(fail)
    calls = [f.spawn(x) for x in range(5)]
    assert FunctionCall.gather(*calls) == [0, 1, 4, 9, 16]
    with pytest.raises(ValueError, match="broken"):
        FunctionCall.gather(calls[0], g.spawn("broken"))
    assert calls[1].get() == 1


def test_a_cancelled_call_ends_with_an_error_and_its_input_does_not_start(worker: PlayedWorker) -> None:
    pool = worker.deploy(square, slots=1)
    pool.held = asyncio.Event()
    f = worker.caller_of(pool)
    f.spawn(1)
    call = f.spawn(2)
    call.cancel(terminate_containers=True)
    with pytest.raises(exception.RemoteError, match="cancelled"):
        call.get(timeout=60)
    assert worker.cancelled[-1].kept
    assert worker.cancelled[-1].terminate_containers
    worker._loop.call_soon_threadsafe(pool.held.set)
    assert pool.runs[call.object_id, 0] == 0


def test_a_call_of_which_nothing_is_stored_any_more_has_expired(worker: PlayedWorker) -> None:
    call = worker.function(square).spawn(1)
    assert (call.num_inputs(), call.get(timeout=60)) == (1, 1)  # the record was there, and is remembered
    worker.do(
        worker.bus.purge(subjects.results_stream(WORKSPACE), subjects.call_results(WORKSPACE, call.object_id))
    )
    for timeout in (0, 5, None):
        with pytest.raises(exception.OutputExpiredError):
            call.get(timeout=timeout)
    with pytest.raises(exception.InvalidError):
        FunctionCall.from_id("not an id")


def test_a_call_of_many_inputs_is_iterated_in_ranges(worker: PlayedWorker) -> None:
    call = worker.function(square).experimental_spawn_map(range(40))
    assert call.num_inputs() == 40
    assert list(call.iter()) == [x * x for x in range(40)]
    assert list(call.iter(start=38)) == [38 * 38, 39 * 39]
    assert list(call.iter(start=1, end=3)) == [1, 4]
    with pytest.raises(exception.InvalidError):
        call.get(index=40, timeout=0)


# --- the client


def test_a_client_of_its_own_is_opened_and_closed(worker: PlayedWorker, connected: Broker) -> None:
    f = worker.function(square)
    with _client.Client.from_credentials(MEMBER, connected.settings.passwords[MEMBER]) as client:
        client.hello()
        f._client = client
        assert f.remote(2) == 4
    assert client.is_closed()
    with pytest.raises(exception.ClientClosed):
        f.remote(2)


async def test_the_shared_client_outlives_its_context(worker: PlayedWorker) -> None:
    f = worker.function(square)
    async with _client.Client.from_env() as client:
        assert await f.remote.aio(2) == 4
    assert not client.is_closed()
    assert await _client.Client.from_env.aio() is client
    assert await f.remote.aio(3) == 9


def test_wrong_credentials_are_an_auth_error(connected: Broker) -> None:
    client = _client.Client.from_credentials(MEMBER, "wrong")
    with pytest.raises(exception.AuthError):
        client.hello()


def test_no_server_is_a_connection_error_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_SERVER_URL", "nats://127.0.0.1:1")
    try:
        with pytest.raises(exception.ConnectionError) as caught:
            _client.Client().hello()
        assert "TIDEMILL_SERVER_URL" in caught.value.hint
    finally:
        _loop.close()


def test_a_client_that_is_closed_fails_what_waits(worker: PlayedWorker, eventually: Any) -> None:
    pool = worker.deploy(square)
    pool.held = asyncio.Event()
    f = worker.caller_of(pool)
    client = _client.Client.from_env()

    def close() -> None:
        eventually(lambda: worker.chunks_of_calls)
        client.close()

    closing = threading.Thread(target=close)
    closing.start()
    with pytest.raises(exception.ClientClosed):
        f.remote(1)
    closing.join()


# --- giving up, trouble


def test_giving_a_call_up_cancels_it(worker: PlayedWorker, eventually: Any) -> None:
    pool = worker.deploy(square)
    pool.held = asyncio.Event()
    f = worker.caller_of(pool)

    async def give_up() -> None:
        call = asyncio.ensure_future(f.remote.aio(1))
        await asyncio.to_thread(eventually, lambda: worker.chunks_of_calls)
        await asyncio.wait_for(call, 0.05)

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    eventually(lambda: worker.cancelled and not worker.cancelled[0].kept)


def listens(pool: PlayedPool) -> bool:
    """Tell whether the caller hears what is said of a pool."""
    caller = _client.current().caller
    line = caller.pools._lines.get(pool.handle.pool) if caller else None
    return line is not None and line.subscription is not None


def test_final_trouble_fails_the_calls_that_wait(worker: PlayedWorker, eventually: Any) -> None:
    pool = worker.deploy(square)
    pool.held = asyncio.Event()
    f = worker.caller_of(pool)

    over = threading.Event()

    def tell() -> None:
        eventually(lambda: worker.chunks_of_calls)
        while not over.wait(0.05):  # as the scheduler does at each bell
            worker.tell_trouble(pool, "no image", exception.ImageBuildError("no such package"))

    for call in (lambda: f.remote(1), lambda: list(f.map([1, 2])), lambda: f.spawn(1).get()):
        worker.chunks_of_calls.clear()
        over.clear()
        thread = threading.Thread(target=tell)
        thread.start()
        try:
            with pytest.raises(exception.ImageBuildError, match="no such package"):
                call()
        finally:
            over.set()
            thread.join()


def test_other_trouble_is_told_once_and_the_call_goes_on(
    worker: PlayedWorker, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pool = worker.deploy(square)
    pool.held = asyncio.Event()
    f = worker.caller_of(pool)

    def tell() -> None:
        eventually(lambda: worker.chunks_of_calls)
        eventually(lambda: listens(pool))
        for _ in range(3):
            worker.tell_trouble(pool, "no worker has an H100")
        assert pool.held is not None
        worker._loop.call_soon_threadsafe(pool.held.set)

    thread = threading.Thread(target=tell)
    thread.start()
    assert f.remote(3) == 9
    thread.join()
    assert caplog.text.count("no worker has an H100") == 1


def test_a_call_is_refused_and_a_map_goes_on_later_where_too_much_waits(
    worker: PlayedWorker, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = worker.deploy(square)
    f = worker.caller_of(pool)
    assert f.remote(2) == 4
    caller = _client.current().caller
    assert caller is not None
    eventually(lambda: listens(pool))

    def tell_full(seconds: float) -> None:
        monkeypatch.setattr(_pools, "FULL_FOR", seconds)
        caller.pools.full.clear()
        worker.tell_full(pool, "1,000,001 messages of inputs wait")
        eventually(lambda: caller.pools.full)

    tell_full(600.0)
    for refused in (f.remote, f.spawn):
        with pytest.raises(exception.ResourceExhaustedError, match="1,000,001 messages"):
            refused(3)
    tell_full(1.0)
    assert list(f.map([4, 5])) == [16, 25]
    assert f.remote(3) == 9


def test_the_bell_of_a_pool_rings_while_a_call_waits(worker: PlayedWorker, eventually: Any) -> None:
    pool = worker.deploy(square)
    pool.held = asyncio.Event()
    f = worker.caller_of(pool)
    bell = subjects.demand(WORKSPACE, pool.handle.pool)
    thread = threading.Thread(target=f.remote, args=(1,))
    thread.start()
    eventually(lambda: worker.demands[bell] >= 3)
    worker._loop.call_soon_threadsafe(pool.held.set)
    thread.join()


def test_calls_that_are_answered_at_once_ring_less_often_than_they_are_made(worker: PlayedWorker) -> None:
    pool = worker.deploy(square)
    f = worker.caller_of(pool)
    begun = time.monotonic()
    assert [f.remote(number) for number in range(100)] == [number * number for number in range(100)]
    at_most = 1 + (time.monotonic() - begun) / RING_EVERY
    worker.do(worker.bus.flush())
    assert 1 <= worker.demands[subjects.demand(WORKSPACE, pool.handle.pool)] <= at_most


def test_a_call_that_is_not_answered_at_once_rings_all_the_same(
    worker: PlayedWorker, eventually: Any
) -> None:
    pool = worker.deploy(square)
    f = worker.caller_of(pool)
    bell = subjects.demand(WORKSPACE, pool.handle.pool)
    assert f.remote(2) == 4
    eventually(lambda: worker.demands[bell])
    rung, pool.held = worker.demands[bell], asyncio.Event()
    thread = threading.Thread(target=f.remote, args=(1,))
    thread.start()
    eventually(lambda: worker.demands[bell] > rung)
    worker._loop.call_soon_threadsafe(pool.held.set)
    thread.join()
