"""Questions of clients that any replica answers: clients cannot look into queues and reports themselves."""

from dataclasses import replace

from tidemill import exception
from tidemill._wire import coding, subjects
from tidemill._wire.autoscaling import GetPoolStats, PoolStats
from tidemill._wire.control import FindQueued, Queued
from tidemill._wire.scheduling import ListWorkers, WorkerList, WorkerState
from tidemill_common import streams
from tidemill_scheduler.decisions import COMING, READY, Phase
from tidemill_scheduler.replica import Replica


class Questions:
    """Answers `tm.scheduler.<ws>.find_queued`, `pool_stats` and `list_workers`."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def find_queued(self, workspace: str, request: FindQueued) -> Queued:
        """Say whether anything of a call waits, runs or is to be tried again."""
        check_workspace(workspace, request.prefix)
        try:
            places = (
                (subjects.stream_of(request.prefix), subjects.call_inputs(request.prefix, request.call)),
                (streams.TIMERS.name, subjects.call_timers(workspace, request.call)),
                (streams.TIMERS.name, subjects.call_due(workspace, request.call)),
            )
        except ValueError as error:
            raise exception.InvalidError(str(error)) from error
        for stream, subject in places:
            if await self._replica.bus.last(stream, subject) is not None:
                return Queued(queued=True)
        return Queued(queued=False)

    async def pool_stats(self, workspace: str, request: GetPoolStats) -> PoolStats:
        """Tell what a pool does now."""
        pool = self._replica.directory.pools.get(request.pool)
        if pool is None or pool.workspace != workspace:
            raise exception.NotFoundError("there is no such pool", hint="its app may have been stopped")
        queue = await self._replica.bus.consumer_state(pool.stream, pool.id)
        phases = [view.phase for view in self._replica.fleet.containers(pool.id)]
        return PoolStats(
            waiting=queue.pending if queue else 0,
            running=queue.ack_pending if queue else 0,
            containers=sum(phase in READY | COMING for phase in phases),
            idle=phases.count(Phase.IDLE),
        )

    async def list_workers(self, workspace: str, _request: ListWorkers) -> WorkerList:
        """Tell the workers that are alive, as the bucket has them."""
        records = await self._replica.bus.bucket(streams.WORKERS).items()
        states = (coding.decode(WorkerState, record) for record in records.values())
        return WorkerList(tuple(shown(self._replica, workspace, state) for state in states))


def shown(replica: Replica, workspace: str, state: WorkerState) -> WorkerState:
    """Return a worker's report without leases and without other workspaces' containers."""
    mine = tuple(
        container
        for container in state.containers
        if (pool := replica.directory.pools.get(container.pool)) and pool.workspace == workspace
    )
    return replace(state, leases=(), containers=mine)


def check_workspace(workspace: str, prefix: str) -> None:
    """Refuse a prefix of inputs that is not one of the workspace; `NotFoundError`."""
    try:
        owner = subjects.workspace_of(prefix)
    except ValueError as error:
        raise exception.InvalidError(str(error)) from error
    if owner != workspace:
        raise exception.NotFoundError("there is no such pool", hint="its app may have been stopped")
