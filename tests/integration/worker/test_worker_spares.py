"""Containers that are made before anybody needs them: which are used, and that they end."""

import os
import signal
from contextlib import suppress
from typing import Any

import psutil
from worker_stage import Stage

from tidemill_worker import spares
from tidemill_worker.children import children_of

CODE = "import os\ndef f(): return os.getppid()"  # init


async def init_of(stage: Stage) -> int:
    """Start a container of a pool of its own; return the pid of its init."""
    pool = await stage.pool(CODE)
    await stage.place(pool)
    return int((await stage.result(await stage.call(pool, ()))).value)


async def ahead(stage: Stage, template: int, *used: int) -> set[int]:
    """Wait until a template has made containers ahead; return their inits."""

    def made() -> set[int] | None:
        found = {pid for pid in children_of(template) if pid not in used and lives(pid)}
        return found if len(found) == spares.EACH else None

    found: set[int] = await stage.until(made)
    return found


def lives(pid: int) -> bool:
    """Return whether a process has not ended: one that was not collected yet has."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def gone(pids: set[int]) -> bool:
    return not any(map(lives, pids))


async def test_a_container_that_was_made_ahead_is_used_once_and_one_that_died_is_not(stage: Stage) -> None:
    first = await init_of(stage)
    template = psutil.Process(first).ppid()
    made = await ahead(stage, template, first)
    second = await init_of(stage)
    assert second in made

    made = await ahead(stage, template, first, second)
    for pid in made:
        os.kill(pid, signal.SIGKILL)
    await stage.until(lambda: not made & set(children_of(template)))
    third = await init_of(stage)
    assert third not in made
    assert len({first, second, third}) == 3
    assert made.isdisjoint(await ahead(stage, template, first, second, third))


async def test_what_was_made_ahead_ends_with_its_template(own_stage: Stage) -> None:
    first = await init_of(own_stage)
    template = psutil.Process(first).ppid()
    made = await ahead(own_stage, template, first)
    os.kill(template, signal.SIGKILL)
    await own_stage.until(lambda: gone(made))
    assert psutil.pid_exists(first), "a container that is used goes on"
    assert await init_of(own_stage) not in made


async def test_what_was_made_ahead_ends_with_its_worker(own_stage: Stage, process: Any) -> None:
    first = await init_of(own_stage)
    made = await ahead(own_stage, psutil.Process(first).ppid(), first)
    await process.kill()
    await own_stage.until(lambda: gone(made))
