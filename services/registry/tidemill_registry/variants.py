"""Variants of functions and classes: pools with options or parameters that callers give.

A variant's record follows from its base's and from what was given (`decisions.variant`): whenever the base
changes, so do its variants. They are made when they are asked for first, and go when nobody has asked for a
week; who uses one asks every hour.

What the parameters in a URL make is anybody's choice who can reach it. So of those there are few, and one
that no gateway has asked for within a minute makes room for the next (`_make_room`). Callers who name the
same parameters have the same pool, and take it over.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

from sqlalchemy import Text, any_, bindparam, delete, exists, func, insert, literal, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tidemill import _parameters
from tidemill._wire import coding, ids
from tidemill._wire.control import FunctionHandle
from tidemill._wire.specs import Pool, handle_of
from tidemill._wire.variants import GetVariant
from tidemill.exception import InvalidError, NotFoundError, ResourceExhaustedError
from tidemill_common import streams
from tidemill_registry import checks, decisions, environments, outbox, records, secrets
from tidemill_registry.database import Clock, question, transaction
from tidemill_registry.schema import App, Function, Outbox, PoolRow, PoolSecret

MAX_VARIANTS = 1_000  # of one function in one version
KEPT_DAYS = 7  # without being asked for
NOTED_EVERY = 600.0  # seconds between two notes that one was asked for
FORGET_AT_ONCE = 100
MAX_OF_URLS = 100  # sets of parameters of one class that URLs have made
URL_IDLE = 60.0  # seconds without being asked for until one of them makes room
URL_NOTED_EVERY = 10.0  # seconds between two notes that one of them was asked for


async def get(
    engine: AsyncEngine, workspace: str, request: GetVariant, clock: Clock, *, of_url: bool = False
) -> tuple[FunctionHandle, bool]:
    """Return the handle of a variant, made if need be, and whether NATS must still be told of it.

    `of_url` tells that a gateway asks, for what a URL names.

    Raises:
        NotFoundError, ConflictError: there is no such pool, or its app is stopped.
        InvalidError: the parameters or options cannot be.
        ResourceExhaustedError: there are too many variants of it.
    """
    async with transaction(engine) as connection:
        request = await _of_its_base(connection, request)
        base = await _base(connection, workspace, request.pool)
        _check(base, request)
        pool = decisions.variant(
            base,
            request,
            ids.new(ids.POOL),
            random.randrange(streams.SHARDS),  # noqa: S311  # spreads load
        )
        if pool.spec == base.spec:
            return handle_of(base), False
        digest = decisions.variant_digest(request)
        known = await _known(connection, pool.function_id, digest, clock, of_url=of_url)
        if known is None and not await _make(connection, pool, digest, request, clock, of_url=of_url):
            known = await _known(connection, pool.function_id, digest, clock, of_url=of_url)
    return known or (handle_of(pool), True)


async def repeat(
    connection: AsyncConnection, base: Pool, earlier: GetVariant, clock: Clock, *, of_url: bool
) -> str | None:
    """Return the variant of a pool that an earlier base had, made if need be; None where it cannot be.

    It takes nobody's room. `connection` is in a transaction that the caller ends.
    """
    request = replace(earlier, pool=base.id)
    pool = decisions.variant(base, request, ids.new(ids.POOL), random.randrange(streams.SHARDS))  # noqa: S311
    digest = decisions.variant_digest(request)
    query = select(PoolRow.id).where(PoolRow.function_id == pool.function_id, PoolRow.digest == digest)
    if (known := await connection.scalar(query)) is not None:
        return str(known)
    if of_url and len(await _of_urls(connection, pool)) >= MAX_OF_URLS:
        return None
    try:
        _check(base, request)
        made = pool.spec != base.spec and await _make(connection, pool, digest, request, clock, of_url=of_url)
    except (InvalidError, NotFoundError, ResourceExhaustedError):  # told to whoever asks for it by itself
        return None
    return pool.id if made else None


async def given(engine: AsyncEngine, function_id: str, pool: str) -> GetVariant | None:
    """Return what makes a pool of a function a variant, None if it is the function's own.

    Raises:
        NotFoundError: it is not there any more.
    """
    query = select(PoolRow.variation).where(PoolRow.id == pool, PoolRow.function_id == function_id)
    async with question(engine) as connection:
        row = (await connection.execute(query)).first()
    if row is None:
        raise NotFoundError(f"there is no pool {pool!r}")
    return None if row.variation is None else coding.decode(GetVariant, row.variation)


async def _of_its_base(connection: AsyncConnection, request: GetVariant) -> GetVariant:
    """Return a request for a variant of a variant as one for a variant of their base."""
    stored = await connection.scalar(select(PoolRow.variation).where(PoolRow.id == request.pool))
    return request if stored is None else decisions.combined(coding.decode(GetVariant, stored), request)


async def _base(connection: AsyncConnection, workspace: str, pool: str) -> Pool:
    """Return the pool that variants are made of; its app does not change until this transaction ends."""
    query = (
        select(PoolRow.record, App.id, App.state, App.stop_reason)
        .join(App, PoolRow.app_id == App.id)
        .where(PoolRow.id == pool, PoolRow.variant_of.is_(None))
        .where(App.environment_id.in_(environments.of_workspace(workspace)))
        .with_for_update(read=True, of=App)
    )
    row = (await connection.execute(query)).first()
    if row is None:
        raise NotFoundError(f"there is no pool {pool!r}")
    decisions.check_doable("make variants in", row.id, row.state, row.stop_reason)
    return records.pool(row.record)


def _check(base: Pool, request: GetVariant) -> None:
    cls = base.spec.cls
    try:
        given = _parameters.values(base.spec.name, cls.parameters if cls else (), request.parameters)
    except TypeError as error:
        raise InvalidError(str(error)) from None
    if given != request.parameters:
        raise InvalidError(f"{base.spec.name}: a parameter is given that is its default")
    checks.check_functions((decisions.vary(base.spec, request),))


async def _known(
    connection: AsyncConnection, function_id: str, digest: bytes, clock: Clock, *, of_url: bool
) -> tuple[FunctionHandle, bool] | None:
    pending = exists().where(Outbox.key == PoolRow.id)
    noted_every = URL_NOTED_EVERY if of_url else NOTED_EVERY
    is_old = PoolRow.asked_at < clock() - func.make_interval(0, 0, 0, 0, 0, 0, noted_every)
    if not of_url:
        is_old |= PoolRow.of_url
    query = select(PoolRow.id, PoolRow.record, pending.label("pending"), is_old.label("is_old"))
    row = (
        await connection.execute(query.where(PoolRow.function_id == function_id, PoolRow.digest == digest))
    ).first()
    if row is None:
        return None
    if row.is_old:
        noted = {"asked_at": clock()} if of_url else {"asked_at": clock(), "of_url": False}
        noting = update(PoolRow).where(PoolRow.id == row.id).values(noted)
        if await connection.scalar(noting.returning(PoolRow.id)) is None:
            return None  # it went meanwhile
    return handle_of(records.pool(row.record)), row.pending


async def _make(
    connection: AsyncConnection, pool: Pool, digest: bytes, request: GetVariant, clock: Clock, *, of_url: bool
) -> bool:
    """Store a new variant; return whether it was: another request may have just made the same."""
    if of_url:
        await _make_room(connection, pool, clock)
    count = select(func.count()).where(
        PoolRow.function_id == pool.function_id, PoolRow.variant_of == pool.variant_of
    )
    if (await connection.scalar(count) or 0) >= MAX_VARIANTS:
        raise ResourceExhaustedError(
            f"{pool.spec.name} has {MAX_VARIANTS:,} sets of options and parameters in use",
            hint="pass what differs that often to the methods",
        )
    await secrets.check_there(connection, pool.workspace, [pool.spec])
    record = records.encode(pool)
    if len(record) > decisions.MAX_RECORD:
        raise InvalidError(f"{pool.spec.name}: the parameters and options are too large")
    row = {
        "id": pool.id,
        "app_id": pool.app_id,
        "function_id": pool.function_id,
        "digest": digest,
        "capability": pool.capability,
        "shard": pool.shard,
        "record": record,
        "variant_of": pool.variant_of,
        "variation": coding.encode(request),
        "asked_at": clock(),
        "of_url": of_url,
    }
    statement = upsert(PoolRow).values(row).on_conflict_do_nothing(index_elements=["function_id", "digest"])
    if await connection.scalar(statement.returning(PoolRow.id)) is None:
        return False
    uses = [{"pool_id": pool.id, "secret_id": secret} for secret in dict.fromkeys(pool.spec.all_secrets)]
    if uses:
        await connection.execute(insert(PoolSecret), uses)
    await outbox.enqueue(connection, [outbox.put(pool.id, record)])
    return True


async def _make_room(connection: AsyncConnection, pool: Pool, clock: Clock) -> None:
    """Have room for one more set of parameters of a URL; nobody else looks until this transaction ends.

    Raises:
        ResourceExhaustedError: as many as there may be are in use.
    """
    held = await _of_urls(connection, pool)
    surplus = len(held) - MAX_OF_URLS + 1
    if surplus <= 0:
        return
    is_idle = PoolRow.asked_at < clock() - func.make_interval(0, 0, 0, 0, 0, 0, URL_IDLE)
    longest = PoolRow.id == any_(literal(held[:surplus], ARRAY(Text)))
    # One that is asked for meanwhile stays.
    leaving = delete(PoolRow).where(longest, PoolRow.of_url, is_idle).returning(PoolRow.id)
    gone = (await connection.scalars(leaving)).all()
    if len(gone) < surplus:
        raise ResourceExhaustedError(
            f"{pool.spec.name} is in use with {MAX_OF_URLS} sets of parameters from URLs",
            hint=f"one that no request names for {URL_IDLE:g} s makes room",
        )
    await outbox.enqueue(connection, [outbox.remove(each) for each in gone])


async def _of_urls(connection: AsyncConnection, pool: Pool) -> Sequence[str]:
    """Return what URLs have made of a function, longest unasked first; nobody adds to it meanwhile."""
    await connection.execute(
        select(Function.id).where(Function.id == pool.function_id).with_for_update(key_share=True)
    )
    query = select(PoolRow.id).where(PoolRow.function_id == pool.function_id, PoolRow.of_url)
    return (await connection.scalars(query.order_by(PoolRow.asked_at))).all()


# --- with their bases


async def follow(connection: AsyncConnection, bases: Iterable[Pool]) -> list[outbox.Entry]:
    """Write the records of the variants of pools that have changed; return what NATS must be told."""
    changed = {base.id: base for base in bases}
    if not changed:
        return []
    query = select(PoolRow.id, PoolRow.shard, PoolRow.variant_of, PoolRow.variation)
    rows = await connection.execute(
        query.where(PoolRow.variant_of == any_(literal(list(changed), ARRAY(Text))))
    )
    made = {
        row.id: records.encode(
            decisions.variant(
                changed[row.variant_of], coding.decode(GetVariant, row.variation), row.id, row.shard
            )
        )
        for row in rows
    }
    if made:
        statement = update(PoolRow).where(PoolRow.id == bindparam("pool"))
        await connection.execute(
            statement.values(record=bindparam("new_record")),
            [{"pool": pool, "new_record": record} for pool, record in made.items()],
        )
    return [outbox.put(pool, record) for pool, record in made.items()]


async def forget(engine: AsyncEngine, clock: Clock) -> int:
    """Delete some variants that nobody has asked for in a long time; return how many. Replicas share it."""
    old = PoolRow.asked_at < clock() - func.make_interval(0, 0, 0, KEPT_DAYS)
    query = select(PoolRow.id).where(PoolRow.variant_of.is_not(None), old).limit(FORGET_AT_ONCE)
    async with transaction(engine) as connection:
        chosen = list(await connection.scalars(query.with_for_update(skip_locked=True)))
        if chosen:
            await connection.execute(delete(PoolRow).where(PoolRow.id == any_(literal(chosen, ARRAY(Text)))))
            await outbox.enqueue(connection, [outbox.remove(pool) for pool in chosen])
    return len(chosen)
