"""Secrets: stored encrypted, listed without values, revealed to containers that declare them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Row, Select, Text, all_, any_, delete, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tidemill._wire import ids
from tidemill._wire.control import Done
from tidemill._wire.secrets import (
    DeleteSecret,
    GetSecret,
    ListSecrets,
    PutAppSecret,
    PutSecret,
    Revealed,
    RevealSecrets,
    SecretInfo,
    SecretList,
)
from tidemill._wire.specs import FunctionSpec
from tidemill.exception import (
    AlreadyExistsError,
    ConflictError,
    InvalidError,
    NotFoundError,
    PermissionDeniedError,
)
from tidemill_registry import checks, environments, image_recipes, pages, records, tokens
from tidemill_registry.cipher import Encrypted, Keyring
from tidemill_registry.database import Clock, transaction
from tidemill_registry.environments import of_workspace
from tidemill_registry.schema import App, Environment, PoolRow, PoolSecret, RecipeRow, SecretRow

MAX_VARIABLES = 1_000  # of one secret
MAX_SIZE = 256 << 10  # bytes of the names and values of one secret
UNUSED_DAYS = 1  # that values without a name are kept before anything uses them
SWEPT = 100  # unused ones that go in one transaction
ROTATED = 100  # that are encrypted anew in one transaction

_VARIABLE = re.compile(r"[^=\0]{1,256}")


class Secrets:
    """The secrets of all workspaces."""

    def __init__(self, engine: AsyncEngine, keys: Keyring, clock: Clock) -> None:
        self._engine = engine
        self._keys = keys
        self._clock = clock

    # --- stored

    async def put(self, workspace: str, request: PutSecret, by: str = "") -> SecretInfo:
        """Store a named secret; `AlreadyExistsError` for a name that is taken, unless it may be replaced."""
        checks.check_name("a secret", request.name)
        _check_values(request.values)
        async with transaction(self._engine) as connection:
            environment = await environments.find(connection, workspace, request.environment, hold=True)
            secret_id = ids.new(ids.SECRET)
            stored = self._keys.encrypt(secret_id, request.values)
            made = upsert(SecretRow).values(
                id=secret_id,
                environment_id=environment,
                name=request.name,
                keys=sorted(request.values),
                created_by=by,
                updated_by=by,
                **stored._asdict(),
            )
            # One that is there is locked, and left as it is.
            there = made.on_conflict_do_update(
                index_elements=["environment_id", "name"], set_={"name": made.excluded.name}
            )
            returned = there.returning(SecretRow.id, SecretRow.key_id, SecretRow.ciphertext)
            row = (await connection.execute(returned)).one()
            await _check_seen(connection, row.id, request.seen)
            if row.id != secret_id:
                before = Encrypted(row.key_id, row.ciphertext)
                await self._replace(connection, row.id, before, request, by)
            return await _info(connection, SecretRow.id == row.id)

    async def _replace(
        self, connection: AsyncConnection, secret_id: str, before: Encrypted, request: PutSecret, by: str
    ) -> None:
        """Give a secret whose row is locked other values, or more of them."""
        if not (request.overwrite or request.merge):
            raise AlreadyExistsError(
                f"there is a secret {request.name!r} in the environment {request.environment!r} already",
                hint="give --force to replace it",
            )
        values = request.values
        if request.merge:
            values = self._keys.decrypt(secret_id, before) | values
            _check_values(values)
        stored = self._keys.encrypt(secret_id, values)
        changed = {"keys": sorted(values), "updated_at": self._clock(), "updated_by": by}
        written = update(SecretRow).where(SecretRow.id == secret_id)
        await connection.execute(written.values(changed | stored._asdict()))

    async def put_unnamed(self, workspace: str, request: PutAppSecret, by: str = "") -> SecretInfo:
        """Store values that belong to no name; the same values are the same secret."""
        _check_values(request.values)
        async with transaction(self._engine) as connection:
            environment = await environments.find(connection, workspace, request.environment, hold=True)
            secret_id = ids.new(ids.SECRET)
            stored = self._keys.encrypt(secret_id, request.values)
            made = upsert(SecretRow).values(
                id=secret_id,
                environment_id=environment,
                fingerprint=self._keys.fingerprint(environment, request.values),
                keys=sorted(request.values),
                created_by=by,
                updated_by=by,
                **stored._asdict(),
            )
            wanted_again = made.on_conflict_do_update(
                index_elements=["environment_id", "fingerprint"],
                set_={"updated_at": self._clock(), "updated_by": by},
            )
            found = await connection.scalar(wanted_again.returning(SecretRow.id))
            return await _info(connection, SecretRow.id == found)

    async def remove(self, workspace: str, request: DeleteSecret) -> Done:
        """Delete a named secret. Functions that use it cannot start until they are deployed without it."""
        async with transaction(self._engine) as connection:
            environment = await environments.find(connection, workspace, request.environment)
            named = (SecretRow.environment_id == environment) & (SecretRow.name == request.name)
            locked = select(SecretRow.id).where(named).with_for_update()
            found = await connection.scalar(locked)
            if found is not None:
                await _check_seen(connection, found, request.seen)
                await connection.execute(delete(SecretRow).where(SecretRow.id == found))
        if found is None and not request.allow_missing:
            raise _no_secret(request.name, request.environment)
        return Done()

    # --- told without values

    async def get(self, workspace: str, request: GetSecret) -> SecretInfo:
        """Return what is known of a named secret; `InvalidError` names the required keys that it lacks."""
        async with transaction(self._engine) as connection:
            environment = await environments.find(connection, workspace, request.environment)
            named = (SecretRow.environment_id == environment) & (SecretRow.name == request.name)
            row = (await connection.execute(_infos().where(named))).first()
        if row is None:
            raise _no_secret(request.name, request.environment)
        if missing := sorted(set(request.required_keys) - set(row.keys)):
            raise InvalidError(
                f"the secret {request.name!r} lacks {', '.join(missing)}",
                hint=f"add it with `tidemill secret create {request.name} {missing[0]}=... --force`",
            )
        return _as_info(row)

    async def list_named(self, workspace: str, request: ListSecrets) -> SecretList:
        """Return a page of the named secrets of an environment, by name."""
        checks.check_limit(request.limit)
        after = pages.read(request.cursor, _Cursor)
        async with transaction(self._engine) as connection:
            environment = await environments.find(connection, workspace, request.environment)
            query = _infos().where(SecretRow.environment_id == environment, SecretRow.name.is_not(None))
            if after is not None:
                query = query.where(SecretRow.name > after.name)
            rows = (await connection.execute(query.order_by(SecretRow.name).limit(request.limit + 1))).all()
        cursor = pages.after(rows, request.limit, lambda row: _Cursor(row.name))
        return SecretList(tuple(map(_as_info, rows[: request.limit])), cursor)

    # --- revealed

    async def reveal(self, workspace: str, request: RevealSecrets) -> Revealed:
        """Return the values that a container of a pool is to find, later secrets over earlier ones.

        Raises:
            PermissionDeniedError: the pool is none of the workspace's, or does not declare them.
            NotFoundError: one of them was deleted.
        """
        wanted = list(dict.fromkeys(request.secrets))
        query = select(SecretRow.id, SecretRow.key_id, SecretRow.ciphertext).where(
            SecretRow.id == any_(literal(wanted, ARRAY(Text))),
            SecretRow.environment_id.in_(of_workspace(workspace)),
        )
        async with transaction(self._engine) as connection:
            await _check_declared(connection, workspace, request)
            found = {row.id: Encrypted(row[1], row[2]) for row in await connection.execute(query)}
            if missing := [secret for secret in wanted if secret not in found]:
                raise NotFoundError(
                    f"the secret {missing[0]} that the function uses was deleted",
                    hint="store it again and deploy the app again",
                )
            await self._note_use(connection, wanted)
        values: dict[str, str] = {}
        for secret in request.secrets:
            values |= self._keys.decrypt(secret, found[secret])
        return Revealed(values)

    async def _note_use(self, connection: AsyncConnection, secret_ids: Sequence[str]) -> None:
        """Write when secrets were used, to the minute: containers may start by the thousand, none waits."""
        minute_ago = self._clock() - func.make_interval(0, 0, 0, 0, 0, 1)
        stale = select(SecretRow.id).where(
            SecretRow.id == any_(literal(secret_ids, ARRAY(Text))),
            or_(SecretRow.last_used_at.is_(None), SecretRow.last_used_at < minute_ago),
        )
        chosen = stale.with_for_update(key_share=True, skip_locked=True)
        used = update(SecretRow).where(SecretRow.id.in_(chosen))
        await connection.execute(used.values(last_used_at=self._clock()))

    # --- looked after

    async def check_keys(self) -> str:
        """Return what is wrong with the keys, or an empty string: are all there that are needed?"""
        missing = SecretRow.key_id != all_(literal(list(self._keys.ids), ARRAY(Text)))
        query = select(SecretRow.key_id, func.count()).where(missing).group_by(SecretRow.key_id)
        async with transaction(self._engine) as connection:
            rows = (await connection.execute(query.order_by(SecretRow.key_id))).all()
        if not rows:
            return ""
        count, keys = sum(row[1] for row in rows), ", ".join(row[0] for row in rows)
        return f"{count:,} secrets cannot be read: they were encrypted with other keys ({keys})"

    async def collect(self) -> int:
        """Delete values without a name that no app and no named image uses; return how many."""
        living = (
            select(PoolSecret.secret_id)
            .join(PoolRow, PoolSecret.pool_id == PoolRow.id)
            .join(App, PoolRow.app_id == App.id)
            .where(PoolSecret.secret_id == SecretRow.id, App.state != "stopped")
        )
        old = SecretRow.updated_at < self._clock() - func.make_interval(0, 0, 0, UNUSED_DAYS)
        its_id = func.convert_to(SecretRow.id, "UTF8")
        building = image_recipes.named().where(func.position(its_id.op("IN")(RecipeRow.record)) > 0)
        unused = select(SecretRow.id).where(
            SecretRow.name.is_(None), old, ~living.exists(), ~building.correlate(SecretRow).exists()
        )
        async with transaction(self._engine) as connection:
            chosen = unused.order_by(SecretRow.updated_at).limit(SWEPT).with_for_update(skip_locked=True)
            gone = await connection.scalars(
                delete(SecretRow).where(SecretRow.id.in_(chosen)).returning(SecretRow.id)
            )
            return len(gone.all())

    async def rotate(self) -> int:
        """Encrypt with the first key what others of the ring encrypted; return how many secrets that were."""
        first, count = self._keys.first, 0
        others = SecretRow.key_id == any_(literal(list(self._keys.ids[1:]), ARRAY(Text)))
        query = select(SecretRow.id, SecretRow.key_id, SecretRow.ciphertext)
        query = query.add_columns(SecretRow.environment_id, SecretRow.fingerprint)
        query = query.where(others, SecretRow.key_id != first).order_by(SecretRow.id).limit(ROTATED)
        while True:
            async with transaction(self._engine) as connection:
                rows = (await connection.execute(query.with_for_update())).all()
                for row in rows:
                    await self._encrypt_anew(connection, row)
            count += len(rows)
            if not rows:
                return count

    async def _encrypt_anew(self, connection: AsyncConnection, row: Row[*tuple[Any, ...]]) -> None:
        values = self._keys.decrypt(row.id, Encrypted(row.key_id, row.ciphertext))
        changed: dict[str, Any] = self._keys.encrypt(row.id, values)._asdict()
        if row.fingerprint is not None:
            fingerprint = self._keys.fingerprint(row.environment_id, values)
            same = select(SecretRow.id).where(
                SecretRow.environment_id == row.environment_id, SecretRow.fingerprint == fingerprint
            )
            if await connection.scalar(same) is None:  # else it was stored again under the new key
                changed["fingerprint"] = fingerprint
        await connection.execute(update(SecretRow).where(SecretRow.id == row.id).values(changed))


class _Cursor(NamedTuple):
    """Where a page of secrets ends."""

    name: str


def _check_values(values: Mapping[str, str]) -> None:
    """Refuse what cannot be a set of environment variables. Errors name variables, never their values."""
    if len(values) > MAX_VARIABLES:
        raise InvalidError(f"a secret has at most {MAX_VARIABLES:,} variables, not {len(values):,}")
    for name, value in values.items():
        if not _VARIABLE.fullmatch(name):
            raise InvalidError("not a name of an environment variable among those of the secret")
        if "\0" in value:
            raise InvalidError(f"the value of {name} contains a NUL character")
    size = sum(len(name.encode()) + len(value.encode()) for name, value in values.items())
    if size > MAX_SIZE:
        raise InvalidError(f"a secret has at most {MAX_SIZE:,} bytes, not {size:,}")


async def _check_declared(connection: AsyncConnection, workspace: str, request: RevealSecrets) -> None:
    query = (
        select(PoolRow.record)
        .join(App, PoolRow.app_id == App.id)
        .where(PoolRow.id == request.pool, App.state != "stopped")
        .where(App.environment_id.in_(of_workspace(workspace)))
    )
    record = await connection.scalar(query)
    declared = records.pool(record).spec.all_secrets if record is not None else ()
    if not set(request.secrets) <= set(declared):
        raise PermissionDeniedError(f"the pool {request.pool} does not use these secrets")


async def _check_seen(connection: AsyncConnection, secret_id: str, seen: SecretInfo | None) -> None:
    """Refuse to change a secret, whose row is locked, that is not as it was seen."""
    if seen is not None and await _info(connection, SecretRow.id == secret_id) != seen:
        raise ConflictError("the secret has changed since", hint="look at it again")


async def _info(connection: AsyncConnection, which: Any) -> SecretInfo:
    return _as_info((await connection.execute(_infos().where(which))).one())


def _infos() -> Select[*tuple[Any, ...]]:
    return select(
        SecretRow.id,
        SecretRow.name,
        Environment.name.label("environment"),
        SecretRow.created_at,
        SecretRow.updated_at,
        SecretRow.keys,
        SecretRow.last_used_at,
        tokens.shown(SecretRow.created_by).label("author"),
        tokens.shown(SecretRow.updated_by).label("editor"),
    ).join(Environment, SecretRow.environment_id == Environment.id)


def _as_info(row: Row[*tuple[Any, ...]]) -> SecretInfo:
    return SecretInfo(
        secret_id=row.id,
        name=row.name,
        environment=row.environment,
        created=row.created_at.timestamp(),
        updated=row.updated_at.timestamp(),
        keys=tuple(row[5]),
        last_used=row.last_used_at.timestamp() if row.last_used_at else None,
        created_by=row.author,
        updated_by=row.editor,
    )


def _no_secret(name: str, environment: str) -> NotFoundError:
    return NotFoundError(
        f"there is no secret {name!r} in the environment {environment!r}",
        hint=f"store it with `tidemill secret create {name} KEY=VALUE`",
    )


async def check_there(connection: AsyncConnection, workspace: str, functions: Sequence[FunctionSpec]) -> None:
    """Refuse secrets that are not the workspace's; the others stay until this transaction ends."""
    wanted = {secret for spec in functions for secret in spec.all_secrets}
    if not wanted:
        return
    query = select(SecretRow.id).where(
        SecretRow.id == any_(literal(list(wanted), ARRAY(Text))),
        SecretRow.environment_id.in_(of_workspace(workspace)),
    )
    query = query.order_by(SecretRow.id).with_for_update(key_share=True, read=True)
    there = set(await connection.scalars(query))
    for spec in functions:
        for missing in (secret for secret in spec.all_secrets if secret not in there):
            raise NotFoundError(
                f"function {spec.name!r}: its secret {missing!r} is no longer there",
                hint="store it again with `tidemill secret create`, then deploy",
            )
