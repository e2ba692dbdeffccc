"""What happened to calls and inputs, and what was given up."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go to this revision."""
    op.create_table(
        "calls",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("root", sa.Text(), nullable=False),
        sa.Column("parent", sa.Text(), server_default="", nullable=False),
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("function_id", sa.Text(), nullable=False),
        sa.Column("pool_id", sa.Text(), nullable=False),
        sa.Column("num_inputs", sa.Integer(), server_default="0", nullable=False),
        sa.Column("states", sa.Integer(), server_default="0", nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_calls")),
    )
    op.create_index("ix_calls_root", "calls", ["root"])
    op.create_index("ix_calls_app_id_id", "calls", ["app_id", "id"])
    op.create_index("ix_calls_function_id_id", "calls", ["function_id", "id"])
    op.create_table(
        "inputs",
        sa.Column("call_id", sa.Text(collation="C"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("container", sa.Text(), server_default="", nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("tries", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("call_id", "number", name=op.f("pk_inputs")),
    )
    op.create_table(
        "input_counts",
        sa.Column("call_id", sa.Text(collation="C"), nullable=False),
        sa.Column("segment", sa.Integer(), nullable=False),
        sa.Column("success", postgresql.BIT(4096), nullable=False),
        sa.Column("failure", postgresql.BIT(4096), nullable=False),
        sa.Column("timeout", postgresql.BIT(4096), nullable=False),
        sa.Column("terminated", postgresql.BIT(4096), nullable=False),
        sa.Column("init_failure", postgresql.BIT(4096), nullable=False),
        sa.PrimaryKeyConstraint("call_id", "segment", name=op.f("pk_input_counts")),
    )
    op.create_table(
        "dead_letters",
        sa.Column("call_id", sa.Text(collation="C"), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("pool_id", sa.Text(), nullable=False),
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("function_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("readable", sa.Boolean(), nullable=False),
        sa.Column("given_up_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("replayed_as", sa.Text(), server_default="", nullable=False),
        sa.Column("replayed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("call_id", "number", name=op.f("pk_dead_letters")),
    )
    op.create_index("ix_dead_letters_given_up_at", "dead_letters", ["given_up_at"])
    op.create_index("ix_dead_letters_app_id_given_up_at", "dead_letters", ["app_id", "given_up_at"])


def downgrade() -> None:
    """Leave this revision."""
    op.drop_table("dead_letters")
    op.drop_table("input_counts")
    op.drop_table("inputs")
    op.drop_table("calls")
