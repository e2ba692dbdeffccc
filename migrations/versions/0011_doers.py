"""Who stopped an app, made or revoked a token, changed a secret."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

ADDED = {"apps": ("stopped_by",), "tokens": ("created_by", "revoked_by"), "secrets": ("updated_by",)}


def upgrade() -> None:
    """Go to this revision. Nobody knows any more who did what was done before."""
    for table, columns in ADDED.items():
        for column in columns:
            op.add_column(table, sa.Column(column, sa.Text(), server_default="", nullable=False))


def downgrade() -> None:
    """Go back to the one before."""
    for table, columns in ADDED.items():
        for column in columns:
            op.drop_column(table, column)
