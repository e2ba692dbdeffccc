"""Containers and the workers that run them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from tidemill import exception
from tidemill._wire import subjects
from tidemill._wire.control import (
    ContainerState,
    Done,
    GetSchedulerStatus,
    ListWorkers,
    SchedulerStatus,
    StopContainers,
    WorkerList,
    WorkerState,
)
from tidemill_gateway.api.answering import Cursor, Limit, Requester, show_page
from tidemill_gateway.api.models import Page, moment
from tidemill_gateway.sessions import Session, ask

router = APIRouter(tags=["containers"])

ContainerRef = Annotated[str, Path(pattern=r"^co-[A-Za-z0-9]{1,60}$", description="a container's id")]


@dataclass(frozen=True, slots=True)
class Container:
    """A container. `state` is `starting`, `idle`, `busy` or `stopping`, since `since`."""

    id: str
    pool: str
    app_name: str
    function: str
    worker: str
    state: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker: what it is and what it has left. Cores, MiB, and GPUs by type."""

    id: str
    host: str
    version: str
    runtime: str
    draining: bool
    capabilities: list[str]
    labels: dict[str, str]
    total_cpu: float
    free_cpu: float
    total_memory: int
    free_memory: int
    total_gpus: dict[str, int]
    free_gpus: dict[str, int]
    containers: int

    @classmethod
    def of(cls, state: WorkerState) -> "Worker":
        """Return it as it is shown."""
        return cls(
            id=state.worker,
            host=state.host,
            version=state.version,
            runtime=state.runtime,
            draining=state.draining,
            capabilities=list(state.capabilities),
            labels=state.labels,
            total_cpu=state.total.cpu,
            free_cpu=state.free.cpu,
            total_memory=state.total.memory,
            free_memory=state.free.memory,
            total_gpus=state.total.gpus,
            free_gpus=state.free.gpus,
            containers=len(state.containers),
        )


@router.get("/workers", response_model=Page[Worker])
async def list_workers(
    request: Request, requester: Requester, limit: Limit = 100, cursor: Cursor = ""
) -> Response:
    """List the workers that are alive, by id."""
    found = await requester.scheduler("list_workers", ListWorkers(), WorkerList)
    workers = sorted((Worker.of(state) for state in found.workers), key=lambda worker: worker.id)
    after = [worker for worker in workers if worker.id > cursor]
    return show_page(request, after[:limit], after[limit - 1].id if len(after) > limit else "")


@router.get("/containers", response_model=Page[Container])
async def list_containers(
    request: Request,
    requester: Requester,
    app: Annotated[str, Query(max_length=64, description="the name of an app")] = "",
    limit: Limit = 100,
    cursor: Cursor = "",
) -> Response:
    """List the containers that there are, by id."""
    containers = [each for each in _containers(await _status(requester)) if not app or each.app_name == app]
    after = [container for container in containers if container.id > cursor]
    return show_page(request, after[:limit], after[limit - 1].id if len(after) > limit else "")


@router.delete("/containers/{container}", status_code=204)
async def stop_container(
    requester: Requester,
    container: ContainerRef,
    graceful: Annotated[bool, Query(description="let it finish what it runs")] = True,
) -> Response:
    """Stop a container. What it runs and cannot finish is run again elsewhere; others may take its place."""
    status = await _status(requester)
    found = next((each for each in _containers(status) if each.id == container), None)
    if found is None:
        raise exception.NotFoundError(f"there is no container {container!r}")
    order = StopContainers((container,), status.term, graceful)
    await ask(requester.bus, subjects.worker(found.worker, "stop"), order, Done)
    return Response(status_code=204)


async def _status(requester: Session) -> SchedulerStatus:
    return await requester.scheduler("status", GetSchedulerStatus(), SchedulerStatus)


def _containers(status: SchedulerStatus) -> list[Container]:
    pools = {pool.pool: (pool.app_name, pool.function) for pool in status.pools}
    found = [
        _container(worker, state, *pools.get(state.pool, ("", "")))
        for worker in status.workers
        for state in worker.containers
    ]
    return sorted(found, key=lambda container: container.id)


def _container(worker: WorkerState, state: ContainerState, app_name: str, function: str) -> Container:
    return Container(
        id=state.container,
        pool=state.pool,
        app_name=app_name,
        function=function,
        worker=worker.worker,
        state=state.state,
        since=moment(state.since),
    )
