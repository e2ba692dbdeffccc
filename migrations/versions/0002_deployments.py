"""Deployments as records, secrets, schedules, suffixes of environments."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NOW = sa.text("now()")


def upgrade() -> None:
    """Go to this revision."""
    _environments()
    op.create_index(
        "ix_apps_tags",
        "apps",
        ["tags"],
        postgresql_using="gin",
        postgresql_ops={"tags": "jsonb_path_ops"},
    )
    _deployments()
    op.add_column("pools", sa.Column("served_spec", sa.LargeBinary(), nullable=True))
    op.create_check_constraint(
        op.f("ck_pools_present_needs_no_spec"), "pools", "served_spec IS NULL OR superseded_at IS NOT NULL"
    )
    _secrets()
    _schedules()
    _outbox()


def _environments() -> None:
    op.add_column("environments", sa.Column("web_suffix", sa.Text(), server_default="", nullable=False))
    op.execute("UPDATE environments SET web_suffix = lower(id) WHERE name <> 'main'")
    op.create_unique_constraint(
        op.f("uq_environments_workspace_id_web_suffix"), "environments", ["workspace_id", "web_suffix"]
    )


def _deployments() -> None:
    for column in (
        sa.Column("tag", sa.Text(), server_default="", nullable=False),
        sa.Column("strategy", sa.Text(), server_default="rolling", nullable=False),
        sa.Column("client_version", sa.Text(), server_default="", nullable=False),
        sa.Column("deployed_by", sa.Text(), server_default="", nullable=False),
        sa.Column("rolled_back_to", sa.Integer(), nullable=True),
        sa.Column("functions", sa.ARRAY(sa.Text()), server_default="{}", nullable=False),
    ):
        op.add_column("deployments", column)
    op.execute(
        "UPDATE deployments SET functions = served.names FROM ("
        "SELECT served.app_id, served.version, array_agg(functions.name ORDER BY functions.name) AS names "
        "FROM deployment_functions AS served JOIN functions ON functions.id = served.function_id "
        "GROUP BY served.app_id, served.version) AS served "
        "WHERE served.app_id = deployments.app_id AND served.version = deployments.version"
    )
    for name, condition in (
        ("tag_is_short", "char_length(tag) <= 50"),
        ("strategy_known", "strategy IN ('rolling', 'recreate')"),
        ("rolled_back_to_earlier", "rolled_back_to BETWEEN 1 AND version - 1"),
    ):
        op.create_check_constraint(op.f(f"ck_deployments_{name}"), "deployments", condition)


def _secrets() -> None:
    op.create_table(
        "secrets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("environment_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=True),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.Column("keys", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_by", sa.Text(), server_default="", nullable=False),
        sa.CheckConstraint("(name IS NULL) <> (fingerprint IS NULL)", name=op.f("ck_secrets_named_or_not")),
        sa.CheckConstraint("name <> ''", name=op.f("ck_secrets_name_given")),
        sa.CheckConstraint(
            "octet_length(fingerprint) = 32", name=op.f("ck_secrets_fingerprint_is_sha256")
        ),
        sa.ForeignKeyConstraint(
            ["environment_id"],
            ["environments.id"],
            name=op.f("fk_secrets_environment_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_secrets")),
        sa.UniqueConstraint("environment_id", "name", name=op.f("uq_secrets_environment_id_name")),
        sa.UniqueConstraint(
            "environment_id", "fingerprint", name=op.f("uq_secrets_environment_id_fingerprint")
        ),
    )
    op.create_index("ix_secrets_key_id", "secrets", ["key_id"])
    op.create_index(
        "ix_secrets_unnamed", "secrets", ["updated_at"], postgresql_where=sa.text("name IS NULL")
    )
    op.create_table(
        "pool_secrets",
        sa.Column("pool_id", sa.Text(), nullable=False),
        sa.Column("secret_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["pool_id"], ["pools.id"], name=op.f("fk_pool_secrets_pool_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["secret_id"], ["secrets.id"], name=op.f("fk_pool_secrets_secret_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("pool_id", "secret_id", name=op.f("pk_pool_secrets")),
    )
    op.create_index("ix_pool_secrets_secret_id", "pool_secrets", ["secret_id"])


def _schedules() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("function_id", sa.Text(), nullable=False),
        sa.Column("record", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("pool_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_schedules_version_counts")),
        sa.ForeignKeyConstraint(
            ["app_id"], ["apps.id"], name=op.f("fk_schedules_app_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["app_id", "function_id"],
            ["functions.app_id", "functions.id"],
            name=op.f("fk_schedules_app_id_function_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["function_id", "pool_id"],
            ["pools.function_id", "pools.id"],
            name=op.f("fk_schedules_function_id_pool_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedules")),
        sa.UniqueConstraint("app_id", "function_id", name=op.f("uq_schedules_app_id_function_id")),
    )
    op.create_index("ix_schedules_function_id_pool_id", "schedules", ["function_id", "pool_id"])


def _outbox() -> None:
    op.add_column(
        "outbox",
        sa.Column("headers", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
    )
    op.create_index("ix_outbox_key", "outbox", ["key"], postgresql_where=sa.text("key <> ''"))
    _outbox_checks(
        kind_known="kind IN ('put', 'delete', 'event', 'timer', 'untimer')",
        body_fits_kind="(kind IN ('delete', 'untimer')) = (body IS NULL)",
        key_fits_kind="(kind IN ('event', 'timer', 'untimer')) = (key = '')",
    )


def _outbox_checks(**conditions: str) -> None:
    for name, condition in conditions.items():
        op.drop_constraint(op.f(f"ck_outbox_{name}"), "outbox", type_="check")
        op.create_check_constraint(op.f(f"ck_outbox_{name}"), "outbox", condition)


def downgrade() -> None:
    """Go back to the one before. Secrets, schedules and what is told of deployments are lost."""
    op.execute("DELETE FROM outbox WHERE kind IN ('timer', 'untimer')")
    _outbox_checks(
        kind_known="kind IN ('put', 'delete', 'event')",
        body_fits_kind="(kind = 'delete') = (body IS NULL)",
        key_fits_kind="(kind = 'event') = (key = '')",
    )
    op.drop_index("ix_outbox_key", table_name="outbox")
    op.drop_column("outbox", "headers")
    op.drop_table("schedules")
    op.drop_table("pool_secrets")
    op.drop_table("secrets")
    op.drop_constraint(op.f("ck_pools_present_needs_no_spec"), "pools", type_="check")
    op.drop_column("pools", "served_spec")
    for name in ("tag_is_short", "strategy_known", "rolled_back_to_earlier"):
        op.drop_constraint(op.f(f"ck_deployments_{name}"), "deployments", type_="check")
    for name in ("tag", "strategy", "client_version", "deployed_by", "rolled_back_to", "functions"):
        op.drop_column("deployments", name)
    op.drop_index("ix_apps_tags", table_name="apps")
    op.drop_constraint(op.f("uq_environments_workspace_id_web_suffix"), "environments", type_="unique")
    op.drop_column("environments", "web_suffix")
