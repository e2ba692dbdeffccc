"""Placements, starts, stops, reports, and the end of the worker."""

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from worker_stage import Stage, eventually

from tidemill import exception
from tidemill._bus.protocol import BusError
from tidemill._container.processes import descendants
from tidemill._wire import coding, failure, ids, subjects
from tidemill._wire.phases import OF_START
from tidemill._wire.scheduling import Capacity, WorkerState
from tidemill._wire.specs import ImageSpec, Resources

FINE = "def f(x):\n    return x"
# Its inputs say that they run, and do so until somebody opens the gate, a file.
GATED = """
    import os, time
    def f(gate):
        print("runs", flush=True)
        while not os.path.exists(gate):
            time.sleep(0.01)
        return 1
"""


async def test_a_worker_tells_what_it_is_and_has(stage: Stage) -> None:
    await stage.until(lambda: stage.states[stage.worker].free == Capacity(2.0, 4096))
    state = stage.states[stage.worker]
    assert state.capabilities == ("cpu",)
    assert state.total == Capacity(2.0, 4096)
    assert f"python-{sys.version_info.major}.{sys.version_info.minor}" in state.labels
    assert state.runtime == "process"

    async def recorded() -> bytes | None:
        return await stage.bus.bucket("workers").get(stage.worker)

    assert coding.decode(WorkerState, await eventually(recorded)).worker == stage.worker


async def test_declared_gpus_labels_and_places_are_reported(alone: Stage, launch_worker: Any) -> None:
    await launch_worker(
        TIDEMILL_WORKER_GPUS="H100:2,L4",
        TIDEMILL_WORKER_REGION="eu",
        TIDEMILL_WORKER_CLOUD="own",
        TIDEMILL_WORKER_LABELS="disk=ssd",
    ).serving()
    await alone.until(lambda: alone.states)
    state = alone.states[alone.worker]
    assert state.capabilities == ("cpu", "gpu-H100", "gpu-L4")
    assert state.total.gpus == {"H100": 2, "L4": 1}
    assert {"region": "eu", "cloud": "own", "disk": "ssd"}.items() <= state.labels.items()


async def test_a_gpu_container_sees_its_own_devices(alone: Stage, launch_worker: Any) -> None:
    await launch_worker(TIDEMILL_WORKER_GPUS="H100:3").serving()
    pool = await alone.pool(
        "import os\ndef f():\n    return os.environ['CUDA_VISIBLE_DEVICES']",
        resources=Resources(gpus=(("H100", 2),)),
    )
    await alone.place(pool)
    assert (await alone.result(await alone.call(pool, ()))).value == "0,1"
    refused = await alone.ask_to_place(pool)
    assert (refused.accepted, refused.reason) == (False, "no 2 x H100 is free")


async def test_what_a_container_takes_is_gone_until_it_ends(stage: Stage) -> None:
    pool = await stage.pool(FINE, resources=Resources(cpu=1.5, memory=1024))
    (container,) = await stage.place(pool)
    await stage.until(lambda: stage.states[stage.worker].free == Capacity(0.5, 3072))
    refused = await stage.ask_to_place(pool)
    assert (refused.accepted, refused.reason) == (False, "it asks for 1.5 cores, 0.5 are free")
    assert (await stage.ask_to_place(pool, overcommit=True)).accepted
    await stage.stop(container)
    await stage.event(container, "stopped")
    await stage.until(lambda: stage.states[stage.worker].free == Capacity(0.5, 3072))


async def test_a_placement_that_comes_twice_starts_one_container(stage: Stage) -> None:
    pool = await stage.pool(FINE)
    container = ids.new(ids.CONTAINER)
    for _ in range(2):
        assert (await stage.ask_to_place(pool, container)).accepted
    await stage.event(container, "started")
    await stage.until(lambda: len(stage.states[stage.worker].containers) == 1)
    assert stage.states[stage.worker].free.cpu == pytest.approx(2 - 0.125)


