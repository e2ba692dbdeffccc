"""What happened to calls.

A call's id sorts by time, so what is old lies at the beginning of each primary key. Whoever makes a call
chooses its id: the workspace belongs to the key, or one could disturb another's.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Double, Index, SmallInteger, Text
from sqlalchemy.dialects.postgresql import BIT
from sqlalchemy.orm import Mapped, mapped_column

from tidemill_registry.schema.base import Base


class Call(Base):
    """One call. Every change is a union, a minimum or a maximum: records may come twice and in any order.

    `states` has a bit for each state that an input of it was recorded in; `num_inputs` those known.
    """

    __tablename__ = "calls"

    id: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    workspace: Mapped[str] = mapped_column(primary_key=True)
    root: Mapped[str]
    parent: Mapped[str] = mapped_column(server_default="")
    app_id: Mapped[str]
    function_id: Mapped[str]
    pool_id: Mapped[str]
    method: Mapped[str] = mapped_column(server_default="")
    num_inputs: Mapped[int] = mapped_column(server_default="0")
    states: Mapped[int] = mapped_column(server_default="0")
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    cancelled_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_calls_root", "root"),
        Index("ix_calls_app_id_id", "app_id", "id"),
        Index("ix_calls_function_id_id", "function_id", "id"),
    )


class Input(Base):
    """One of the first inputs of a call: the newest that is known of it, and its earlier attempts.

    `number` is its index; a row of SQLAlchemy has an `index` of its own. `moments` are unix times of the
    start of its container, if it waited for that.
    """

    __tablename__ = "inputs"

    call_id: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    workspace: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[int] = mapped_column(SmallInteger)
    attempt: Mapped[int]
    container: Mapped[str] = mapped_column(server_default="")
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    reason: Mapped[str] = mapped_column(server_default="")
    tries: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    moments: Mapped[list[float]] = mapped_column(ARRAY(Double), server_default="{}")


class InputCount(Base):
    """Which of 4,096 further inputs of a call have finished, and how: a bit for each."""

    __tablename__ = "input_counts"

    call_id: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    workspace: Mapped[str] = mapped_column(primary_key=True)
    segment: Mapped[int] = mapped_column(primary_key=True)
    success: Mapped[Any] = mapped_column(BIT(4096))
    failure: Mapped[Any] = mapped_column(BIT(4096))
    timeout: Mapped[Any] = mapped_column(BIT(4096))
    terminated: Mapped[Any] = mapped_column(BIT(4096))
    init_failure: Mapped[Any] = mapped_column(BIT(4096))


class RequestCountRow(Base):
    """How many requests to a web function one worker (`source`) has seen succeed in a minute of unix time.

    It only grows. Minutes that are as old as calls are forgotten like them.
    """

    __tablename__ = "request_counts"

    workspace: Mapped[str] = mapped_column(primary_key=True)
    function_id: Mapped[str] = mapped_column(primary_key=True)
    minute: Mapped[int] = mapped_column(primary_key=True)
    pool_id: Mapped[str] = mapped_column(primary_key=True)
    source: Mapped[str] = mapped_column(primary_key=True)
    app_id: Mapped[str]
    succeeded: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (Index("ix_request_counts_minute", "minute"),)


class DeadLetterRow(Base):
    """An input that was given up; the letter itself is in DEAD. `replayed_as` is set once.

    `variation` is that of its pool, where it is one: letters are kept for longer than variants.
    """

    __tablename__ = "dead_letters"

    call_id: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    workspace: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    pool_id: Mapped[str]
    app_id: Mapped[str]
    function_id: Mapped[str]
    method: Mapped[str] = mapped_column(server_default="")
    reason: Mapped[str]
    attempts: Mapped[int]
    readable: Mapped[bool]
    variation: Mapped[bytes | None]
    given_up_at: Mapped[datetime]
    replayed_as: Mapped[str] = mapped_column(server_default="")
    replayed_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_dead_letters_given_up_at", "given_up_at"),
        Index("ix_dead_letters_app_id_given_up_at", "app_id", "given_up_at"),
    )
