"""Inputs that can never run are ended here: their outputs are stored, then they leave the queue.

In this order, so that a death between the two only stores the same outputs again, under the same ids.
"""

import asyncio
import time
from collections.abc import Iterator
from typing import Protocol

from tidemill._bus.protocol import AlreadyHeld, Stored
from tidemill._wire import coding, failure, subjects
from tidemill._wire.calls import DeadLetter, State
from tidemill._wire.messages import Chunk, Format, Output, Outputs, Payload, Status
from tidemill._wire.payload import INLINE_LIMIT, MESSAGE_LIMIT
from tidemill_common import chunks
from tidemill_common.records import reason_of
from tidemill_scheduler.replica import Replica

AT_ONCE = 100  # inputs ended side by side
STORE_AT_ONCE = 1_000  # results of one call stored side by side
SHOWN = 2_000  # characters of a failure's message that are told


class Queue(Protocol):
    """Where the inputs of a pool wait."""

    @property
    def id(self) -> str:
        """The pool."""

    @property
    def app_id(self) -> str:
        """Its app."""

    @property
    def workspace(self) -> str:
        """Whose they are."""

    @property
    def stream(self) -> str:
        """The stream that holds them."""

    @property
    def prefix(self) -> str:
        """Their subjects up to the call."""


CANCELLED = failure.from_text("InputCancellation", "the input was cancelled")


def readable(data: bytes) -> tuple[bytes, str]:
    """Return a failure that can be passed on, and one line about it.

    What user code made is neither small nor well-formed for certain.
    """
    try:
        message = failure.message_of(data)[:SHOWN]
    except Exception as error:  # any bytes may come
        message = f"ExecutionError: its failure cannot be read ({type(error).__name__})"
        return failure.from_text("ExecutionError", message), message
    return (data if len(data) <= INLINE_LIMIT else failure.from_text("ExecutionError", message)), message


class Ending:
    """Why inputs end, as their callers see it."""

    def __init__(self, status: Status, data: bytes) -> None:
        self.status = status
        self.data = data
        self.payload = Payload(Format.FAILURE, data)
        self.size = len(data) + 64

    def outputs(self, chunk: Chunk) -> Iterator[Outputs]:
        """Yield the outputs of a chunk, each message well below the largest that the server takes."""
        items = [Output(index, self.status, self.payload) for index in chunk.indices]
        step = max(1, MESSAGE_LIMIT // self.size) if chunk.reply else 1
        for start in range(0, len(items), step):
            yield Outputs(chunk.call, chunk.attempt, items[start : start + step], 0.0)


CANCELLATION = Ending(Status.CANCELLED, CANCELLED)


async def end_pool(replica: Replica, pool: Queue, ending: Ending) -> int:
    """End every input that waits in a pool; return how many messages there were."""
    count, batch = 0, list[Stored]()
    async for stored in replica.bus.read(pool.stream, subjects.pool_inputs(pool.prefix)):
        batch.append(stored)
        if len(batch) == AT_ONCE:
            count += await _end_all(replica, pool, batch, ending)
            batch = []
    return count + await _end_all(replica, pool, batch, ending)


async def _end_all(replica: Replica, pool: Queue, batch: list[Stored], ending: Ending) -> int:
    await asyncio.gather(*(_end(replica, pool, one, ending) for one in batch))
    return len(batch)


async def _end(replica: Replica, pool: Queue, stored: Stored, ending: Ending) -> None:
    try:
        chunk = chunks.read(stored.subject, stored.data, pool.workspace)
    except ValueError as error:
        replica.log.error("an input cannot be read", subject=stored.subject, error=str(error))
        call, _ = chunks.named(stored.subject)
        await bury_unreadable(replica, pool.workspace, pool.id, call, str(error), stored.data)
    else:
        await end_chunk(replica, pool.workspace, chunk, ending)
        if ending.status is Status.FAILURE:
            replica.records.ended(pool.workspace, pool.id, chunk, State.INIT_FAILURE, ending.data)
            await _bury(replica, pool, chunk, ending)
        else:
            replica.records.ended(pool.workspace, pool.id, chunk, State.CANCELLED, ending.data)
    await replica.bus.purge(pool.stream, stored.subject)


async def end_chunk(replica: Replica, workspace: str, chunk: Chunk, ending: Ending) -> None:
    """Store the outputs of a chunk that will not run; its message is left to the caller of this."""
    await asyncio.gather(*(_store(replica, workspace, chunk, outputs) for outputs in ending.outputs(chunk)))
    replica.metrics.ended.labels(ending.status.name.lower()).inc(len(chunk.indices))


async def _bury(replica: Replica, pool: Queue, chunk: Chunk, ending: Ending) -> None:
    """Keep inputs that were given up where they can be looked at and replayed."""
    reason = f"no container became ready: {reason_of(ending.data)}"
    for index, payload in zip(chunk.indices, chunk.inputs, strict=True):
        mine = coding.encode(chunk._replace(indices=[index], inputs=[payload]))
        letter = DeadLetter(pool.id, pool.app_id, chunk.call, index, time.time(), reason, mine, ending.data)
        await _store_letter(replica, pool.workspace, letter)


async def bury_unreadable(
    replica: Replica, workspace: str, pool: str, call: str, reason: str, data: bytes
) -> None:
    """Keep what cannot be read where it can be looked at, instead of delivering it for ever."""
    letter = DeadLetter(pool, "", call, 0, time.time(), reason, data, readable=False)
    await _store_letter(replica, workspace, letter)


async def _store_letter(replica: Replica, workspace: str, letter: DeadLetter) -> None:
    subject = subjects.dead(workspace, letter.pool, letter.call, letter.index)
    await replica.bus.store(subject, coding.encode(letter), msg_id=f"{letter.call}.{letter.index}.dead")


async def end_kept_call(replica: Replica, workspace: str, call: str, num_inputs: int, ending: Ending) -> None:
    """Store a result for every input of a kept call that has none."""
    for start in range(0, num_inputs, STORE_AT_ONCE):
        indices = list(range(start, min(num_inputs, start + STORE_AT_ONCE)))
        await end_chunk(replica, workspace, Chunk(call, indices, 0, "", [], 0.0), ending)


async def _store(replica: Replica, workspace: str, chunk: Chunk, outputs: Outputs) -> None:
    index = outputs.items[0].index
    subject = chunk.reply or subjects.result(workspace, chunk.call, index)
    msg_id = f"{chunk.call}.{chunk.attempt}.{index}.ended"
    try:
        await replica.bus.store(subject, coding.encode(outputs), msg_id=msg_id)
    except AlreadyHeld:  # it has its result: the first one wins
        return
