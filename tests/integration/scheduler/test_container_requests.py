"""What users ask the leader about single containers; workers are played by the test."""

import time
from typing import Any, TypeVar

import pytest
import waiting
from played_parts import BOUND, PlayedWorker, make_pool, until
from scheduler_stage import Parts

from tidemill._bus.protocol import Message, NoResponder, RequestFailed
from tidemill._wire import coding, ids, subjects
from tidemill._wire.containers import ContainerList, Execute, ListContainers, StopContainer
from tidemill._wire.control import Done

A = TypeVar("A")


async def ask(parts: Parts, verb: str, message: object, answer: type[A], workspace: str = "main") -> A:
    """Ask the leader, who may only begin to serve."""

    async def answered() -> A | None:
        try:
            data = await parts.bus.request(subjects.scheduler(workspace, verb), coding.encode(message))
        except NoResponder:
            return None
        return coding.decode(answer, data)

    found: A = await waiting.until(answered, BOUND)
    return found


async def with_container(parts: Parts) -> tuple[PlayedWorker, str]:
    """Return a worker, and the one container that it has."""
    await parts.scheduler()
    worker = await parts.worker()
    caller = await parts.caller(make_pool())
    await caller.submit()
    await until(lambda: worker.containers, "a container")
    (container,) = worker.containers

    async def is_listed() -> bool:
        return bool((await ask(parts, "list_containers", ListContainers(), ContainerList)).containers)

    while not await is_listed():
        await until(lambda: worker.containers)
    return worker, container


async def test_containers_are_listed_with_what_they_run(parts: Parts) -> None:
    began = time.time()
    worker, container = await with_container(parts)
    (found,) = (await ask(parts, "list_containers", ListContainers(), ContainerList)).containers
    assert (found.container, found.worker, found.function) == (container, worker.id, "f")
    assert (found.app_id, found.app_name) == ("ap-1", "app")
    assert began - 0.01 <= found.created <= time.time()
    for app, count in (("ap-1", 1), ("ap-2", 0)):
        answer = await ask(parts, "list_containers", ListContainers(app), ContainerList)
        assert len(answer.containers) == count


@pytest.mark.parametrize("graceful", [True, False])
async def test_a_container_is_stopped_by_its_worker(parts: Parts, graceful: bool) -> None:
    worker, container = await with_container(parts)
    await ask(parts, "stop_container", StopContainer(container, graceful), Done)
    await until(lambda: worker.stops, "an order")  # the leader waits a second for its answer
    (order,) = worker.stops
    assert (order.containers, order.graceful) == ((container,), graceful)


@pytest.mark.parametrize(
    ("verb", "message"),
    [
        ("stop_container", StopContainer("co-01ja8m3k9x4q7w2v5y6z0b1c2d")),
        ("execute", Execute("co-01ja8m3k9x4q7w2v5y6z0b1c2d", "sm-1", ("true",))),
    ],
)
async def test_a_container_that_does_not_run_is_not_found(parts: Parts, verb: str, message: Any) -> None:
    await parts.scheduler()
    with pytest.raises(RequestFailed, match="no container co-01ja8m3k9x4q7w2v5y6z0b1c2d runs") as caught:
        await ask(parts, verb, message, Done)
    assert caught.value.code == "not_found"
    assert "container list" in caught.value.hint


async def test_an_order_for_a_process_goes_to_the_containers_worker(parts: Parts) -> None:
    worker, container = await with_container(parts)
    orders: list[Execute] = []

    async def execute(asked: Message) -> bytes:
        orders.append(coding.decode(Execute, asked.data))
        return coding.encode(Done())

    await worker.bus.serve("more", "0.0.1", {subjects.worker(worker.id, "execute"): execute})
    order = Execute(container, ids.new(ids.STREAM), ("ls", "-l"), {"A": "b"}, "/", 24, 80)
    await ask(parts, "execute", order, Done)
    assert orders == [order]


async def test_why_a_worker_refuses_a_process_is_told(parts: Parts) -> None:
    worker, container = await with_container(parts)

    async def refuse(_asked: Message) -> bytes:
        raise RequestFailed("conflict", "the container is only starting", "try again")

    await worker.bus.serve("more", "0.0.1", {subjects.worker(worker.id, "execute"): refuse})
    with pytest.raises(RequestFailed, match="only starting") as caught:
        await ask(parts, "execute", Execute(container, "sm-1", ("true",)), Done)
    assert (caught.value.code, caught.value.hint) == ("conflict", "try again")


async def test_a_worker_that_is_gone_is_told_as_such(parts: Parts) -> None:
    _, container = await with_container(parts)
    with pytest.raises(RequestFailed, match="gone") as caught:
        await ask(parts, "execute", Execute(container, "sm-1", ("true",)), Done)
    assert caught.value.code == "not_found"


async def test_another_workspace_neither_sees_a_container_nor_touches_it(parts: Parts) -> None:
    worker, container = await with_container(parts)
    answer = await ask(parts, "list_containers", ListContainers(), ContainerList, "other")
    assert answer.containers == ()
    for verb, message in (
        ("stop_container", StopContainer(container)),
        ("execute", Execute(container, "sm-1", ("true",))),
    ):
        with pytest.raises(RequestFailed) as caught:
            await ask(parts, verb, message, Done, "other")
        assert caught.value.code == "not_found"
    assert not worker.stops
