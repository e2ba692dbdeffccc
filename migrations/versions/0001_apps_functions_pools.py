"""Workspaces, environments, apps, functions, pools, deployments and the outbox."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go to this revision."""
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), server_default="", nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("(kind = 'delete') = (body IS NULL)", name=op.f("ck_outbox_body_fits_kind")),
        sa.CheckConstraint("(kind = 'event') = (key = '')", name=op.f("ck_outbox_key_fits_kind")),
        sa.CheckConstraint("kind IN ('put', 'delete', 'event')", name=op.f("ck_outbox_kind_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_table(
        "workspaces",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("name <> ''", name=op.f("ck_workspaces_name_given")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workspaces")),
        sa.UniqueConstraint("name", name=op.f("uq_workspaces_name")),
    )
    op.create_table(
        "environments",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("name <> ''", name=op.f("ck_environments_name_given")),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_environments_workspace_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_environments")),
        sa.UniqueConstraint("workspace_id", "name", name=op.f("uq_environments_workspace_id_name")),
    )
    op.create_table(
        "apps",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("environment_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), server_default="0", nullable=False),
        sa.Column("tags", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("stopped_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("stop_reason", sa.Text(), server_default="", nullable=False),
        sa.CheckConstraint(
            "(state = 'stopped') = (stopped_at IS NOT NULL)", name=op.f("ck_apps_stopped_has_time")
        ),
        sa.CheckConstraint("state <> 'deployed' OR name IS NOT NULL", name=op.f("ck_apps_deployed_has_name")),
        sa.CheckConstraint(
            "state <> 'ephemeral' OR heartbeat_at IS NOT NULL", name=op.f("ck_apps_ephemeral_has_heartbeat")
        ),
        sa.CheckConstraint(
            "state IN ('ephemeral', 'detached', 'deployed', 'stopped')", name=op.f("ck_apps_state_known")
        ),
        sa.CheckConstraint("version >= 0", name=op.f("ck_apps_version_counts")),
        sa.ForeignKeyConstraint(["environment_id"], ["environments.id"], name=op.f("fk_apps_environment_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_apps")),
    )
    op.create_index(
        "ix_apps_environment", "apps", ["environment_id", sa.literal_column("created_at DESC")], unique=False
    )
    op.create_index(
        "ix_apps_heartbeat",
        "apps",
        ["heartbeat_at"],
        unique=False,
        postgresql_where=sa.text("state = 'ephemeral'"),
    )
    op.create_index(
        "ix_apps_stopped", "apps", ["stopped_at"], unique=False, postgresql_where=sa.text("state = 'stopped'")
    )
    op.create_index(
        "uq_apps_deployed_name",
        "apps",
        ["environment_id", "name"],
        unique=True,
        postgresql_where=sa.text("state = 'deployed'"),
    )
    op.create_table(
        "deployments",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_deployments_version_counts")),
        sa.ForeignKeyConstraint(
            ["app_id"], ["apps.id"], name=op.f("fk_deployments_app_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployments")),
        sa.UniqueConstraint("app_id", "version", name=op.f("uq_deployments_app_id_version")),
    )
    op.create_table(
        "functions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("name <> ''", name=op.f("ck_functions_name_given")),
        sa.ForeignKeyConstraint(
            ["app_id"], ["apps.id"], name=op.f("fk_functions_app_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_functions")),
        sa.UniqueConstraint("app_id", "id", name=op.f("uq_functions_app_id_id")),
        sa.UniqueConstraint("app_id", "name", name=op.f("uq_functions_app_id_name")),
    )
    op.create_table(
        "pools",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("function_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("capability", sa.Text(), nullable=False),
        sa.Column("shard", sa.SmallInteger(), nullable=False),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("superseded_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("octet_length(digest) = 32", name=op.f("ck_pools_digest_is_sha256")),
        sa.CheckConstraint("shard >= 0", name=op.f("ck_pools_shard_counts")),
        sa.ForeignKeyConstraint(
            ["app_id", "function_id"],
            ["functions.app_id", "functions.id"],
            name=op.f("fk_pools_app_id_function_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"], name=op.f("fk_pools_app_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pools")),
        sa.UniqueConstraint("function_id", "digest", name=op.f("uq_pools_function_id_digest")),
        sa.UniqueConstraint("function_id", "id", name=op.f("uq_pools_function_id_id")),
    )
    op.create_index("ix_pools_app_id", "pools", ["app_id"], unique=False)
    op.create_index(
        "uq_pools_current",
        "pools",
        ["function_id"],
        unique=True,
        postgresql_where=sa.text("superseded_at IS NULL"),
    )
    op.create_table(
        "deployment_functions",
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("function_id", sa.Text(), nullable=False),
        sa.Column("pool_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["app_id", "function_id"],
            ["functions.app_id", "functions.id"],
            name=op.f("fk_deployment_functions_app_id_function_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["app_id", "version"],
            ["deployments.app_id", "deployments.version"],
            name=op.f("fk_deployment_functions_app_id_version"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["function_id", "pool_id"],
            ["pools.function_id", "pools.id"],
            name=op.f("fk_deployment_functions_function_id_pool_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("app_id", "version", "function_id", name=op.f("pk_deployment_functions")),
    )
    op.create_index(
        "ix_deployment_functions_function_id_pool_id",
        "deployment_functions",
        ["function_id", "pool_id"],
        unique=False,
    )


def downgrade() -> None:
    """Go back to the one before."""
    op.drop_index("ix_deployment_functions_function_id_pool_id", table_name="deployment_functions")
    op.drop_table("deployment_functions")
    op.drop_index("uq_pools_current", table_name="pools", postgresql_where=sa.text("superseded_at IS NULL"))
    op.drop_index("ix_pools_app_id", table_name="pools")
    op.drop_table("pools")
    op.drop_table("functions")
    op.drop_table("deployments")
    op.drop_index("uq_apps_deployed_name", table_name="apps", postgresql_where=sa.text("state = 'deployed'"))
    op.drop_index("ix_apps_stopped", table_name="apps", postgresql_where=sa.text("state = 'stopped'"))
    op.drop_index("ix_apps_heartbeat", table_name="apps", postgresql_where=sa.text("state = 'ephemeral'"))
    op.drop_index("ix_apps_environment", table_name="apps")
    op.drop_table("apps")
    op.drop_table("environments")
    op.drop_table("workspaces")
    op.drop_table("outbox")
