"""Folded records into PostgreSQL: a statement for each table, in the order of the keys.

Every update is idempotent and commutes, so that replicas can write about the same call at the same time;
the common order keeps them from waiting for each other in a circle.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, and_, or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from tidemill._wire.calls import FINISHED
from tidemill_registry.folding import COUNTED, SEGMENT, Rows
from tidemill_registry.schema import Function


class PoolInfo(NamedTuple):
    """What is noted of a pool with its calls."""

    workspace: str
    app_id: str
    function_id: str
    function: str
    module: str
    methods: frozenset[str] = frozenset()  # of a class
    is_variant: bool = False

    def shown(self, method: str) -> str:
        """Return what is called by its name: the function, or a method of the class."""
        return f"{self.function}.{method}" if method else self.function


def named(name: str, function_id: Any, method: Any) -> ColumnElement[bool]:
    """Return the condition that a row is of a function or class, or of a method as `Class.method`."""
    whole: ColumnElement[bool] = function_id.in_(select(Function.id).where(Function.name == name))
    owner, dot, part = name.rpartition(".")
    if not dot:
        return whole
    of_class = function_id.in_(select(Function.id).where(Function.name == owner))
    return or_(whole, and_(of_class, method == part))


def _times(*names: str) -> str:
    """Return columns of unix times, 0 for none, as times."""
    return ", ".join(f"to_timestamp(nullif(r.{name}, 0))" for name in names)


# Rows travel as one JSON array of objects: that costs the least here, and little there.
_CALLS = text(f"""
INSERT INTO calls AS c (id, workspace, root, parent, app_id, function_id, pool_id, method, num_inputs, states,
                        queued_at, started_at, finished_at, cancelled_at)
SELECT r.id, :workspace, r.root, r.parent, r.app_id, r.function_id, r.pool_id, r.method, r.num_inputs,
       r.states, {_times("queued", "started", "finished", "cancelled")}
FROM json_to_recordset(CAST(:rows AS json))
  AS r(id text, root text, parent text, app_id text, function_id text, pool_id text, method text,
       num_inputs int, states int, queued float8, started float8, finished float8, cancelled float8)
ON CONFLICT (id, workspace) DO UPDATE SET
  root = CASE WHEN c.root = c.id THEN excluded.root ELSE c.root END,
  parent = CASE WHEN c.parent = '' THEN excluded.parent ELSE c.parent END,
  method = CASE WHEN c.method = '' THEN excluded.method ELSE c.method END,
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
_NEWEST = ("state", "attempt", "container", "started_at", "finished_at", "reason", "moments")

_INPUTS = text(f"""
INSERT INTO inputs AS i (call_id, workspace, number, state, attempt, container, queued_at, started_at,
                         finished_at, reason, moments, tries)
SELECT r.call_id, :workspace, r.number, r.state, r.attempt, r.container,
       {_times("queued", "started", "finished")}, r.reason, r.moments, r.tries
FROM json_to_recordset(CAST(:rows AS json))
  AS r(call_id text, number int, state smallint, attempt int, container text, queued float8,
       started float8, finished float8, reason text, moments float8[], tries jsonb)
ON CONFLICT (call_id, workspace, number) DO UPDATE SET
  {", ".join(f"{name} = CASE WHEN {_BEATS} THEN excluded.{name} ELSE i.{name} END" for name in _NEWEST)},
  queued_at = least(i.queued_at, excluded.queued_at),
  tries = i.tries || excluded.tries
""")  # noqa: S608  # of constants

COUNT_COLUMNS = ("success", "failure", "timeout", "terminated", "init_failure")  # in the order of COUNTED
_COUNTS = text(f"""
INSERT INTO input_counts AS n (call_id, workspace, segment, {", ".join(COUNT_COLUMNS)})
SELECT r.call_id, :workspace, r.segment,
       {", ".join(f"CAST(r.{name} AS bit({SEGMENT}))" for name in COUNT_COLUMNS)}
FROM json_to_recordset(CAST(:rows AS json))
  AS r(call_id text, segment int, {", ".join(f"{name} text" for name in COUNT_COLUMNS)})
ON CONFLICT (call_id, workspace, segment) DO UPDATE SET
  {", ".join(f"{name} = n.{name} | excluded.{name}" for name in COUNT_COLUMNS)}
""")  # noqa: S608  # of constants

_encode = msgspec.json.Encoder().encode


async def write(connection: AsyncConnection, workspace: str, rows: Rows, pools: dict[str, PoolInfo]) -> None:
    """Write a workspace's rows in the caller's transaction. `pools` are its own."""
    for statement, found in (
        (_CALLS, _calls(rows, pools)),
        (_INPUTS, _inputs(rows)),
        (_COUNTS, _counts(rows)),
    ):
        if found:
            given = {"workspace": workspace, "rows": _encode(found).decode()}
            await connection.execute(statement, given)


def _calls(rows: Rows, pools: dict[str, PoolInfo]) -> Sequence[dict[str, Any]]:
    return [
        {
            "id": call,
            "root": row.root,
            "parent": row.parent,
            "app_id": pools[row.pool].app_id,
            "function_id": pools[row.pool].function_id,
            "pool_id": row.pool,
            "method": row.method if row.method in pools[row.pool].methods else "",
            "num_inputs": row.num_inputs,
            "states": row.states,
            "queued": row.queued,
            "started": row.started,
            "finished": row.finished,
            "cancelled": row.cancelled,
        }
        for call, row in sorted(rows.calls.items())
    ]


def _inputs(rows: Rows) -> Sequence[dict[str, Any]]:
    return [
        {
            "call_id": key[0],
            "number": key[1],
            "state": row.state,
            "attempt": row.attempt,
            "container": row.container,
            "queued": row.queued,
            "started": row.started,
            "finished": row.finished,
            "reason": row.reason,
            "moments": row.moments,
            "tries": row.tries,
        }
        for key, row in sorted(rows.inputs.items(), key=_key)
    ]


def _counts(rows: Rows) -> Sequence[dict[str, Any]]:
    return [
        {
            "call_id": key[0],
            "segment": key[1],
            **{name: rows.bits(key, state) for name, state in zip(COUNT_COLUMNS, COUNTED, strict=True)},
        }
        for key in sorted(rows.counts)
    ]


def _key(item: tuple[tuple[str, int], Any]) -> tuple[str, int]:
    return item[0]
