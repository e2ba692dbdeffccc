"""Which pool answers under which label."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go to this revision."""
    op.create_table(
        "routes",
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("label <> ''", name=op.f("ck_routes_label_given")),
        sa.ForeignKeyConstraint(
            ["app_id"], ["apps.id"], name=op.f("fk_routes_app_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("label", name=op.f("pk_routes")),
    )
    op.create_index("ix_routes_app_id", "routes", ["app_id"], unique=False)


def downgrade() -> None:
    """Go back to the one before."""
    op.drop_index("ix_routes_app_id", table_name="routes")
    op.drop_table("routes")
