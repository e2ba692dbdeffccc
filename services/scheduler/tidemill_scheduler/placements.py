"""Orders to workers: start this container, stop those."""

import asyncio
import time
from dataclasses import replace

from tidemill._bus.protocol import BusError, Disconnected, NoResponder, RequestFailed, RequestTimeout
from tidemill._wire import coding, ids, subjects
from tidemill._wire.scheduling import Placement, PlacementAnswer, StopContainers
from tidemill._wire.specs import Pool
from tidemill_scheduler.placing import Assignment, Order, choose
from tidemill_scheduler.replica import Replica

PLACE_TIMEOUT = 0.1  # seconds for a worker to accept or refuse
STOP_TIMEOUT = 1.0
FINISH = 30.0  # seconds for what a container runs that is told to stop
CANDIDATES = 5  # workers asked for one container before the pool waits for news


class Placer:
    """Gives orders under one term. Every order carries it: workers refuse those of an older one."""

    def __init__(self, replica: Replica, term: int) -> None:
        self._replica = replica
        self._term = term

    async def place(self, order: Order, assignment: Assignment) -> bool:
        """Ask a worker, and on refusal or silence the next best; return whether one accepted.

        Each try has a container id of its own: a worker that was silent may have started the first one,
        which then shows up in its report and counts.
        """
        for _ in range(CANDIDATES):
            if await self._ask(order.pool, assignment):
                return True
            order = replace(order, count=1, excluded=order.excluded | {assignment.worker})
            views = self._replica.fleet.views(self._replica.directory.image)
            choice = choose(order, views)
            if not choice.assignments:
                return False
            assignment = choice.assignments[0]
        return False

    async def _ask(self, pool: Pool, assignment: Assignment) -> bool:
        fleet, container, worker = self._replica.fleet, ids.new(ids.CONTAINER), assignment.worker
        placement = Placement(container, pool, self._term, assignment.overcommit, time.time())
        fleet.asked(container, pool, worker)
        try:
            data = await self._replica.bus.request(
                subjects.worker(worker, "place"), coding.encode(placement), timeout=PLACE_TIMEOUT
            )
            answer = coding.decode(PlacementAnswer, data)
        except (RequestTimeout, Disconnected) as error:
            return self._silent(worker, error)
        except (NoResponder, RequestFailed, ValueError) as error:
            answer = PlacementAnswer(accepted=False, reason=str(error))
        self._replica.metrics.placements.labels("accepted" if answer.accepted else "refused").inc()
        if not answer.accepted:
            fleet.refused(container, worker)
            self._replica.log.info("placement refused", worker=worker, pool=pool.id, reason=answer.reason)
        return answer.accepted

    def _silent(self, worker: str, error: BusError) -> bool:
        """Count an order whose fate is unknown: its room stays taken until a report tells."""
        self._replica.metrics.placements.labels("silent").inc()
        self._replica.fleet.shun(worker)
        self._replica.log.warning("no answer to a placement", worker=worker, error=type(error).__name__)
        return False

    async def stop(
        self, containers: tuple[str, ...], why: str, *, graceful: bool = True, finish: float = FINISH
    ) -> None:
        """Tell the workers that have them to stop containers. What does not arrive is decided again."""
        by_worker = self._replica.fleet.stopping(containers)
        self._replica.metrics.stops.labels(why).inc(sum(map(len, by_worker.values())))
        orders = {
            worker: StopContainers(mine, self._term, graceful, finish) for worker, mine in by_worker.items()
        }
        await asyncio.gather(*(self._stop(worker, order) for worker, order in orders.items()))

    async def _stop(self, worker: str, order: StopContainers) -> None:
        try:
            await self._replica.bus.request(
                subjects.worker(worker, "stop"), coding.encode(order), timeout=STOP_TIMEOUT
            )
        except BusError as error:
            self._replica.log.warning("no answer to a stop", worker=worker, error=str(error))
