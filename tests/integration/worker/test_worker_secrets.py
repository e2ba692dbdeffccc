"""What a container finds of its secrets. The test plays the registry, which reveals them."""

from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from worker_stage import Stage

from tidemill import exception
from tidemill._wire import failure, ids, subjects
from tidemill._wire.secrets import Revealed, RevealSecrets
from tidemill._wire.specs import ImageSpec
from tidemill_common.metrics import new_registry
from tidemill_common.requests import Endpoints

CODE = """
import os

def f(*names):
    return {name: os.environ.get(name) for name in names}
"""

Answer = Callable[[str, RevealSecrets], Awaitable[Revealed]]


async def play_registry(stage: Stage, answer: Answer) -> None:
    make = Endpoints(structlog.get_logger(), new_registry("test", "1"))
    endpoint = make.endpoint("reveal_secrets", RevealSecrets, answer)
    await stage.bus.serve("tidemill-registry", "1.0.0", {subjects.reveal_secrets("main"): endpoint})


async def test_variables_come_from_the_image_then_secrets_then_env(stage: Stage) -> None:
    asked: list[RevealSecrets] = []

    async def reveal(_workspace: str, request: RevealSecrets) -> Revealed:
        asked.append(request)
        return Revealed({"SECRET": "secret", "BOTH": "secret", "ALL": "secret"})

    await play_registry(stage, reveal)
    pool = await stage.pool(
        CODE,
        image=ImageSpec((("env", {"vars": {"IMAGE": "image", "BOTH": "image", "ALL": "image"}}),)),
        secrets=("st-1", "st-2"),
        env={"ENV": "env", "ALL": "env"},
    )
    await stage.place(pool)
    found = (await stage.result(await stage.call(pool, ("IMAGE", "SECRET", "ENV", "BOTH", "ALL")))).value
    assert found == {"IMAGE": "image", "SECRET": "secret", "ENV": "env", "BOTH": "secret", "ALL": "env"}
    assert set(asked) == {
        RevealSecrets(pool.id, ("st-1", "st-2"))
    }  # more than once if nobody answers in time


async def test_a_container_without_secrets_asks_nobody(stage: Stage) -> None:
    pool = await stage.pool(CODE)
    await stage.place(pool)
    assert (await stage.result(await stage.call(pool, ("SECRET",)))).value == {"SECRET": None}


async def test_a_registry_that_is_away_for_a_moment_is_waited_for(own_stage: Stage, process: Any) -> None:
    pool = await own_stage.pool(CODE, secrets=("st-1",))
    answer = await own_stage.ask_to_place(pool, container := ids.new(ids.CONTAINER))
    assert answer.accepted
    await own_stage.until(lambda: "secrets cannot be had yet" in process.log.read_text())
    failures = [exception.ServiceError("the registry cannot use its database")]

    async def reveal(_workspace: str, _request: RevealSecrets) -> Revealed:
        if failures:
            raise failures.pop()
        return Revealed({"SECRET": "late"})

    await play_registry(own_stage, reveal)
    assert (await own_stage.event(container)).state == "started"
    assert (await own_stage.result(await own_stage.call(pool, ("SECRET",)))).value == {"SECRET": "late"}


async def test_a_secret_that_was_deleted_fails_the_start_for_good(stage: Stage) -> None:
    async def reveal(_workspace: str, _request: RevealSecrets) -> Revealed:
        raise exception.NotFoundError("the secret st-1 that the function uses was deleted")

    await play_registry(stage, reveal)
    pool = await stage.pool(CODE, secrets=("st-1",))
    await stage.ask_to_place(pool, container := ids.new(ids.CONTAINER))
    event = await stage.event(container)
    assert (event.state, event.final) == ("failed", True)
    assert "st-1" in event.reason
    assert isinstance(failure.to_exception(event.failure), exception.NotFoundError)
