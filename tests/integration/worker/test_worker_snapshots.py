"""Snapshots on a worker of plain processes: what runs once, what in each container, and what is refused."""

import os
import shutil
import signal
from collections.abc import Callable
from typing import Any

import pytest
import waiting
from snapshot_code import CODE
from worker_stage import Stage

from tidemill._wire import ids
from tidemill._wire.specs import ClassSpec, MethodSpec, Pool, Resources
from tidemill_worker.snapshots import _unfit

SNAPSHOT = {"enable_memory_snapshot": True}


async def pool_of(stage: Stage, cls: str, *methods: str, **spec: Any) -> Pool:
    """Make the pool of a class of `CODE`."""
    declared = ClassSpec(tuple(map(MethodSpec, methods)))
    return await stage.pool(CODE, cls, cls=declared, options=SNAPSHOT, **spec)


async def ask(stage: Stage, pool: Pool, method: str) -> Any:
    return (await stage.result(await stage.call(pool, (), method=method))).value


async def look(stage: Stage, pool: Pool) -> tuple[dict[str, Any], str]:
    """Start a container, have it look at itself, and end it; return what it saw, and its id."""
    (container,) = await stage.place(pool)
    seen = await ask(stage, pool, "look")
    await stage.stop(container)
    await stage.event(container, "stopped")
    return seen, container


async def test_first_hooks_run_once_for_all_containers_and_the_others_in_each(stage: Stage) -> None:
    pool = await pool_of(stage, "Model", "look", parameters={"size": 5}, env={"SECRET": "s"})
    seen, ones = zip(*[await look(stage, pool) for _ in range(3)], strict=True)
    assert len({one["pid"] for one in seen}) == 1, "one process ran the hooks of the snapshot"
    assert len({one["mine"] for one in seen}) == 3
    assert all(one["order"] == ("early", "async", "late") and one["late"] for one in seen)
    assert all(one["size"] == 5 and one["secret"] == "s" and not one["path"] for one in seen)
    assert [one["task"] for one in seen] == list(ones)
    await stage.until(lambda: "early" in stage.text(ones[0]))
    assert stage.text().count("imported") == stage.text().count("early") == 1

    assert len({one["random"] for one in seen}) == 3, "seeded before, and different after"
    assert len({one["uuid"] for one in seen}) == len({one["cwd"] for one in seen}) == 3
    assert {one["read"] for one in seen} == {"import os, random, sys, threading, uuid\n"}, (
        "each reads on alone"
    )


async def test_a_snapshot_that_dies_is_made_again_and_other_variables_have_another(stage: Stage) -> None:
    pool = await pool_of(stage, "Model", "look")
    first, _ = await look(stage, pool)
    os.kill(first["pid"], signal.SIGKILL)
    await waiting.until(lambda: _is_gone(first["pid"]))
    second, _ = await look(stage, pool)
    assert second["pid"] != first["pid"]
    changed = await pool_of(stage, "Model", "look", env={"SECRET": "new"})
    third, _ = await look(stage, changed)
    assert third["secret"] == "new"
    assert third["pid"] not in (first["pid"], second["pid"])


async def test_what_a_copy_would_lose_is_refused_with_the_reason_and_the_container_starts(
    stage: Stage,
) -> None:
    pool = await pool_of(stage, "Threaded", "alive")
    for _ in range(2):
        (container,) = await stage.place(pool)
        assert await ask(stage, pool, "alive") == (True, ("early", "async", "late"))
        await stage.until(lambda one=container: "without its memory snapshot: threads run" in stage.text(one))
        assert "sampler" in stage.text(container)
        await stage.stop(container)
        await stage.event(container, "stopped")


async def test_a_snapshot_that_no_fork_outlives_is_not_made_for_ever(stage: Stage) -> None:
    code = "import os\nos.register_at_fork(before=lambda: os._exit(7))\ndef f(): return 'ran'"
    pool = await stage.pool(code, options=SNAPSHOT)
    for _ in range(2):  # made a few times for the first, and never again
        (container,) = await stage.place(pool)
        assert (await stage.result(await stage.call(pool, ()))).value == "ran"
        await stage.until(
            lambda one=container: (
                "without its memory snapshot: it has ended when it was to be forked" in stage.text(one)
            )
        )
        await stage.stop(container)
        await stage.event(container, "stopped")


