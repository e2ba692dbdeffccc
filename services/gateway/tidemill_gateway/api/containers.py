"""Containers and the workers that run them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from tidemill._wire.containers import ContainerInfo, ContainerList, ListContainers, StopContainer
from tidemill._wire.control import Done
from tidemill._wire.scheduling import ListWorkers, WorkerList, WorkerState
from tidemill_gateway.api.answering import Cursor, Limit, OfApp, Requester, show_page
from tidemill_gateway.api.models import Page, moment

router = APIRouter(tags=["containers"])

ContainerRef = Annotated[str, Path(pattern=r"^co-[A-Za-z0-9]{1,60}$", description="a container's id")]


@dataclass(frozen=True, slots=True)
class Container:
    """A container. `state` is `starting`, `idle`, `busy` or `stopping`."""

    id: str
    app_id: str
    app_name: str
    function: str
    pool: str
    worker: str
    state: str
    created: datetime

    @classmethod
    def of(cls, info: ContainerInfo) -> "Container":
        """Return it as it is shown."""
        return cls(
            id=info.container,
            app_id=info.app_id,
            app_name=info.app_name,
            function=info.function,
            pool=info.pool,
            worker=info.worker,
            state=info.state,
            created=moment(info.created),
        )


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU. `state` is `free`, `taken`, `clearing`, `set aside` or `in use elsewhere`; `note` says why."""

    type: str
    name: str
    uuid: str
    memory: int
    state: str
    note: str


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker: what it is and what it has left. Cores, MiB, and GPUs by type and one by one."""

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
    gpus: list[Gpu]
    driver: str
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
            gpus=[Gpu(one.kind, one.name, one.uuid, one.memory, one.state, one.note) for one in state.gpus],
            driver=state.driver,
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
    app: OfApp = "",
    limit: Limit = 100,
    cursor: Cursor = "",
) -> Response:
    """List the containers that run, oldest first."""
    found = await requester.scheduler("list_containers", ListContainers(app), ContainerList)
    containers = sorted((Container.of(info) for info in found.containers), key=lambda container: container.id)
    after = [container for container in containers if container.id > cursor]
    return show_page(request, after[:limit], after[limit - 1].id if len(after) > limit else "")


@router.delete("/containers/{container}", status_code=204)
async def stop_container(
    requester: Requester,
    container: ContainerRef,
    graceful: Annotated[bool, Query(description="let it finish what it runs")] = True,
) -> Response:
    """Stop a container. What it runs and cannot finish runs again elsewhere; others may take its place."""
    await requester.scheduler("stop_container", StopContainer(container, graceful), Done)
    return Response(status_code=204)
