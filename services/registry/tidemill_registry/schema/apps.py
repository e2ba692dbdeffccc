"""Apps with their functions, versions and what follows from them."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    SmallInteger,
    Text,
    UniqueConstraint,
    false,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from tidemill_registry.schema.base import Base


class Workspace(Base):
    """Whoever shares apps, secrets and limits."""

    __tablename__ = "workspaces"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (CheckConstraint("name <> ''", name="name_given"),)


class Environment(Base):
    """A part of a workspace in which names of apps and secrets are unique."""

    __tablename__ = "environments"

    id: Mapped[str] = mapped_column(primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    name: Mapped[str]
    web_suffix: Mapped[str] = mapped_column(server_default="")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        UniqueConstraint("workspace_id", "name"),
        UniqueConstraint("workspace_id", "web_suffix"),
        CheckConstraint("name <> ''", name="name_given"),
    )


class App(Base):
    """One run of an app, or a deployed app through all its versions. `version` is the present one."""

    __tablename__ = "apps"

    id: Mapped[str] = mapped_column(primary_key=True)
    environment_id: Mapped[str] = mapped_column(ForeignKey("environments.id"))
    name: Mapped[str | None]
    description: Mapped[str] = mapped_column(server_default="")
    state: Mapped[str]
    version: Mapped[int] = mapped_column(server_default="0")
    tags: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_by: Mapped[str] = mapped_column(server_default="")
    heartbeat_at: Mapped[datetime | None]
    stopped_at: Mapped[datetime | None]
    stop_reason: Mapped[str] = mapped_column(server_default="")
    stopped_by: Mapped[str] = mapped_column(server_default="")

    __table_args__ = (
        CheckConstraint("state IN ('ephemeral', 'detached', 'deployed', 'stopped')", name="state_known"),
        CheckConstraint("(state = 'stopped') = (stopped_at IS NOT NULL)", name="stopped_has_time"),
        CheckConstraint("state <> 'ephemeral' OR heartbeat_at IS NOT NULL", name="ephemeral_has_heartbeat"),
        CheckConstraint("state <> 'deployed' OR name IS NOT NULL", name="deployed_has_name"),
        CheckConstraint("version >= 0", name="version_counts"),
        Index(
            "uq_apps_deployed_name",
            "environment_id",
            "name",
            unique=True,
            postgresql_where=text("state = 'deployed'"),
        ),
        Index("ix_apps_heartbeat", "heartbeat_at", postgresql_where=text("state = 'ephemeral'")),
        Index("ix_apps_stopped", "stopped_at", postgresql_where=text("state = 'stopped'")),
        Index("ix_apps_environment", "environment_id", text("created_at DESC")),
        Index("ix_apps_tags", "tags", postgresql_using="gin", postgresql_ops={"tags": "jsonb_path_ops"}),
    )


class Function(Base):
    """A function of an app: its id stays the same through all versions."""

    __tablename__ = "functions"

    id: Mapped[str] = mapped_column(primary_key=True)
    app_id: Mapped[str] = mapped_column(ForeignKey("apps.id", ondelete="CASCADE"))
    name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        UniqueConstraint("app_id", "name"),
        UniqueConstraint("app_id", "id"),
        CheckConstraint("name <> ''", name="name_given"),
    )


class PoolRow(Base):
    """One function with one set of options. `record` is what the `pools` bucket holds about it.

    `digest` is that of the specification: the same specification is the same pool. A superseded pool
    still finishes what is sent to it, but keeps no containers waiting: its record says so, and
    `served_spec` keeps the specification that it had, for when a rollback brings it back.

    A variant differs from the pool `variant_of` by what its `variation` says, and follows it in everything
    else; `asked_at` is when it was last asked for, `of_url` tells that only URLs ask for it.
    """

    __tablename__ = "pools"

    id: Mapped[str] = mapped_column(primary_key=True)
    app_id: Mapped[str] = mapped_column(ForeignKey("apps.id", ondelete="CASCADE"))
    function_id: Mapped[str]
    digest: Mapped[bytes]
    capability: Mapped[str]
    shard: Mapped[int] = mapped_column(SmallInteger)
    record: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    superseded_at: Mapped[datetime | None]
    served_spec: Mapped[bytes | None]
    variant_of: Mapped[str | None]
    variation: Mapped[bytes | None]
    asked_at: Mapped[datetime | None]
    of_url: Mapped[bool] = mapped_column(server_default=false())

    __table_args__ = (
        ForeignKeyConstraint(
            ["app_id", "function_id"], ["functions.app_id", "functions.id"], ondelete="CASCADE"
        ),
        UniqueConstraint("function_id", "digest"),
        UniqueConstraint("function_id", "id"),
        Index("ix_pools_app_id", "app_id"),
        ForeignKeyConstraint(
            ["function_id", "variant_of"], ["pools.function_id", "pools.id"], ondelete="CASCADE"
        ),
        Index(
            "uq_pools_current",
            "function_id",
            unique=True,
            postgresql_where=text("superseded_at IS NULL AND variant_of IS NULL"),
        ),
        Index(
            "ix_pools_variant_of",
            "function_id",
            "variant_of",
            postgresql_where=text("variant_of IS NOT NULL"),
        ),
        Index("ix_pools_asked_at", "asked_at", postgresql_where=text("variant_of IS NOT NULL")),
        CheckConstraint(
            "(variant_of IS NULL) = (variation IS NULL) AND (variant_of IS NULL) = (asked_at IS NULL)",
            name="variants_say_how",
        ),
        CheckConstraint("octet_length(digest) = 32", name="digest_is_sha256"),
        CheckConstraint("shard >= 0", name="shard_counts"),
        CheckConstraint("served_spec IS NULL OR superseded_at IS NOT NULL", name="present_needs_no_spec"),
    )


class Deployment(Base):
    """One numbered version of an app.

    `functions` are the names of its functions: they stay when its pools are no longer kept.
    """

    __tablename__ = "deployments"

    id: Mapped[str] = mapped_column(primary_key=True)
    app_id: Mapped[str] = mapped_column(ForeignKey("apps.id", ondelete="CASCADE"))
    version: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    tag: Mapped[str] = mapped_column(server_default="")
    strategy: Mapped[str] = mapped_column(server_default="rolling")
    client_version: Mapped[str] = mapped_column(server_default="")
    deployed_by: Mapped[str] = mapped_column(server_default="")
    rolled_back_to: Mapped[int | None]
    functions: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")

    __table_args__ = (
        UniqueConstraint("app_id", "version"),
        CheckConstraint("version > 0", name="version_counts"),
        CheckConstraint("char_length(tag) <= 50", name="tag_is_short"),
        CheckConstraint("strategy IN ('rolling', 'recreate')", name="strategy_known"),
        CheckConstraint("rolled_back_to BETWEEN 1 AND version - 1", name="rolled_back_to_earlier"),
    )


class DeploymentFunction(Base):
    """Which pool serves a function in one version of its app."""

    __tablename__ = "deployment_functions"

    app_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    function_id: Mapped[str] = mapped_column(primary_key=True)
    pool_id: Mapped[str]

    __table_args__ = (
        ForeignKeyConstraint(
            ["app_id", "version"], ["deployments.app_id", "deployments.version"], ondelete="CASCADE"
        ),
        ForeignKeyConstraint(
            ["app_id", "function_id"], ["functions.app_id", "functions.id"], ondelete="CASCADE"
        ),
        ForeignKeyConstraint(
            ["function_id", "pool_id"], ["pools.function_id", "pools.id"], ondelete="CASCADE"
        ),
        Index("ix_deployment_functions_function_id_pool_id", "function_id", "pool_id"),
    )


class RouteRow(Base):
    """Which function answers under a label: `record` is what the `routes` bucket holds about it."""

    __tablename__ = "routes"

    label: Mapped[str] = mapped_column(primary_key=True)
    app_id: Mapped[str] = mapped_column(ForeignKey("apps.id", ondelete="CASCADE"))
    record: Mapped[bytes]

    __table_args__ = (
        Index("ix_routes_app_id", "app_id"),
        CheckConstraint("label <> ''", name="label_given"),
    )


class ScheduleRow(Base):
    """When a present function of a deployed app runs by itself. `record` is what the user declared."""

    __tablename__ = "schedules"

    id: Mapped[str] = mapped_column(primary_key=True)
    app_id: Mapped[str] = mapped_column(ForeignKey("apps.id", ondelete="CASCADE"))
    function_id: Mapped[str]
    record: Mapped[dict[str, Any]]
    version: Mapped[int]
    pool_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        ForeignKeyConstraint(
            ["app_id", "function_id"], ["functions.app_id", "functions.id"], ondelete="CASCADE"
        ),
        ForeignKeyConstraint(
            ["function_id", "pool_id"], ["pools.function_id", "pools.id"], ondelete="CASCADE"
        ),
        UniqueConstraint("app_id", "function_id"),
        Index("ix_schedules_function_id_pool_id", "function_id", "pool_id"),
        CheckConstraint("version > 0", name="version_counts"),
    )
