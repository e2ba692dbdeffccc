"""Variants: pools of a function or class with options or parameters that callers give."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go to this revision."""
    op.add_column("pools", sa.Column("variant_of", sa.Text(), nullable=True))
    op.add_column("pools", sa.Column("variation", sa.LargeBinary(), nullable=True))
    op.add_column("pools", sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True))
    op.create_foreign_key(
        op.f("fk_pools_function_id_variant_of"),
        "pools",
        "pools",
        ["function_id", "variant_of"],
        ["function_id", "id"],
        ondelete="CASCADE",
    )
    op.create_check_constraint(
        op.f("ck_pools_variants_say_how"),
        "pools",
        "(variant_of IS NULL) = (variation IS NULL) AND (variant_of IS NULL) = (asked_at IS NULL)",
    )
    op.drop_index("uq_pools_current", table_name="pools")
    op.create_index(
        "uq_pools_current",
        "pools",
        ["function_id"],
        unique=True,
        postgresql_where=sa.text("superseded_at IS NULL AND variant_of IS NULL"),
    )
    op.create_index(
        "ix_pools_variant_of",
        "pools",
        ["function_id", "variant_of"],
        postgresql_where=sa.text("variant_of IS NOT NULL"),
    )
    op.create_index(
        "ix_pools_asked_at", "pools", ["asked_at"], postgresql_where=sa.text("variant_of IS NOT NULL")
    )


def downgrade() -> None:
    """Go back to the one before: variants are made again when somebody asks for them."""
    op.execute("DELETE FROM pools WHERE variant_of IS NOT NULL")
    op.drop_index(
        "ix_pools_asked_at", table_name="pools", postgresql_where=sa.text("variant_of IS NOT NULL")
    )
    op.drop_index(
        "ix_pools_variant_of", table_name="pools", postgresql_where=sa.text("variant_of IS NOT NULL")
    )
    op.drop_index("uq_pools_current", table_name="pools")
    op.create_index(
        "uq_pools_current",
        "pools",
        ["function_id"],
        unique=True,
        postgresql_where=sa.text("superseded_at IS NULL"),
    )
    op.drop_constraint(op.f("ck_pools_variants_say_how"), "pools")
    op.drop_constraint(op.f("fk_pools_function_id_variant_of"), "pools")
    for column in ("asked_at", "variation", "variant_of"):
        op.drop_column("pools", column)
