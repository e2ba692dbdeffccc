"""What users ask of single containers: which there are, end one, run a process in one.

Only the leader answers: it knows every container, and its orders are the ones that workers follow.
"""

from collections.abc import Iterator

from tidemill import exception
from tidemill._bus.protocol import BusError, NoResponder, RequestFailed
from tidemill._wire import coding, errors, ids, subjects
from tidemill._wire.containers import ContainerInfo, ContainerList, Execute, ListContainers, StopContainer
from tidemill._wire.control import Done, ErrorReply
from tidemill_scheduler.placements import Placer
from tidemill_scheduler.replica import Replica


class Containers:
    """Answers `tm.scheduler.<ws>.list_containers`, `.stop_container` and `.execute` for one term."""

    def __init__(self, replica: Replica, placer: Placer) -> None:
        self._replica = replica
        self._placer = placer

    async def list(self, workspace: str, request: ListContainers) -> ContainerList:
        """Return the containers of a workspace that run."""
        infos = self._infos(workspace)
        found = [one for one in infos if not request.app_id or one.app_id == request.app_id]
        return ContainerList(tuple(sorted(found, key=lambda one: one.created)))

    async def stop(self, workspace: str, request: StopContainer) -> Done:
        """End a container. One that has ended meanwhile is not there."""
        self._worker_of(workspace, request.container)
        await self._placer.stop((request.container,), "asked", graceful=request.graceful)
        return Done()

    async def execute(self, workspace: str, request: Execute) -> Done:
        """Have its worker start a process in a container."""
        worker = self._worker_of(workspace, request.container)
        try:
            await self._replica.bus.request(subjects.worker(worker, "execute"), coding.encode(request))
        except RequestFailed as error:
            raise errors.to_exception(ErrorReply(error.code, error.message, error.hint)) from error
        except NoResponder as error:
            raise exception.NotFoundError(
                f"the worker of {request.container} is gone", hint="what it ran runs again in another"
            ) from error
        except BusError as error:
            raise exception.ServiceError(f"the worker of {request.container} does not answer") from error
        return Done()

    def _infos(self, workspace: str) -> Iterator[ContainerInfo]:
        directory = self._replica.directory
        for worker in self._replica.fleet.states():
            for one in worker.containers:
                pool = directory.pools.get(one.pool) or directory.gone.get(one.pool)
                if pool is not None and pool.workspace == workspace:
                    yield ContainerInfo(
                        one.container,
                        pool.app_id,
                        pool.app_name,
                        pool.name,
                        one.pool,
                        worker.worker,
                        one.state,
                        ids.created(one.container),
                        one.generation,
                    )

    def _worker_of(self, workspace: str, container: str) -> str:
        """Return the worker that has a container of this workspace; of others nothing is told."""
        for info in self._infos(workspace):
            if info.container == container:
                return info.worker
        raise exception.NotFoundError(
            f"no container {container} runs", hint="`tidemill container list` shows those that do"
        )
