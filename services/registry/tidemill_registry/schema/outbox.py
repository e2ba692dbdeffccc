"""What NATS must be told."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from tidemill_registry.schema.base import Base


class Outbox(Base):
    """Something decided that NATS must be told: written with the decision, removed when it was told.

    `put` and `delete` are about a key of a bucket; `event` is a message for a subject; `timer` and
    `untimer` set and remove what waits on a subject of TIMERS.
    """

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    kind: Mapped[str]
    target: Mapped[str]
    key: Mapped[str] = mapped_column(server_default="")
    body: Mapped[bytes | None]
    headers: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint("kind IN ('put', 'delete', 'event', 'timer', 'untimer')", name="kind_known"),
        CheckConstraint("(kind IN ('delete', 'untimer')) = (body IS NULL)", name="body_fits_kind"),
        CheckConstraint("(kind IN ('event', 'timer', 'untimer')) = (key = '')", name="key_fits_kind"),
        Index("ix_outbox_key", "key", postgresql_where=text("key <> ''")),
    )
