"""Kept calls on behalf of HTTP clients: started once per idempotency key, waited for, read.

With a key, a claim is stored first, then the inputs, then the call's record. Whoever comes with the same key,
here or at another replica, finds the claim and goes on with its call: where a record is, all is queued; where
none is, somebody died on the way, and inputs without a result are queued once more under the same ids.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from tidemill import _spawning, exception
from tidemill._bus.protocol import AlreadyHeld, BusError
from tidemill._caller import explain
from tidemill._kept import KeptCall
from tidemill._outcome import Outcome
from tidemill._wire import coding, ids, subjects
from tidemill._wire.control import CallRecord, CancelCall, Done, FunctionHandle
from tidemill._wire.idempotency import Claim
from tidemill._wire.messages import Format
from tidemill_gateway import decisions
from tidemill_gateway.problems import Problem
from tidemill_gateway.sessions import Session

START_TIMEOUT = 15.0  # seconds for the broker to take a call
READ_TIMEOUT = 10.0  # seconds for it to tell what is stored
SILENT = "the message broker does not answer"
MAX_RESULT = 32 << 20  # bytes of a result that is read to be shown as JSON


@dataclass(frozen=True, slots=True)
class Started:
    """A call, and whether an earlier request with the same key had started it."""

    record: CallRecord
    repeated: bool


def check_callable(name: str, handle: FunctionHandle) -> None:
    """Refuse functions that are called in another way. Raises `Problem`."""
    if handle.methods is not None:
        raise Problem(
            422, "invalid", f"{name} is a class", hint=f"call a method: {', '.join(handle.names())}"
        )
    if handle.is_generator:
        raise Problem(422, "invalid", f"{name} is a generator, which cannot be called over REST")
    if handle.web_label:
        raise Problem(422, "invalid", f"{name} is a web function", hint=f"send requests to {handle.web_url}")


async def start(
    session: Session,
    handle: FunctionHandle,
    inputs: Sequence[bytes],
    key: str,
    digest: str,
    *,
    form: Format = Format.JSON,
) -> Started:
    """Start a call with these inputs; return when it is queued.

    One without a key that fails is cancelled where something of it may be queued: nobody would find that.

    Raises:
        Problem: the key was used with another body.
        ResourceExhaustedError: the queue is full.
        ServiceError: the broker does not answer in time.
    """
    payloads = {index: (int(form), data) for index, data in enumerate(inputs)}
    try:
        async with asyncio.timeout(START_TIMEOUT):
            if key:
                return await _start_once(session, handle, payloads, key, digest)
            return await _start_new(session, handle, payloads)
    except TimeoutError as error:
        raise exception.ServiceError(SILENT) from error
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


async def _start_new(
    session: Session, handle: FunctionHandle, payloads: Mapping[int, tuple[int, bytes]]
) -> Started:
    call, count = ids.new(ids.CALL), len(payloads)
    try:
        record = await _spawning.start(session.caller, handle, call, payloads, count)
    except BaseException as error:
        if not _is_none_queued(error, count):
            session.broker.when_there(partial(session.caller.cancel, call, handle, num_inputs=count))
        raise
    return Started(record, repeated=False)


def _is_none_queued(error: BaseException, count: int) -> bool:
    """Return whether a full queue has refused each input: to cancel them would be a call that never was."""
    refusals = error.exceptions if isinstance(error, ExceptionGroup) else ()
    return len(refusals) == count and all(
        isinstance(each, exception.ResourceExhaustedError) for each in refusals
    )


async def _start_once(
    session: Session, handle: FunctionHandle, payloads: Mapping[int, tuple[int, bytes]], key: str, digest: str
) -> Started:
    place = subjects.claim(
        session.workspace, decisions.claim_key(session.workspace, handle.function_id + handle.method, key)
    )
    mine = Claim(digest, ids.new(ids.CALL), handle.pool, handle.prefix, len(payloads), time.time())
    claim = await _claim(session, place, mine)
    if claim.digest != digest:
        raise Problem(
            409,
            "key_reused",
            "this Idempotency-Key was used with another body",
            hint="use a new key for each call",
        )
    handle = replace(handle, pool=claim.pool, prefix=claim.prefix)  # it may have been deployed anew since
    if claim.call == mine.call:
        record = await _spawning.start(session.caller, handle, claim.call, payloads, len(payloads))
        return Started(record, repeated=False)
    kept = KeptCall(session.caller, claim.call)
    try:
        record = await kept.record()
    except exception.OutputExpiredError:  # somebody died on the way
        there = await kept.outputs()
        missing = {index: payload for index, payload in payloads.items() if index not in there}
        record = await _spawning.start(session.caller, handle, claim.call, missing, len(payloads))
    return Started(record, repeated=True)


async def _claim(session: Session, place: str, mine: Claim) -> Claim:
    """Store a claim, or return the one that was there before."""
    try:
        await session.bus.store(place, coding.encode(mine), msg_id=f"{mine.call}.claim")
    except AlreadyHeld:
        stored = await session.bus.last(subjects.results_stream(session.workspace), place)
        if stored is None:
            raise exception.ServiceError("the key is just expiring", hint="try again") from None
        return coding.decode(Claim, stored.data)
    except BusError as error:
        raise explain(error) from error
    return mine


async def result(session: Session, call: str, index: int, wait: float) -> Outcome | None:
    """Return the outcome of an input, waiting for it up to `wait` seconds; None when it is not there then.

    Raises:
        OutputExpiredError: there is no such call, or its results are gone.
        NotFoundError: it has no such input.
    """
    kept = KeptCall(session.caller, call, max_size=MAX_RESULT)
    record = await stored_record(kept)
    if index >= record.num_inputs:
        raise exception.NotFoundError(
            f"{call} has {record.num_inputs} inputs, there is no {index}", hint="they count from 0"
        )
    return await _awaited(kept, index, wait)


async def results(session: Session, record: CallRecord, wait: float) -> list[Outcome] | None:
    """Return the outcomes of all inputs of a call, or None when they are not all there in time."""
    kept = KeptCall(session.caller, record.call, max_size=MAX_RESULT, record=record)
    now = asyncio.get_running_loop().time
    deadline, size = now() + wait, 0
    outcomes: list[Outcome] = []
    for index in range(record.num_inputs):
        outcome = await _awaited(kept, index, max(0.0, deadline - now()))
        if outcome is None:
            return None
        outcomes.append(outcome)
        size += len(outcome.data)
        if size > MAX_RESULT:
            hint = "read the results one by one"
            raise exception.RequestSizeError(f"the results are above {MAX_RESULT:,} bytes", hint=hint)
    return outcomes


async def results_if_told(session: Session, record: CallRecord, wait: float) -> list[Outcome] | None:
    """Return what `results` does; None also when the broker does not tell: that ends no call."""
    try:
        return await results(session, record, wait)
    except (exception.ConnectionError, exception.ServiceError):
        return None


async def _awaited(kept: KeptCall, index: int, wait: float) -> Outcome | None:
    """Return an outcome, None if it is not there in time; `ServiceError` if nobody says whether it is."""
    try:
        async with asyncio.timeout(wait + READ_TIMEOUT) as bound:
            return await kept.result(index, wait)
    except TimeoutError as error:
        if bound.expired():
            raise exception.ServiceError(SILENT) from error
    if not wait:
        return None
    try:  # nothing was heard while it was waited for: is it not there, or is nobody there to tell?
        async with asyncio.timeout(READ_TIMEOUT):
            return await kept.look(index)
    except TimeoutError as error:
        raise exception.ServiceError(SILENT) from error


async def stored_record(kept: KeptCall) -> CallRecord:
    """Return what is stored about a call; `OutputExpiredError` when nothing is."""
    try:
        async with asyncio.timeout(READ_TIMEOUT):
            return await kept.record()
    except TimeoutError as error:
        raise exception.ServiceError("the message broker does not answer") from error


async def cancel(session: Session, call: str, *, terminate_containers: bool) -> None:
    """End a call: what has no result gets a cancelled one."""
    record = await stored_record(KeptCall(session.caller, call))
    request = CancelCall(
        record.call, record.prefix, record.num_inputs, True, terminate_containers, record.method
    )
    await session.scheduler("cancel", request, Done)
