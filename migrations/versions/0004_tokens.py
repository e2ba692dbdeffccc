"""Tokens of members and workers."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go to this revision."""
    op.create_table(
        "tokens",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(kind = 'member') = (workspace_id IS NOT NULL)", name=op.f("ck_tokens_members_have_workspace")
        ),
        sa.CheckConstraint("kind IN ('member', 'worker', 'gpu-worker')", name=op.f("ck_tokens_kind_known")),
        sa.CheckConstraint("octet_length(secret_sha256) = 32", name=op.f("ck_tokens_secret_is_sha256")),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_tokens_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
    )
    op.create_index("ix_tokens_workspace_id", "tokens", ["workspace_id"], unique=False)
    op.create_index(
        "ix_tokens_revoked_at",
        "tokens",
        ["revoked_at"],
        unique=False,
        postgresql_where=sa.text("revoked_at IS NOT NULL"),
    )


def downgrade() -> None:
    """Go back to the one before."""
    op.drop_index(
        "ix_tokens_revoked_at", table_name="tokens", postgresql_where=sa.text("revoked_at IS NOT NULL")
    )
    op.drop_index("ix_tokens_workspace_id", table_name="tokens")
    op.drop_table("tokens")