async def test_user_code_cannot_say_for_its_snapshot_what_that_is(stage: Stage) -> None:
    code = """
        import msgpack, os, stat

        said = msgpack.packb([1, 0, {"memory": "none"}])
        for fd in range(3, 64):
            try:
                if stat.S_ISSOCK(os.fstat(fd).st_mode):
                    os.write(fd, len(said).to_bytes(4, "big") + said)
            except OSError:
                pass

        def f():
            pass
        """
    pool = await stage.pool(code, options=SNAPSHOT)
    container = ids.new(ids.CONTAINER)
    assert (await stage.ask_to_place(pool, container)).accepted
    event = await stage.event(container)
    assert (event.state, "the image's Python ended" in event.reason) == ("failed", True)


async def test_a_hook_that_raises_is_told_as_in_any_other_start(stage: Stage) -> None:
    code = "def f(): pass\nraise LookupError('no model here')"
    pool = await stage.pool(code, options=SNAPSHOT)
    container = ids.new(ids.CONTAINER)
    assert (await stage.ask_to_place(pool, container)).accepted
    event = await stage.event(container)
    assert (event.state, event.reason) == ("failed", "LookupError: no model here")
    await stage.until(lambda: "LookupError: no model here" in stage.text(container))


async def test_a_snapshot_that_is_not_ready_in_time_is_a_start_that_was_not(stage: Stage) -> None:
    code = "import threading\nthreading.Event().wait()\ndef f(): pass"
    pool = await stage.pool(code, options=SNAPSHOT, startup_timeout=0.5)
    container = ids.new(ids.CONTAINER)
    assert (await stage.ask_to_place(pool, container)).accepted
    event = await stage.event(container)
    assert (event.state, event.reason) == (
        "failed",
        "FunctionTimeoutError: the container was not ready within 0.5 s",
    )


async def test_a_function_has_its_module_and_one_with_a_gpu_has_no_snapshot(stage: Stage) -> None:
    code = "import os\npid = os.getpid()\ndef f(): return pid, os.getpid()"
    pool = await stage.pool(code, options=SNAPSHOT)
    await stage.place(pool)
    imported, mine = (await stage.result(await stage.call(pool, ()))).value
    assert imported != mine
    assert "without" not in stage.text()

    pool = await stage.pool(code, resources=Resources(gpus=(("H100", 1),)))
    assert "GPU" in _unfit(pool)


@pytest.mark.skipif(
    "CI" not in os.environ and (os.getuid() != 0 or not all(map(shutil.which, ("bwrap", "nft")))),
    reason="sandboxes need root here, with bubblewrap and nftables",
)
async def test_a_sandbox_is_forked_from_a_snapshot_that_has_no_capability(
    alone: Stage, launch_worker: Callable[..., Any]
) -> None:
    first = str(1_600_000_000 + 65536 * (os.getpid() % 1000))
    worker = launch_worker(TIDEMILL_RUNTIME="bubblewrap", TIDEMILL_WORKER_IDS=first)
    await worker.serving()
    pool = await pool_of(alone, "Model", "look", "held", env={"SECRET": "s"})
    containers = await alone.place(pool, 2)
    await alone.until(lambda: "early" in alone.text())
    assert "without" not in alone.text()
    held = await ask(alone, pool, "held")
    assert held["early"] == held["here"] == 0, "capabilities"
    assert held["written"] == "early", "what was written goes with it"
    assert held["names"] == [], "nothing of the template is in sight"
    assert held["pids"] == 2
    assert held["ids"] == 65536, "all that a container has"
    assert held["unshare"] == "EPERM"
    await alone.stop(*containers)
    for container in containers:
        await alone.event(container, "stopped")
    worker.send(signal.SIGTERM)
    assert await worker.ended() == 0


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
