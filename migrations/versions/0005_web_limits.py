"""Limits of requests, and tokens that open web functions."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go to this revision."""
    op.create_table(
        "proxy_tokens",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("octet_length(secret_sha256) = 32", name=op.f("ck_proxy_tokens_secret_is_sha256")),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_proxy_tokens_workspace_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_proxy_tokens")),
    )
    op.create_index("ix_proxy_tokens_workspace_id", "proxy_tokens", ["workspace_id"], unique=False)
    op.create_table(
        "rate_limits",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("rate", sa.Double(), nullable=False),
        sa.Column("burst", sa.Double(), nullable=False),
        sa.CheckConstraint("kind IN ('workspace', 'app', 'token')", name=op.f("ck_rate_limits_kind_known")),
        sa.CheckConstraint(
            "(kind = 'workspace') = (name = '')", name=op.f("ck_rate_limits_named_unless_workspace")
        ),
        sa.CheckConstraint("rate > 0 AND burst >= 1", name=op.f("ck_rate_limits_lets_some_through")),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_rate_limits_workspace_id")
        ),
        sa.PrimaryKeyConstraint("workspace_id", "kind", "environment", "name", name=op.f("pk_rate_limits")),
    )


def downgrade() -> None:
    """Go back to the one before."""
    op.drop_table("rate_limits")
    op.drop_index("ix_proxy_tokens_workspace_id", table_name="proxy_tokens")
    op.drop_table("proxy_tokens")
