"""Web requests that succeed, counted by the minute."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go to this revision."""
    op.create_table(
        "request_counts",
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("function_id", sa.Text(), nullable=False),
        sa.Column("minute", sa.Integer(), nullable=False),
        sa.Column("pool_id", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("succeeded", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "workspace", "function_id", "minute", "pool_id", "source", name=op.f("pk_request_counts")
        ),
    )
    op.create_index("ix_request_counts_minute", "request_counts", ["minute"])


def downgrade() -> None:
    """Leave this revision."""
    op.drop_table("request_counts")
