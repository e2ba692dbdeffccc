"""A schedule's firing becomes a kept call of the function, as `.spawn()` without arguments makes one.

which pool?     the one that serves the function now, if it still has the schedule
which call?     its id follows from the schedule and the time, so that a firing told twice is one call
in which order? the input, the call's record, the timer that follows, the acknowledgement: a record
                that is there says that the input was stored, whoever died in between
"""

import time
from contextlib import suppress

from tidemill._bus.protocol import AlreadyHeld, BusError, WrongSequence
from tidemill._wire import coding, subjects
from tidemill._wire.control import CallRecord
from tidemill._wire.messages import Chunk, Payload
from tidemill._wire.payload import encode_call
from tidemill._wire.schedules import Fired, Firing
from tidemill._wire.specs import Pool
from tidemill_common import schedules, streams
from tidemill_common.bus.protocol import Delivery
from tidemill_scheduler.replica import Replica

NO_ARGUMENTS = Payload(*encode_call((), {}))


class Firings:
    """Acts on what schedules fire. Runs on every replica."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def act(self, delivery: Delivery) -> str:
        """Make the call that a firing stands for, or none; return what was done. `ValueError` if unreadable.

        The message is left to the caller: it is acknowledged when this has returned.
        """
        firing = coding.decode(Firing, delivery.data)
        call = schedules.call_id(firing, delivery.headers)
        pool = await self._pool(firing)
        if pool is None:
            self._replica.log.info("a firing is out of date", schedule=firing.schedule, app=firing.app_id)
            return "out of date"
        outcome = await self._call(pool, call)
        following = schedules.following(firing, delivery.time)
        if following is not None:
            await self._arm(following)
        upcoming = schedules.next_firing(delivery.headers)
        if following is not None:
            upcoming = coding.decode(Firing, following.data).due
        await self._note(Fired(firing.schedule, delivery.time, call, upcoming))
        return outcome

    async def _pool(self, firing: Firing) -> Pool | None:
        """Return the pool that is to be called: none for a schedule that its function has no more."""
        directory = self._replica.directory
        await directory.filled.wait()
        serving = directory.serving(firing.function_id)
        name = serving.id if serving else firing.pool
        pool = directory.get(name) or await directory.read(name)
        if pool is None or pool.superseded or pool.spec.schedule != firing.declared:
            return None
        return pool

    async def _call(self, pool: Pool, call: str) -> str:
        bus = self._replica.bus
        record_subject = subjects.call_record(pool.workspace, call)
        if await bus.last(subjects.results_stream(pool.workspace), record_subject):
            return "repeated"
        now = time.time()
        chunk = Chunk(call, [0], 0, "", [NO_ARGUMENTS], now, root=call, collect=pool.spec.is_generator)
        restricted = pool.spec.restrict_output
        record = CallRecord(call, pool.id, pool.prefix, 1, now, pool.app_id, restricted)
        with suppress(AlreadyHeld):  # it waits since the one who stored it died, and lacks its record
            await bus.store(
                subjects.inputs(pool.prefix, call, 0, 0),
                coding.encode(chunk),
                msg_id=subjects.input_key(call, 0, 0),
            )
        try:
            await bus.store(record_subject, coding.encode(record), msg_id=f"{call}.call")
        except AlreadyHeld:  # by another replica at the same time
            return "repeated"
        self._replica.log.info("a schedule fired", pool=pool.id, function=pool.spec.name, call=call)
        bus.publish(subjects.demand(pool.workspace, pool.id), b"")
        return "fired"

    async def _arm(self, following: schedules.Timer) -> None:
        """Set the next timer, unless there is one: of the first telling of this firing, or of a deploy."""
        try:
            await self._replica.bus.store(following.subject, following.data, headers=following.headers)
        except WrongSequence:
            return

    async def _note(self, fired: Fired) -> None:
        """Keep what listings show."""
        try:
            await self._replica.bus.bucket(streams.FIRINGS).put(fired.schedule, coding.encode(fired))
        except BusError as error:
            self._replica.log.warning("a firing is not noted", schedule=fired.schedule, error=str(error))
