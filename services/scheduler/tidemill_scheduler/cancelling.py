"""The end of a call: what waits is purged, what runs is stopped, what is kept gets its result.

Any replica answers: it only publishes, purges and stores, each of which may be repeated.
"""

import asyncio
from collections import defaultdict

from tidemill import exception
from tidemill._wire import coding, subjects
from tidemill._wire.control import CallRecord, CancelCall, Done
from tidemill._wire.scheduling import Cancelled
from tidemill_common import chunks, streams
from tidemill_scheduler import endings
from tidemill_scheduler.questions import check_workspace
from tidemill_scheduler.replica import Replica


class Cancelling:
    """Answers `tm.scheduler.<ws>.cancel`."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._endings: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def cancel(self, workspace: str, request: CancelCall) -> Done:
        """Cancel a call. Workers hear first, so that nothing is taken between the bell and the purge."""
        check_workspace(workspace, request.prefix)
        await self._check_size(workspace, request)
        bus = self._replica.bus
        try:
            stream, inputs = (
                subjects.stream_of(request.prefix),
                subjects.call_inputs(request.prefix, request.call),
            )
        except ValueError as error:
            raise exception.InvalidError(str(error)) from error
        cancelled = coding.encode(Cancelled(workspace, request.call, request.terminate_containers))
        bus.publish(subjects.cancel(workspace, request.call), cancelled)
        await bus.flush()
        purged = await asyncio.gather(
            bus.purge(stream, inputs),
            bus.purge(streams.TIMERS.name, subjects.call_timers(workspace, request.call)),
            bus.purge(streams.TIMERS.name, subjects.call_due(workspace, request.call)),
        )
        self._replica.records.cancelled(workspace, subjects.pool_of_prefix(request.prefix), request)
        if request.kept:
            async with self._endings[workspace]:  # however many calls it cancels, the others have their turn
                await endings.end_kept_call(
                    self._replica, workspace, request.call, request.num_inputs, endings.CANCELLATION
                )
        self._replica.log.info("call cancelled", call=request.call, purged=sum(purged))
        return Done()

    async def _check_size(self, workspace: str, request: CancelCall) -> None:
        """Refuse what would have results stored for inputs that never were."""
        if not 0 <= request.num_inputs <= chunks.MAX_INDEX + 1:
            raise exception.InvalidError(f"a call has no {request.num_inputs:,} inputs")
        if not request.kept or request.num_inputs <= endings.STORE_AT_ONCE:
            return
        subject = subjects.call_record(workspace, request.call)
        stored = await self._replica.bus.last(subjects.results_stream(workspace), subject)
        try:
            known = coding.decode(CallRecord, stored.data).num_inputs if stored else 0
        except ValueError:
            known = 0
        if known < request.num_inputs:
            raise exception.InvalidError(f"{request.call} was made with {known:,} inputs")
