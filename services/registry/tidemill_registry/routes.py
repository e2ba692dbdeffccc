"""Which pool answers under which label: rows, brought to what an app's version or its end makes of them.

The rows decide who has a label; the gateway reads them from the bucket that the outbox feeds. Nobody takes a
label that lasts from another app. One that ends in `-dev` goes to whoever runs last.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from sqlalchemy import ColumnElement, Text, any_, delete, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from tidemill._wire import coding
from tidemill._wire.control import FunctionHandle
from tidemill._wire.specs import Pool
from tidemill._wire.web import Route
from tidemill.exception import AlreadyExistsError
from tidemill_common import streams
from tidemill_common.bus.protocol import ServiceBus
from tidemill_registry.outbox import Entry
from tidemill_registry.schema import RouteRow

STARTUP = 300.0  # seconds that a container may take to start, where its function does not say


async def follow(
    connection: AsyncConnection, app_id: str, pools: Sequence[Pool], *, lasting: bool
) -> Sequence[Entry]:
    """Write what it means for an app's routes that these pools serve it; return what NATS must be told.

    Runs under the lock of the app's row. An app that stops is served by no pools.

    Raises:
        AlreadyExistsError: another app has the label.
    """
    rows = await connection.execute(select(RouteRow.label, RouteRow.record).where(RouteRow.app_id == app_id))
    before: dict[str, bytes] = {row.label: row.record for row in rows}
    wanted = {route.label: coding.encode(route) for pool in pools for route in of_pool(pool)}
    gone = before.keys() - wanted.keys()
    if gone:
        await connection.execute(delete(RouteRow).where(_labelled(gone)))
    changed = {label: record for label, record in wanted.items() if before.get(label) != record}
    await _take(connection, app_id, changed, lasting=lasting)
    return (
        *(Entry("put", streams.ROUTES, label, record) for label, record in changed.items()),
        *(Entry("delete", streams.ROUTES, label, None) for label in gone),
    )


async def _take(
    connection: AsyncConnection, app_id: str, records: Mapping[str, bytes], *, lasting: bool
) -> None:
    if not records:
        return
    rows = [{"label": label, "app_id": app_id, "record": record} for label, record in sorted(records.items())]
    statement = upsert(RouteRow).values(rows)
    statement = statement.on_conflict_do_update(
        index_elements=["label"],
        set_={name: statement.excluded[name] for name in ("app_id", "record")},
        where=RouteRow.app_id == app_id if lasting else None,
    )
    taken = set(await connection.scalars(statement.returning(RouteRow.label)))
    for label in sorted(records.keys() - taken):
        raise AlreadyExistsError(
            f"the label {label!r} belongs to a function of another app",
            hint="name the function otherwise, or give its decorator a label=",
        )


def of_pool(pool: Pool) -> list[Route]:
    """Return the routes that lead to a pool: none where nothing of it is for the web."""
    handle, cls = pool.handles.get(pool.spec.name), pool.spec.cls
    labels = {} if handle is None else handle.web_labels()
    return [
        Route(
            label=labels[method],
            workspace=pool.workspace,
            environment=pool.environment,
            app_id=pool.app_id,
            app_name=pool.app_name,
            function_id=pool.function_id,
            function=f"{pool.spec.name}.{method}" if method else pool.spec.name,
            pool=pool.id,
            prefix=pool.prefix,
            kind=web.kind,
            timeout=pool.spec.timeout,
            startup_timeout=pool.spec.startup_timeout or STARTUP,
            requires_proxy_auth=web.requires_proxy_auth,
            method=method,
            parameters=() if cls is None else cls.parameters,
        )
        for method, web in pool.spec.webs.items()
        if method in labels
    ]


async def reconcile(connection: AsyncConnection, bus: ServiceBus) -> int:
    """Make the bucket hold what the table says; return how many repairs that took."""
    bucket = bus.bucket(streams.ROUTES)
    held = await bucket.items()
    rows = await connection.execute(select(RouteRow.label, RouteRow.record))
    wanted: dict[str, bytes] = {row.label: row.record for row in rows}
    for label in held.keys() - wanted.keys():
        await bucket.delete(label)
    wrong = [label for label, record in wanted.items() if held.get(label) != record]
    for label in wrong:
        await bucket.put(label, wanted[label])
    return len(held.keys() - wanted.keys()) + len(wrong)


class Urls:
    """Where labels lead. `pattern` is a URL with `{label}` in it."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern

    def of(self, label: str) -> str | None:
        """Return the URL of a label, None for none."""
        return self._pattern.replace("{label}", label) if label else None

    def told(self, handle: FunctionHandle) -> FunctionHandle:
        """Return a handle with its URL, or those of its methods."""
        labels = handle.web_labels()
        if not labels:
            return handle
        methods = handle.methods and {
            name: {**fields, "web_url": self.of(labels[name])} if name in labels else fields
            for name, fields in handle.methods.items()
        }
        return replace(handle, web_url=self.of(handle.web_label), methods=methods)

    def all_told(self, handles: Mapping[str, FunctionHandle]) -> dict[str, FunctionHandle]:
        """Return handles with their URLs."""
        return {name: self.told(handle) for name, handle in handles.items()}


def _labelled(labels: AbstractSet[str]) -> ColumnElement[bool]:
    return RouteRow.label == any_(literal(sorted(labels), ARRAY(Text)))
