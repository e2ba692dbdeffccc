"""When the containers were started that inputs waited for."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go to this revision."""
    moments = postgresql.ARRAY(sa.Double())
    op.add_column("inputs", sa.Column("moments", moments, server_default="{}", nullable=False))


def downgrade() -> None:
    """Go back to the one before."""
    op.drop_column("inputs", "moments")
