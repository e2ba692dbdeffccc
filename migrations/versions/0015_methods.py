"""Which method of a class a call, or an input that was given up, is of; and which variant the latter."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

TABLES = ("calls", "dead_letters")


def upgrade() -> None:
    """Go to this revision."""
    for table in TABLES:
        op.add_column(table, sa.Column("method", sa.Text(), server_default="", nullable=False))
    op.add_column("dead_letters", sa.Column("variation", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    """Go back to the one before."""
    op.drop_column("dead_letters", "variation")
    for table in TABLES:
        op.drop_column(table, "method")
