"""Calls whose results are kept (`spawn` and its relatives): how they are read. `_spawning` starts them.

A kept call is a record (`tm.results.<ws>.<call>.call`) and one stored output per input, each written once:
the first terminal result wins. To wait for one is to listen and to read: what is heard is only a bell (a core
subscriber also hears publishes that the stream refused), the value is always the stored one, read from the
stream's leader.
"""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from tidemill import _client, exception
from tidemill._bus.protocol import BusError, Message, Subscription
from tidemill._caller import explain
from tidemill._outcome import Outcome
from tidemill._wire import coding, failure, subjects
from tidemill._wire.control import CallRecord, CancelCall, Done, Trouble
from tidemill._wire.messages import Blob, Format, Outputs, Status
from tidemill.config import MAX_PAYLOAD_LIMIT

if TYPE_CHECKING:
    from tidemill._caller import Caller

LOOK = 2.0  # seconds between looks for a result, for want of a bell
KEPT = 7 * 86_400.0

T = TypeVar("T")


class Stored(NamedTuple):
    """What a stored output says, apart from its value."""

    status: int
    container: str


class KeptCall:
    """What is stored about a kept call, as one reader sees it. `max_size` bounds results (bytes)."""

    def __init__(
        self,
        caller: "Caller",
        call: str,
        *,
        max_size: int = MAX_PAYLOAD_LIMIT,
        record: CallRecord | None = None,
    ) -> None:
        self.caller = caller
        self._max_size = max_size
        self.call = call
        self._workspace = caller.workspace
        self._stream = subjects.results_stream(caller.workspace)
        self._record = record
        self._restricted: bool | None = record.restrict_output if record is not None else None

    async def record(self) -> CallRecord:
        """Return the call's own record; `OutputExpiredError` when it is gone."""
        if self._record is None:
            self._record = await self._read_record()
        return self._record

    async def _read_record(self) -> CallRecord:
        data = await self._stored(subjects.call_record(self._workspace, self.call))
        if data is None:
            raise exception.OutputExpiredError(
                f"nothing is stored about {self.call}",
                hint=f"results are kept for {KEPT / 86_400:g} days",
            )
        return coding.decode(CallRecord, data)

    async def result(self, index: int, timeout: float | None) -> Outcome:
        """Return an input's terminal output, waiting up to `timeout` seconds for it (None: for ever).

        Raises:
            TimeoutError: it is not there yet (the builtin one).
            OutputExpiredError: it was there, and its time is over.
        """
        if timeout is None or timeout > 0:
            try:
                async with asyncio.timeout(timeout):
                    return await self._wait(index)
            except TimeoutError:
                raise TimeoutError(f"{self.call} is not finished after {timeout:g} s") from None
        found = await self.look(index)
        if found is None:
            await self._check(index)
            raise TimeoutError(f"{self.call} is not finished")
        return found

    async def look(self, index: int) -> Outcome | None:
        """Return an input's terminal output if it is stored."""
        data = await self._stored(subjects.result(self._workspace, self.call, index))
        if data is None:
            return None
        if self._restricted is None:
            self._restricted = (await self._read_record()).restrict_output
        output = coding.decode(Outputs, data).items[0]
        form, body = output.payload
        if not isinstance(body, bytes) and Blob(*body).size > self._max_size:
            raise exception.RequestSizeError(
                f"the result has {Blob(*body).size:,} bytes, read here are up to {self._max_size:,}"
            )
        outcome = await self.caller.outcome(output.status, form, body, keep=True)
        return outcome._replace(restricted=self._restricted)

    async def outputs(self) -> dict[int, "Stored"]:
        """Return, for every input that has its output, what that says. Reads all of them."""
        found: dict[int, Stored] = {}
        try:
            async for stored in self.caller.bus.read(
                self._stream, subjects.call_results(self._workspace, self.call)
            ):
                if stored.subject != subjects.call_record(self._workspace, self.call):
                    outputs = coding.decode(Outputs, stored.data)
                    output = outputs.items[0]
                    found[output.index] = Stored(output.status, outputs.container)
        except BusError as error:
            raise explain(error) from error
        return found

    async def _wait(self, index: int) -> Outcome:
        bell, trouble = asyncio.Event(), list[Trouble]()

        def on_trouble(final: Trouble) -> None:
            trouble.append(final)
            bell.set()

        subscription = await self._listen(index, bell)
        try:
            found = await self._unless_away(self.look(index))
            if found is not None:
                return found
            while (record := await self._unless_away(self._check(index))) is None:
                await _ring_or_time(bell)
            with self.caller.listening(record.pool, on_trouble):
                while found is None:
                    await _ring_or_time(bell)
                    given_up = list(trouble)
                    found = await self._unless_away(self.look(index))
                    if found is None and given_up:
                        return _given_up(given_up[0])
            return found
        finally:
            if subscription is not None:
                await subscription.close()

    async def _listen(self, index: int, bell: asyncio.Event) -> Subscription | None:
        def ring(_: Message) -> None:
            bell.set()

        try:
            return await self.caller.bus.subscribe(subjects.result(self._workspace, self.call, index), ring)
        except BusError:
            return None  # not connected for the moment: the looks go on

    async def _unless_away(self, answer: Awaitable[T]) -> T | None:
        """Return an answer; a connection that is gone for a while is no reason to give up waiting."""
        try:
            return await answer
        except (exception.ConnectionError, exception.ServiceError):
            return None

    async def _check(self, index: int) -> CallRecord:
        """Return the record of a call that has not the output; it may be gone since it was read last."""
        record = self._record = await self._read_record()
        if not 0 <= index < record.num_inputs:
            raise exception.InvalidError(f"{self.call} has {record.num_inputs} inputs, there is no {index}")
        return record

    async def _stored(self, subject: str) -> bytes | None:
        try:
            stored = await self.caller.bus.last(self._stream, subject)
        except BusError as error:
            raise explain(error) from error
        return stored.data if stored is not None else None


async def _ring_or_time(bell: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(LOOK):
            await bell.wait()
    bell.clear()


def _given_up(trouble: Trouble) -> Outcome:
    data = trouble.failure or failure.from_text("RemoteError", trouble.message)
    return Outcome(Status.FAILURE, Format.FAILURE, data)


async def cancel(client: "_client.Client", kept: KeptCall, *, terminate_containers: bool) -> None:
    """End a kept call: what has no result gets a cancelled one."""
    record = await kept.record()
    request = CancelCall(
        record.call, record.prefix, record.num_inputs, True, terminate_containers, record.method
    )
    await client.request("scheduler", "cancel", request, Done)
