"""Folded records into PostgreSQL: a statement for each table, in the order of the keys.

Every update is idempotent and commutes, so that replicas can write about the same call at the same time;
the common order keeps them from waiting for each other in a circle.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tidemill._wire.calls import FINISHED
from tidemill_registry.folding import COUNTED, Rows


class PoolInfo(NamedTuple):
    """What is noted of a pool with its calls."""

    workspace: str
    app_id: str
    function_id: str
    function: str
    module: str


def _times(*names: str) -> str:
    """Return columns of unix times, 0 for none, as times."""
    return ", ".join(f"to_timestamp(nullif(r.{name}, 0))" for name in names)


_CALLS = text(f"""
INSERT INTO calls AS c (id, workspace, root, parent, app_id, function_id, pool_id, num_inputs, states,
                        queued_at, started_at, finished_at, cancelled_at)
SELECT r.id, r.workspace, r.root, r.parent, r.app_id, r.function_id, r.pool_id, r.num_inputs, r.states,
       {_times("queued", "started", "finished", "cancelled")}
FROM unnest(CAST(:id AS text[]), CAST(:workspace AS text[]), CAST(:root AS text[]), CAST(:parent AS text[]),
            CAST(:app_id AS text[]), CAST(:function_id AS text[]), CAST(:pool_id AS text[]),
            CAST(:num_inputs AS int[]), CAST(:states AS int[]), CAST(:queued AS float8[]),
            CAST(:started AS float8[]), CAST(:finished AS float8[]), CAST(:cancelled AS float8[]))
  AS r(id, workspace, root, parent, app_id, function_id, pool_id, num_inputs, states,
       queued, started, finished, cancelled)
ON CONFLICT (id) DO UPDATE SET
  root = CASE WHEN c.root = c.id THEN excluded.root ELSE c.root END,
  parent = CASE WHEN c.parent = '' THEN excluded.parent ELSE c.parent END,
  num_inputs = greatest(c.num_inputs, excluded.num_inputs),
  states = c.states | excluded.states,
  queued_at = least(c.queued_at, excluded.queued_at),
  started_at = least(c.started_at, excluded.started_at),
  finished_at = greatest(c.finished_at, excluded.finished_at),
  cancelled_at = least(c.cancelled_at, excluded.cancelled_at)
""")  # noqa: S608  # of constants

# The same as `folding.beats`.
_BEATS = f"""CASE
  WHEN excluded.state >= {FINISHED} AND i.state >= {FINISHED} THEN excluded.finished_at < i.finished_at
  WHEN excluded.state >= {FINISHED} OR i.state >= {FINISHED} THEN excluded.state >= {FINISHED}
  ELSE (excluded.attempt, excluded.state) > (i.attempt, i.state) END"""
_NEWEST = ("state", "attempt", "container", "started_at", "finished_at", "reason")

_INPUTS = text(f"""
INSERT INTO inputs AS i (call_id, number, state, attempt, container, queued_at, started_at, finished_at,
                         reason, tries)
SELECT r.call_id, r.number, r.state, r.attempt, r.container, {_times("queued", "started", "finished")},
       r.reason, CAST(r.tries AS jsonb)
FROM unnest(CAST(:call_id AS text[]), CAST(:number AS int[]), CAST(:state AS smallint[]),
            CAST(:attempt AS int[]), CAST(:container AS text[]), CAST(:queued AS float8[]),
            CAST(:started AS float8[]), CAST(:finished AS float8[]), CAST(:reason AS text[]),
            CAST(:tries AS text[]))
  AS r(call_id, number, state, attempt, container, queued, started, finished, reason, tries)
ON CONFLICT (call_id, number) DO UPDATE SET
  {", ".join(f"{name} = CASE WHEN {_BEATS} THEN excluded.{name} ELSE i.{name} END" for name in _NEWEST)},
  queued_at = least(i.queued_at, excluded.queued_at),
  tries = i.tries || excluded.tries
""")  # noqa: S608  # of constants

COUNT_COLUMNS = ("success", "failure", "timeout", "terminated", "init_failure")  # in the order of COUNTED
_COUNTS = text(f"""
INSERT INTO input_counts AS n (call_id, segment, {", ".join(COUNT_COLUMNS)})
SELECT * FROM unnest(CAST(:call_id AS text[]), CAST(:segment AS int[]),
                     {", ".join(f"CAST(:{name} AS varbit[])" for name in COUNT_COLUMNS)})
ON CONFLICT (call_id, segment) DO UPDATE SET
  {", ".join(f"{name} = n.{name} | excluded.{name}" for name in COUNT_COLUMNS)}
""")  # noqa: S608  # of constants


async def write(connection: AsyncConnection, rows: Rows, pools: dict[str, PoolInfo]) -> None:
    """Write rows in the caller's transaction."""
    if rows.calls:
        await connection.execute(_CALLS, _call_columns(rows, pools))
    if rows.inputs:
        await connection.execute(_INPUTS, _input_columns(rows))
    if rows.counts:
        await connection.execute(_COUNTS, _count_columns(rows))


def _call_columns(rows: Rows, pools: dict[str, PoolInfo]) -> dict[str, Any]:
    names = (
        "id", "workspace", "root", "parent", "app_id", "function_id", "pool_id", "num_inputs", "states",
        "queued", "started", "finished", "cancelled",
    )  # fmt: skip
    values = [
        (
            call, pools[row.pool].workspace, row.root, row.parent, pools[row.pool].app_id,
            pools[row.pool].function_id, row.pool, row.num_inputs, row.states,
            row.queued, row.started, row.finished, row.cancelled,
        )
        for call, row in sorted(rows.calls.items())
    ]  # fmt: skip
    return _columns(names, values)


def _input_columns(rows: Rows) -> dict[str, Any]:
    names = (
        "call_id", "number", "state", "attempt", "container", "queued", "started", "finished", "reason",
        "tries",
    )  # fmt: skip
    values = [
        (
            call, index, row.state, row.attempt, row.container, row.queued, row.started, row.finished,
            row.reason, json.dumps(row.tries) if row.tries else "{}",
        )
        for (call, index), row in sorted(rows.inputs.items(), key=lambda item: item[0])
    ]  # fmt: skip
    return _columns(names, values)


def _count_columns(rows: Rows) -> dict[str, Any]:
    values = [
        (call, segment, *(rows.bits((call, segment), state) for state in COUNTED))
        for call, segment in sorted(rows.counts)
    ]
    return _columns(("call_id", "segment", *COUNT_COLUMNS), values)


def _columns(names: Sequence[str], values: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    return {name: list(column) for name, column in zip(names, zip(*values, strict=True), strict=True)}