async def test_orders_of_an_earlier_leader_are_refused(own_stage: Stage) -> None:
    pool = await own_stage.pool(FINE)
    assert (await own_stage.ask_to_place(pool, term=5)).accepted
    refused = await own_stage.ask_to_place(pool, term=4)
    assert (refused.accepted, refused.reason) == (False, "term 4 is over")


async def test_a_container_goes_through_its_states(stage: Stage, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    pool = await stage.pool(GATED)
    (container,) = await stage.place(pool)

    def state() -> str:
        told = [one.state for one in stage.containers if one.container == container]
        return told[0] if told else "not told yet"

    await stage.until(lambda: state() == "idle")
    call = await stage.call(pool, (str(gate),))
    await stage.until(lambda: state() == "busy")
    gate.touch()
    await stage.result(call)
    await stage.until(lambda: state() == "idle")
    await stage.stop(container)
    assert (await stage.event(container, "stopped")).reason == "exited with status 0"
    await stage.until(lambda: not stage.states[stage.worker].containers)


async def test_the_phases_of_a_start_are_told(stage: Stage) -> None:
    pool = await stage.pool("import time\ntime.sleep(0.05)\n" + FINE)
    (container,) = await stage.place(pool)
    phases = (await stage.event(container)).phases
    assert set(phases) == set(OF_START)
    assert phases["import"] >= 0.05


async def test_a_module_that_fails_at_import_is_told_with_its_error(stage: Stage) -> None:
    pool = await stage.pool("raise LookupError('no such table')\n" + FINE)
    container = ids.new(ids.CONTAINER)
    assert (await stage.ask_to_place(pool, container)).accepted
    event = await stage.event(container)
    assert (event.state, event.final) == ("failed", False)
    error = failure.to_exception(event.failure)
    assert isinstance(error, LookupError)
    assert "no such table" in event.reason
    await stage.until(lambda: not stage.states[stage.worker].containers)
    await stage.until(lambda: "no such table" in stage.text(container))


async def test_a_container_that_ends_while_it_starts_is_told(stage: Stage) -> None:
    pool = await stage.pool("import os\nos._exit(3)\n" + FINE)
    container = ids.new(ids.CONTAINER)
    await stage.ask_to_place(pool, container)
    event = await stage.event(container)
    assert event.state == "failed"
    assert "exited with status 3 before it was ready" in event.reason


async def test_a_start_that_takes_too_long_is_given_up(stage: Stage) -> None:
    pool = await stage.pool("import time\ntime.sleep(60)\n" + FINE, startup_timeout=0.3)
    container = ids.new(ids.CONTAINER)
    await stage.ask_to_place(pool, container)
    event = await stage.event(container)
    assert event.state == "failed"
    assert isinstance(failure.to_exception(event.failure), exception.FunctionTimeoutError)
    await stage.until(lambda: not stage.states[stage.worker].containers)


async def test_code_that_is_not_there_is_told(stage: Stage) -> None:
    pool = await stage.pool(f"{FINE}  # nobody else has this")
    await stage.bus.purge("OBJ_blobs_main", "$O.blobs_main.M.>")
    container = ids.new(ids.CONTAINER)
    await stage.ask_to_place(pool, container)
    event = await stage.event(container)
    assert event.state == "failed"
    assert "NotFoundError" in event.reason


@pytest.mark.parametrize("has_a_process", [False, True])
async def test_a_start_can_be_called_off_without_a_word_to_the_user(
    stage: Stage, has_a_process: bool
) -> None:
    pool = await stage.pool("import time\ntime.sleep(60)\n" + FINE)
    container = ids.new(ids.CONTAINER)
    await stage.ask_to_place(pool, container)
    if has_a_process:
        await stage.until(lambda: any(one.pid for one in stage.states[stage.worker].containers))
    await stage.stop(container)
    assert (await stage.event(container)).state == "stopped"
    await stage.until(lambda: not stage.states[stage.worker].containers)
    assert stage.text(container) == ""


async def test_a_graceful_stop_waits_for_the_running_input(stage: Stage, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    pool = await stage.pool(GATED)
    (container,) = await stage.place(pool)
    call = await stage.call(pool, (str(gate),), (str(gate),))
    await stage.until(lambda: "runs" in stage.text())
    await stage.stop(container)

    async def is_back() -> bool:
        return await stage.backlog(pool) == 2

    await eventually(is_back)  # the one that had not started, beside the chunk that it came in
    gate.touch()
    await stage.event(container, "stopped")
    assert [(one.value, one.container) for one in await stage.results(call)] == [(1, container)]
    (other,) = await stage.place(pool)
    _, second = await stage.results(call, 2)
    assert (second.value, second.container) == (1, other)
    await stage.settled(pool)


async def test_a_graceful_stop_gives_the_running_input_as_long_as_the_order_says(stage: Stage) -> None:
    pool = await stage.pool("import time\ndef f(n):\n    time.sleep(n)\n    return n")
    (container,) = await stage.place(pool)
    await stage.call(pool, (60,))
    await stage.until(lambda: any(one.state == "busy" for one in stage.states[stage.worker].containers))
    await stage.stop(container, finish=0.2)
    await stage.event(container, "stopped")

    async def waits() -> bool:
        state = await stage.bus.consumer_state(pool.stream, pool.id)
        return state is not None and state.pending + state.ack_pending == 1

    await eventually(waits)


async def test_a_container_is_reported_with_what_its_pool_was_when_it_was_placed(stage: Stage) -> None:
    pool = await stage.pool(FINE)
    old, new = ids.new(ids.CONTAINER), ids.new(ids.CONTAINER)
    await stage.ask_to_place(pool, old)
    await stage.ask_to_place(replace(pool, generation=3, superseded=True), new)
    await stage.until(lambda: {one.container for one in stage.containers} == {old, new})
    reported = {one.container: one for one in stage.states[stage.worker].containers}
    assert (reported[old].generation, reported[old].superseded) == (0, False)
    assert (reported[new].generation, reported[new].superseded) == (3, True)


async def test_a_stop_at_once_hands_the_running_input_back(stage: Stage) -> None:
    pool = await stage.pool("import time\ndef f(n):\n    time.sleep(n)\n    return n")
    (container,) = await stage.place(pool)
    await stage.call(pool, (60,))
    await stage.until(lambda: any(one.state == "busy" for one in stage.states[stage.worker].containers))
    await stage.stop(container, graceful=False)
    await stage.event(container, "stopped")  # in less time than it would have to finish

    async def waits() -> bool:
        state = await stage.bus.consumer_state(pool.stream, pool.id)
        return state is not None and state.pending + state.ack_pending == 1

    await eventually(waits)


async def test_every_container_has_a_folder_of_its_own_which_goes_with_it(
    stage: Stage, data: Path, tmp_path: Path
) -> None:
    pool = await stage.pool(
        "import os, tempfile, time\n"
        "def f(meeting, name):\n"
        "    open(f'{meeting}/{name}', 'x').close()\n"
        "    while len(os.listdir(meeting)) < 2:\n"  # each in a container of its own
        "        time.sleep(0.01)\n"
        "    open('mine', 'x').close()\n"
        "    return os.getcwd(), tempfile.gettempdir()"
    )
    first, second = await stage.place(pool, 2)
    calls = [await stage.call(pool, (str(tmp_path), name)) for name in ("one", "two")]
    outputs = await asyncio.gather(*map(stage.result, calls))
    folders = {folder for one in outputs for folder in one.value}
    assert len(folders) == 4
    await stage.stop(first, second)
    for container in (first, second):
        await stage.event(container, "stopped")
    assert not any(os.path.exists(folder) for folder in folders)


async def test_environment_and_workdir_of_image_and_function(stage: Stage) -> None:
    image = ImageSpec((("env", {"vars": {"A": "image", "B": "image"}}), ("workdir", {"path": "/srv/app"})))
    pool = await stage.pool(
        "import os\n"
        "HERE = os.getcwd(), os.environ['A'], os.environ['B']\n"
        "def f():\n"
        "    return HERE, os.environ.get('TIDEMILL_NATS_PASSWORD'), os.environ['MODAL_TASK_ID']",
        image=image,
        env={"B": "function"},
    )
    (container,) = await stage.place(pool)
    (cwd, a, b), password, task = (await stage.result(await stage.call(pool, ()))).value
    assert cwd.endswith("/srv/app")
    assert (a, b, password, task) == ("image", "function", None, container)


async def test_variables_of_the_interpreter_are_there_from_its_start(stage: Stage) -> None:
    pool = await stage.pool(
        "import sys, os\ndef f():\n    return sys.flags.hash_randomization, os.environ['PYTHONHASHSEED']",
        env={"PYTHONHASHSEED": "0"},
    )
    await stage.place(pool)
    assert (await stage.result(await stage.call(pool, ()))).value == (0, "0")


async def test_a_worker_that_is_told_to_end_finishes_what_runs_and_leaves_nothing(
    own_stage: Stage, process: Any, data: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    pool = await own_stage.pool(GATED)
    await own_stage.place(pool)
    call = await own_stage.call(pool, (str(gate),), (str(gate),))
    later = await own_stage.call(pool, (str(gate),))
    await own_stage.until(lambda: "runs" in own_stage.text())
    tree = descendants(process.process.pid)
    process.send(signal.SIGTERM)

    async def is_back() -> bool:
        return await own_stage.backlog(pool) == 3

    await eventually(is_back)  # what has not started, beside the chunk that it came in and the later one
    gate.touch()
    assert await process.ended() == 0
    assert own_stage.states[own_stage.worker].draining
    assert [one.value for one in await own_stage.results(call)] == [1]
    assert not own_stage.terminal(later)

    async def is_done() -> bool:
        return await own_stage.backlog(pool) == 2

    await eventually(is_done)  # an acknowledgement was sent, but who has ended does not wait for what it does

    async def none_left() -> bool:
        return not any(os.path.exists(f"/proc/{pid}") for pid in tree)

    await eventually(none_left)
    assert not (data / "containers" / own_stage.worker).exists()
    assert await own_stage.bus.bucket("workers").get(own_stage.worker) is None


async def test_a_worker_that_ends_leaves_no_input_that_has_run_to_another(
    own_stage: Stage, process: Any
) -> None:
    pool = await own_stage.pool("def f(x): return x + 1")
    await own_stage.place(pool)
    sent = asyncio.Event()  # past the stream, and its caller never says to have it
    await own_stage.bus.subscribe(subjects.outputs(own_stage.reply), lambda _message: sent.set())
    call = await own_stage.call(pool, (1,), direct=True)
    await own_stage.until(sent.is_set)
    process.send(signal.SIGTERM)
    assert await process.ended() == 0
    assert (await own_stage.result(call)).value == 2, "it is stored"
    await own_stage.settled(pool)


async def test_a_new_worker_removes_what_a_killed_one_left(
    own_stage: Stage, process: Any, data: Path, launch_worker: Any
) -> None:
    pool = await own_stage.pool(FINE)
    await own_stage.place(pool)
    left = data / "containers" / own_stage.worker
    assert left.is_dir()
    await process.kill()
    await launch_worker().serving()
    assert not left.exists()


async def test_work_goes_on_after_a_restart_of_the_broker(
    own_stage: Stage, broker: Any, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    pool = await own_stage.pool(GATED)
    await own_stage.place(pool)
    call = await own_stage.call(pool, (str(gate),))
    await own_stage.until(lambda: "runs" in own_stage.text())
    await broker.restart()
    own_stage.states.clear()
    await own_stage.until(lambda: own_stage.states)  # the worker is connected again, and this side hears
    gate.touch()
    assert (await own_stage.result(call)).value == 1

    async def answers() -> str | None:
        try:
            return await own_stage.call(pool, (str(gate),))
        except BusError:
            return None

    again = await eventually(answers)
    assert (await own_stage.result(again)).value == 1
    await own_stage.settled(pool)
