"""What user code can do on the bus through its worker, and what it cannot."""

import dataclasses

import pytest
from worker_stage import Stage

from tidemill._wire import coding, ids, subjects
from tidemill._wire.control import FunctionHandle
from tidemill_common import streams

BUS = """
    import asyncio, time
    import msgpack
    from tidemill import _runtime
    from tidemill._bus import blobs
    from tidemill._bus.protocol import BusError, RequestFailed
    from tidemill._wire import coding, ids, payload, subjects
    from tidemill._wire.messages import Chunk, Outputs, Payload

    async def call(bus, prefix, value):
        caller, id = ids.new(ids.CALLER), ids.new(ids.CALL)
        arrived = asyncio.get_running_loop().create_future()
        reply = subjects.replies("main", caller)
        live = await bus.subscribe(
            subjects.outputs(reply),
            lambda message: arrived.done() or arrived.set_result(message.data),  # it may come again
        )
        chunk = Chunk.first(id, [0], [Payload(*payload.encode_call((value,), {}))], reply=reply)
        key = subjects.input_key(id, 0, 0)
        await bus.store(subjects.inputs(prefix, id, 0, 0), coding.encode(chunk), msg_id=key)
        outputs = coding.decode(Outputs, await arrived)
        bus.publish(subjects.taken("main", outputs.worker), msgpack.packb([outputs.number]))
        await live.close()
        return payload.decode(*outputs.items[0].payload)
"""


async def test_a_function_calls_another_through_its_worker(stage: Stage) -> None:
    inner = await stage.pool("def f(x):\n    return x + 1")
    outer = await stage.pool(
        BUS
        + """
    async def f(prefix, x):
        return await call(_runtime.container.connect(), prefix, x)
    """
    )
    handle = FunctionHandle("fu-1", "inner", inner.app_id, inner.id, inner.prefix)
    outer = dataclasses.replace(outer, handles={"inner": handle})
    await stage.place(inner)
    await stage.place(outer)
    for _ in range(3):  # what a container that stands still for seconds does not take is stored, rightly so
        before = await replies(stage)
        assert (await stage.result(await stage.call(outer, (inner.prefix, 41)))).value == 42
        await stage.settled(inner)
        more = await replies(stage) - before
        if more <= {stage.reply}:
            break
    assert more <= {stage.reply}


async def replies(stage: Stage) -> set[str]:
    """Return the subjects of all outputs that were stored for callers."""
    return {one.subject async for one in stage.bus.read("REPLIES_main", "tm.replies.main.*")}


async def test_a_container_knows_the_functions_of_its_version(stage: Stage) -> None:
    pool = await stage.pool(
        "from tidemill import _runtime\n\ndef f(name):\n    return _runtime.container.handles[name].pool"
    )
    pool = dataclasses.replace(pool, handles_version=2)
    handles = {"inner": FunctionHandle("fu-1", "inner", pool.app_id, "po-1", "tm.inputs.cpu.0.main.cpu.po-1")}
    key = streams.handles_key(pool.app_id, 2)
    await stage.bus.ensure_bucket(streams.HANDLES)
    await stage.bus.bucket(streams.HANDLES).put(key, coding.encode(handles))
    await stage.place(pool)
    assert (await stage.result(await stage.call(pool, ("inner",)))).value == "po-1"


async def test_pools_of_the_same_workspace_may_be_called_and_no_others(stage: Stage) -> None:
    inner = await stage.pool("def f(x):\n    return x + 1")
    outer = await stage.pool(
        BUS
        + """
    async def f(prefix, x):
        try:
            return await call(_runtime.container.connect(), prefix, x)
        except RequestFailed as error:
            return error.code
    """
    )
    await stage.place(inner)
    await stage.place(outer)
    assert (await stage.result(await stage.call(outer, (inner.prefix, 1)))).value == "permission_denied"
    await stage.bus.bucket("pools").put(inner.id, coding.encode(inner))
    assert (await stage.result(await stage.call(outer, (inner.prefix, 1)))).value == 2


async def test_blobs_travel_both_ways(stage: Stage) -> None:
    pool = await stage.pool(
        BUS
        + """
    async def f(size):
        bus = _runtime.container.connect()
        blob = await blobs.put(bus, "main", b"x" * size)
        return len(await blobs.get(bus, "main", blob))
    """
    )
    await stage.place(pool)
    assert (await stage.result(await stage.call(pool, (9_000_000,)))).value == 9_000_000


FORBIDDEN = {
    "store": 'await bus.store("tm.results.main.fc-1.0", b"", msg_id="x")',
    "rollup": 'await bus.store("$O.blobs_main.C.x", b"", msg_id="x", headers={"Nats-Rollup": "all"})',
    "listen": 'await bus.subscribe("tm.inputs.>", print)',
    "listen to all": 'await bus.subscribe("tm.replies.main.*", print)',
    "listen to all outputs": 'await bus.subscribe("tm.outputs.main.*", print)',
    "ask": 'await bus.request("tm.workers.wo-1.stop", b"")',
    "read": 'await bus.last("INPUTS_cpu_0", "tm.inputs.>")',
    "remove": 'await bus.purge("INPUTS_cpu_0", "tm.inputs.>")',
}


async def test_everything_else_on_the_bus_is_refused(stage: Stage) -> None:
    tries = "".join(
        f"""
        try:
            {forbidden}
            found.append({name!r})
        except RequestFailed as error:
            assert error.code == "permission_denied", error
"""
        for name, forbidden in FORBIDDEN.items()
    )
    pool = await stage.pool(
        f"{BUS}\n    async def f():\n        found, bus = [], _runtime.container.connect()\n"
        f"{tries}\n        return found"
    )
    await stage.place(pool)
    output = await stage.result(await stage.call(pool, ()))
    assert output.value == []


async def test_restricted_functions_have_no_bus_at_all(stage: Stage) -> None:
    pool = await stage.pool(
        BUS
        + """
    async def f():
        await _runtime.container.connect().flush()
    """,
        restrict_access=True,
    )
    await stage.place(pool)
    error = (await stage.result(await stage.call(pool, ()))).error
    assert "restrict_modal_access" in str(error)


async def test_subscriptions_end_with_their_container(stage: Stage) -> None:
    pool = await stage.pool(
        BUS
        + """
    async def f(caller):
        await _runtime.container.connect().subscribe(subjects.replies("main", caller), print)
    """
    )
    (container,) = await stage.place(pool)
    caller = ids.new(ids.CALLER)
    await stage.result(await stage.call(pool, (caller,)))
    stage.bus.publish(subjects.replies("main", caller), b"heard")
    await stage.until(lambda: "heard" in stage.text(container))
    await stage.stop(container)
    assert (await stage.event(container, "stopped")).reason == "exited with status 0"


@pytest.mark.parametrize("name", ["tidemill", "cloudpickle", "msgpack"])
async def test_the_runtime_is_there_and_services_are_not(stage: Stage, name: str) -> None:
    pool = await stage.pool(
        "import importlib\n"
        "def f(name):\n"
        "    for other in ('msgspec', 'nats', 'tidemill_worker'):\n"
        "        try: importlib.import_module(other)\n"
        "        except ImportError: continue\n"
        "        return f'{other} is there'\n"
        "    return importlib.import_module(name).__name__"
    )
    await stage.place(pool)
    assert (await stage.result(await stage.call(pool, (name,)))).value == name
