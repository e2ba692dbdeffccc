"""The tables of the registry. What must never be is forbidden here, not only in the code above.

    workspaces -< environments -< apps -< functions -< pools -< pool_secrets >- secrets
                              \\      |-< routes  \\-< schedules
                               \\      \\-< deployments -< deployment_functions >- pools
                                \\-< secrets
    workspaces -< tokens, proxy_tokens, rate_limits
    image_recipes -< image_names; images: to what packages were resolved
    outbox: what is decided and not yet told to NATS
    calls -< inputs, input_counts: what happened; dead_letters: what was given up

Composite foreign keys carry the app along, so that a deployment cannot name another app's function, nor
a function another function's pool.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    SmallInteger,
    Text,
    UniqueConstraint,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import BIT, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# Constraints are dropped by name in migrations, so each one has a name that follows from its columns.
_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

LIVE_STATES = ("ephemeral", "detached", "deployed")


class Base(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map = {  # noqa: RUF012  # SQLAlchemy's own name
        str: Text,
        bytes: LargeBinary,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
    }


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


# --- what happened. A call's id sorts by time, so what is old lies at the beginning of each primary key.
# Whoever makes a call chooses its id: the workspace belongs to the key, or one could disturb another's.


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


class ImageRow(Base):
    """What the packages of an image's recipe were resolved to, by the digest of the recipe and its Python.

    `layers` are requirements with exact versions, one text for each layer of packages.
    """

    __tablename__ = "images"

    key: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    workspace: Mapped[str]
    layers: Mapped[list[str]] = mapped_column(JSONB)
    resolved_at: Mapped[datetime] = mapped_column(server_default=func.now())


class RecipeRow(Base):
    """The recipe of an image that a workspace has used, by the image's id, as it is on the wire.

    `app_id` is the app that used it first: its output tells how the image was built.
    """

    __tablename__ = "image_recipes"

    workspace: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    image: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    record: Mapped[bytes]
    app_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ImageName(Base):
    """A name (`name:tag`) that was given to an image of a workspace in one of its environments."""

    __tablename__ = "image_names"
    __table_args__ = (
        ForeignKeyConstraint(["workspace", "image"], ["image_recipes.workspace", "image_recipes.image"]),
    )

    environment_id: Mapped[str] = mapped_column(
        ForeignKey("environments.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    workspace: Mapped[str] = mapped_column(Text(collation="C"))
    image: Mapped[str] = mapped_column(Text(collation="C"))
    published_at: Mapped[datetime] = mapped_column(server_default=func.now())


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
