"""Inputs that were given up: listed from a table, read from DEAD, replayed once.

A replay first notes the call that it will be, then publishes. Asked again, before or after, it is the same
call; an input published twice under one call runs once, or its second result is refused.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import CursorResult, Row, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tidemill._bus.protocol import AlreadyHeld, BusError, StreamFull
from tidemill._wire import coding, failure, ids, subjects
from tidemill._wire.calls import (
    DeadDetails,
    DeadInfo,
    DeadLetter,
    DeadList,
    GetDead,
    ListDead,
    ReplayDead,
    Replayed,
)
from tidemill._wire.control import CallRecord, FunctionHandle
from tidemill._wire.messages import Blob, Chunk
from tidemill._wire.specs import Pool, handle_of
from tidemill._wire.variants import GetVariant
from tidemill.exception import (
    ConflictError,
    InvalidError,
    NotFoundError,
    ResourceExhaustedError,
    ServiceError,
)
from tidemill_common import streams
from tidemill_common.bus.protocol import Delivery, ServiceBus
from tidemill_common.chunks import MAX_INDEX
from tidemill_registry.database import transaction
from tidemill_registry.rows import PoolInfo, named
from tidemill_registry.schema import App, DeadLetterRow, Function, PoolRow

if TYPE_CHECKING:
    from tidemill_registry.recording import Pools

MAX_LISTED = 1_000
FORGET_AT_ONCE = 1_000
RETENTION_DAYS = 30

Variants = Callable[[str, GetVariant], Awaitable[FunctionHandle]]


async def note(connection: AsyncConnection, pools: "Pools", deliveries: Sequence[Delivery]) -> None:
    """Write what is to be listed of dead letters; the first one about an input stays."""
    found = [letter for delivery in deliveries if (letter := _read(delivery.data)) is not None]
    known = await pools.find(connection, {letter.pool for letter in found})
    rows = [_row(letter, known[letter.pool]) for letter in found if letter.pool in known]
    if rows:
        rows.sort(key=lambda row: (row["call_id"], row["number"]))
        await connection.execute(upsert(DeadLetterRow).on_conflict_do_nothing(), rows)
    of_variants = [letter.call for letter in found if letter.pool in known and known[letter.pool].is_variant]
    if of_variants:
        await connection.execute(_NOTE_VARIATIONS, {"calls": of_variants})


def _row(letter: DeadLetter, pool: PoolInfo) -> dict[str, Any]:
    chunk = _chunk(letter)
    return {
        "call_id": letter.call,
        "number": letter.index,
        "workspace": pool.workspace,
        "pool_id": letter.pool,
        "app_id": pool.app_id,
        "function_id": pool.function_id,
        "method": chunk.method if chunk and chunk.method in pool.methods else "",
        "reason": letter.reason.replace("\0", "")[:2_000],
        "attempts": len(chunk.tries) if chunk else 0,
        "readable": letter.readable,
        "given_up_at": datetime.fromtimestamp(letter.time, UTC),
    }


def _read(data: bytes) -> DeadLetter | None:
    try:
        letter = coding.decode(DeadLetter, data)
        subjects.token(letter.call)
        return letter if 0 <= letter.index <= MAX_INDEX else None
    except (ValueError, TypeError):
        return None


def _chunk(letter: DeadLetter) -> Chunk | None:
    if not letter.readable:
        return None
    try:
        return coding.decode(Chunk, letter.chunk)
    except ValueError:
        return None


class DeadLetters:
    """Answers about dead letters, and replays them."""

    def __init__(self, engine: AsyncEngine, bus: ServiceBus, get_variant: Variants) -> None:
        self._engine = engine
        self._bus = bus
        self._get_variant = get_variant

    async def newest(self, workspace: str, request: ListDead) -> DeadList:
        """Return dead letters, newest first."""
        if not 1 <= request.limit <= MAX_LISTED:
            raise InvalidError(f"limit must be between 1 and {MAX_LISTED:,}")
        newest = DeadLetterRow.given_up_at.desc(), DeadLetterRow.call_id.desc(), DeadLetterRow.number.desc()
        query = self._query(workspace).order_by(*newest)
        if request.app_id:
            query = query.where(DeadLetterRow.app_id == request.app_id)
        if request.function:
            query = query.where(named(request.function, DeadLetterRow.function_id, DeadLetterRow.method))
        if request.before:
            given_up, call, index = _cursor(request.before)
            position = tuple_(DeadLetterRow.given_up_at, DeadLetterRow.call_id, DeadLetterRow.number)
            query = query.where(position < (given_up, call, index))
        async with transaction(self._engine) as connection:
            rows = (await connection.execute(query.limit(request.limit + 1))).all()
        shown = rows[: request.limit]
        more = ""
        if len(rows) > request.limit:
            last = shown[-1]
            more = f"{last.given_up_at.isoformat()}/{last.call_id}/{last.number}"
        return DeadList(tuple(map(_info, shown)), more)

    async def get(self, workspace: str, request: GetDead) -> DeadDetails:
        """Return one dead letter with its attempts."""
        async with transaction(self._engine) as connection:
            row = await self._find(connection, workspace, request.input_id)
        letter = await self._letter(row)
        chunk = _chunk(letter)
        data = chunk.inputs[0].data if chunk else letter.chunk
        size = data.size if isinstance(data, Blob) else len(data)
        return DeadDetails(_info(row), chunk.tries if chunk else (), _traceback(letter.failure), size)

    async def replay(self, workspace: str, request: ReplayDead) -> Replayed:
        """Run the input again, as a call whose result is kept. Once, however often it is asked for."""
        async with transaction(self._engine) as connection:
            row = await self._find(connection, workspace, request.input_id, lock=True)
            if not row.readable:
                raise ConflictError(f"{request.input_id} cannot be replayed: it could not be read")
            if row.replayed_at is not None:
                return Replayed(row.replayed_as, again=True)
            pool = await self._present_pool(connection, row)
            call = row.replayed_as or ids.new(ids.CALL)
            await self._mark(connection, row, replayed_as=call)
        letter = await self._letter(row)
        await self._publish(call, pool, await self._handle(workspace, pool, row), letter)
        async with transaction(self._engine) as connection:
            await self._mark(connection, row, replayed_at=datetime.now(UTC))
        return Replayed(call)

    async def forget(self) -> int:
        """Delete some of what is older than the stream keeps; return how many."""
        async with self._engine.begin() as connection:
            result: CursorResult[tuple[()]] = await connection.execute(
                _FORGET, {"days": RETENTION_DAYS, "limit": FORGET_AT_ONCE}
            )
        return result.rowcount

    # --- the table

    def _query(self, workspace: str) -> Any:
        return (
            select(*DeadLetterRow.__table__.columns, Function.name.label("function"))
            .outerjoin(Function, Function.id == DeadLetterRow.function_id)
            .where(DeadLetterRow.workspace == workspace)
        )

    async def _find(
        self, connection: AsyncConnection, workspace: str, input_id: str, *, lock: bool = False
    ) -> Row[Any]:
        try:
            call, index = ids.parse_input_id(input_id)
        except ValueError as error:
            raise InvalidError(str(error)) from error
        query = self._query(workspace).where(DeadLetterRow.call_id == call, DeadLetterRow.number == index)
        row: Row[Any] | None = (
            await connection.execute(query.with_for_update(of=DeadLetterRow) if lock else query)
        ).first()
        if row is None:
            raise NotFoundError(f"there is no dead letter of {input_id}", hint="see `tidemill dead list`")
        return row

    async def _mark(self, connection: AsyncConnection, row: Row[Any], **values: Any) -> None:
        mine = update(DeadLetterRow).where(
            DeadLetterRow.call_id == row.call_id,
            DeadLetterRow.workspace == row.workspace,
            DeadLetterRow.number == row.number,
        )
        await connection.execute(mine.values(values))

    async def _present_pool(self, connection: AsyncConnection, row: Row[Any]) -> Pool:
        """Return the pool that runs the function now: the mistake may have been mended."""
        query = (
            select(PoolRow.record, App.state)
            .join(App, App.id == PoolRow.app_id)
            .where(PoolRow.function_id == row.function_id, App.state != "stopped")
            .where(PoolRow.superseded_at.is_(None), PoolRow.variant_of.is_(None))
        )
        found = (await connection.execute(query)).first()
        if found is None:
            raise ConflictError(
                f"the function {row.function or row.function_id} does not run any more",
                hint="deploy its app again",
            )
        return coding.decode(Pool, found.record)

    async def _handle(self, workspace: str, pool: Pool, row: Row[Any]) -> FunctionHandle:
        """Return what the input goes to: the pool, or its variant with the same options and parameters."""
        if row.variation is None:
            return handle_of(pool)
        given = coding.decode(GetVariant, row.variation)
        return await self._get_variant(workspace, replace(given, pool=pool.id))

    # --- the stream

    async def _letter(self, row: Row[Any]) -> DeadLetter:
        try:
            stored = await self._bus.last(
                streams.DEAD.name, subjects.dead(row.workspace, row.pool_id, row.call_id, row.number)
            )
        except BusError as error:
            raise ServiceError(f"the dead letter cannot be read now: {error}") from error
        letter = _read(stored.data) if stored is not None else None
        if letter is None:
            named = ids.input_id(row.call_id, row.number)
            raise NotFoundError(
                f"the dead letter of {named} is not kept any more",
                hint=f"they are kept for {RETENTION_DAYS} days, fewer where there are very many",
            )
        return letter

    async def _publish(self, call: str, pool: Pool, handle: FunctionHandle, letter: DeadLetter) -> None:
        chunk = _chunk(letter)
        if chunk is None:
            raise ConflictError("the dead letter cannot be read")
        spec, now = pool.spec, time.time()
        method, collect = chunk.method, spec.yields(chunk.method)
        again = Chunk(call, [0], 0, "", chunk.inputs[:1], now, root=call, collect=collect, method=method)
        record = CallRecord(
            call, handle.pool, handle.prefix, 1, now, pool.app_id, spec.restrict_output, method
        )
        try:
            await self._store(
                subjects.inputs(handle.prefix, call, 0, 0), again, subjects.input_key(call, 0, 0)
            )
            await self._store(subjects.call_record(pool.workspace, call), record, f"{call}.call")
            self._bus.publish(subjects.demand(pool.workspace, handle.pool), b"")
        except StreamFull as error:
            raise ResourceExhaustedError("the queue is full", hint="replay it again later") from error
        except BusError as error:
            raise ServiceError(f"the input cannot be published now: {error}") from error

    async def _store(self, subject: str, message: object, key: str) -> None:
        try:
            await self._bus.store(subject, coding.encode(message), msg_id=key)
        except AlreadyHeld:
            return


_NOTE_VARIATIONS = text(
    "UPDATE dead_letters SET variation = pools.variation FROM pools"
    " WHERE dead_letters.call_id = ANY(:calls) AND pools.id = dead_letters.pool_id"
)

_FORGET = text(
    "DELETE FROM dead_letters WHERE ctid = ANY(ARRAY(SELECT ctid FROM dead_letters"
    " WHERE given_up_at < clock_timestamp() - make_interval(days => :days)"
    " ORDER BY given_up_at LIMIT :limit FOR UPDATE SKIP LOCKED))"
)


def _cursor(text_: str) -> tuple[datetime, str, int]:
    try:
        given_up, call, index = text_.split("/")
        position = datetime.fromisoformat(given_up).astimezone(UTC), subjects.token(call), int(index)
        if not 0 <= position[2] <= MAX_INDEX:
            raise ValueError("not an index")
        return position
    except (ValueError, OverflowError) as error:
        raise InvalidError(f"not the end of a page: {text_!r}") from error


def _info(row: Row[Any]) -> DeadInfo:
    return DeadInfo(
        input_id=ids.input_id(row.call_id, row.number),
        call=row.call_id,
        index=row.number,
        pool=row.pool_id,
        app_id=row.app_id,
        function=f"{row.function}.{row.method}" if row.function and row.method else row.function or "",
        reason=row.reason,
        time=row.given_up_at.timestamp(),
        attempts=row.attempts,
        readable=row.readable,
        replayed_as=row.replayed_as if row.replayed_at else "",
    )


def _traceback(data: bytes) -> str:
    """Return the remote traceback of a failure. User code may have made it: it can be anything."""
    if not data:
        return ""
    try:
        return failure.traceback_of(data) or failure.message_of(data)
    except Exception:
        return ""
