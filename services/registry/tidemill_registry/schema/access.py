"""Who may do what: tokens, limits, and secrets of containers."""

from datetime import datetime

from sqlalchemy import ARRAY, CheckConstraint, ForeignKey, Index, Text, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from tidemill_registry.schema.base import Base


class Token(Base):
    """Whoever may connect. Members' tokens are of a workspace, workers' of none; a secret is not kept."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(primary_key=True)
    workspace_id: Mapped[str | None] = mapped_column(ForeignKey("workspaces.id"))
    name: Mapped[str] = mapped_column(server_default="")
    kind: Mapped[str]
    secret_sha256: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    created_by: Mapped[str] = mapped_column(server_default="")
    revoked_by: Mapped[str] = mapped_column(server_default="")

    __table_args__ = (
        CheckConstraint("kind IN ('member', 'worker', 'gpu-worker')", name="kind_known"),
        CheckConstraint("(kind = 'member') = (workspace_id IS NOT NULL)", name="members_have_workspace"),
        CheckConstraint("octet_length(secret_sha256) = 32", name="secret_is_sha256"),
        Index("ix_tokens_workspace_id", "workspace_id"),
        Index("ix_tokens_revoked_at", "revoked_at", postgresql_where=text("revoked_at IS NOT NULL")),
    )


class ProxyToken(Base):
    """Whoever opens web functions that ask for it. Its secret is not kept."""

    __tablename__ = "proxy_tokens"

    id: Mapped[str] = mapped_column(primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    name: Mapped[str] = mapped_column(server_default="")
    secret_sha256: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    revoked_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("octet_length(secret_sha256) = 32", name="secret_is_sha256"),
        Index("ix_proxy_tokens_workspace_id", "workspace_id"),
    )


class RateLimit(Base):
    """How often a workspace, an app (by environment and name) or a token (by id) may be asked for."""

    __tablename__ = "rate_limits"

    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    environment: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    rate: Mapped[float]
    burst: Mapped[float]

    __table_args__ = (
        CheckConstraint("kind IN ('workspace', 'app', 'token')", name="kind_known"),
        CheckConstraint("(kind = 'workspace') = (name = '')", name="named_unless_workspace"),
        CheckConstraint("rate > 0 AND burst >= 1", name="lets_some_through"),
    )


class SecretRow(Base):
    """Variables for containers, encrypted: with a name, or known by the fingerprint of their content.

    `ciphertext` can be read with the key that `key_id` names, which is nowhere in the database, and only
    as the content of this row. `keys` are the names of the variables.
    """

    __tablename__ = "secrets"

    id: Mapped[str] = mapped_column(primary_key=True)
    environment_id: Mapped[str] = mapped_column(ForeignKey("environments.id", ondelete="CASCADE"))
    name: Mapped[str | None]
    fingerprint: Mapped[bytes | None]
    key_id: Mapped[str]
    ciphertext: Mapped[bytes]
    keys: Mapped[list[str]] = mapped_column(ARRAY(Text))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime | None]
    created_by: Mapped[str] = mapped_column(server_default="")
    updated_by: Mapped[str] = mapped_column(server_default="")

    __table_args__ = (
        UniqueConstraint("environment_id", "name"),
        UniqueConstraint("environment_id", "fingerprint"),
        CheckConstraint("(name IS NULL) <> (fingerprint IS NULL)", name="named_or_not"),
        CheckConstraint("name <> ''", name="name_given"),
        CheckConstraint("octet_length(fingerprint) = 32", name="fingerprint_is_sha256"),
        Index("ix_secrets_key_id", "key_id"),
        Index("ix_secrets_unnamed", "updated_at", postgresql_where=text("name IS NULL")),
    )


class PoolSecret(Base):
    """A pool whose containers get a secret. A secret without a name and without such a row is unused."""

    __tablename__ = "pool_secrets"

    pool_id: Mapped[str] = mapped_column(ForeignKey("pools.id", ondelete="CASCADE"), primary_key=True)
    secret_id: Mapped[str] = mapped_column(ForeignKey("secrets.id", ondelete="CASCADE"), primary_key=True)

    __table_args__ = (Index("ix_pool_secrets_secret_id", "secret_id"),)
