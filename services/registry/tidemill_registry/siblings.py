"""The handles of all functions of an app, which its containers call each other through.

They are kept once per version that can still be called, not in each pool's record: of a hundred functions
each would have a hundred.
"""

from collections.abc import Iterable, Mapping
from itertools import groupby

from sqlalchemy import Integer, Text, column, select, tuple_, values
from sqlalchemy.ext.asyncio import AsyncConnection

from tidemill._wire.control import FunctionHandle
from tidemill.exception import InvalidError
from tidemill_common import streams
from tidemill_common.bus.protocol import ServiceBus
from tidemill_registry import outbox, records
from tidemill_registry.decisions import MAX_RECORD
from tidemill_registry.schema import App, DeploymentFunction, PoolRow

AT_ONCE = 100  # versions that are written again together

Version = tuple[str, int]  # an app's id and the number


def told(app_id: str, version: int, handles: Mapping[str, FunctionHandle]) -> outbox.Entry:
    """Return the entry that tells a version's handles."""
    body = records.encode(handles)
    if len(body) > MAX_RECORD:
        raise InvalidError(
            f"the app has {len(handles):,} functions, too many for one", hint="divide it into several apps"
        )
    return outbox.put(streams.handles_key(app_id, version), body, bucket=streams.HANDLES)


def gone(app_id: str, versions: Iterable[int]) -> list[outbox.Entry]:
    """Return the entries that remove versions which cannot be called any more."""
    keys = [streams.handles_key(app_id, version) for version in sorted(set(versions))]
    return [outbox.remove(key, bucket=streams.HANDLES) for key in keys]


async def reconcile(connection: AsyncConnection, bus: ServiceBus) -> int:
    """Make the bucket have each version that can be called, and no other; return how many it had wrong.

    An app's next version may be there already: its containers start before it serves (see `warming`).
    """
    bucket = bus.bucket(streams.HANDLES)
    held = (await bucket.items()).keys()
    query = select(App.id, App.version.label("present"), DeploymentFunction.version).distinct()
    query = query.outerjoin(DeploymentFunction, DeploymentFunction.app_id == App.id)
    rows = (await connection.execute(query.where(App.state != "stopped"))).all()
    wanted = {
        streams.handles_key(row.id, row.version): (row.id, row.version)
        for row in rows
        if row.version is not None
    }
    prepared = {streams.handles_key(row.id, row.present + 1) for row in rows}
    missing = [version for key, version in wanted.items() if key not in held]
    for start in range(0, len(missing), AT_ONCE):
        for key, body in (await _read(connection, missing[start : start + AT_ONCE])).items():
            await bucket.put(key, body)
    strays = held - wanted.keys() - prepared
    for key in strays:
        await bucket.delete(key)
    return len(missing) + len(strays)


async def _read(connection: AsyncConnection, versions: list[Version]) -> dict[str, bytes]:
    """Return the handles of versions, as their pools' records have them."""
    named = values(column("app_id", Text), column("version", Integer), name="named").data(versions)
    of_version = tuple_(DeploymentFunction.app_id, DeploymentFunction.version)
    query = (
        select(DeploymentFunction.app_id, DeploymentFunction.version, PoolRow.record)
        .join(PoolRow, DeploymentFunction.pool_id == PoolRow.id)
        .where(of_version.in_(select(named)))
        .order_by(DeploymentFunction.app_id, DeploymentFunction.version)
    )
    found: dict[str, bytes] = {}
    rows = await connection.execute(query)
    for (app_id, version), pools in groupby(rows, key=lambda row: (row.app_id, row.version)):
        kept = [records.pool(row.record) for row in pools]
        handles = {pool.spec.name: pool.handles[pool.spec.name] for pool in kept}
        found[streams.handles_key(app_id, version)] = records.encode(handles)
    return found
