"""Who made an app; calls and inputs keyed by their workspace too."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

KEYS = {  # a table's key before this revision; since then with the workspace, after the call
    "calls": ("id",),
    "inputs": ("call_id", "number"),
    "input_counts": ("call_id", "segment"),
    "dead_letters": ("call_id", "number"),
}
WITHOUT_WORKSPACE = ("inputs", "input_counts")


def upgrade() -> None:
    """Go to this revision. What belongs to no call any more goes."""
    op.add_column("apps", sa.Column("created_by", sa.Text(), server_default="", nullable=False))
    for table in WITHOUT_WORKSPACE:
        op.add_column(table, sa.Column("workspace", sa.Text(), nullable=True))
        op.execute(
            f"UPDATE {table} SET workspace = calls.workspace FROM calls WHERE calls.id = {table}.call_id"
        )
        op.execute(f"DELETE FROM {table} WHERE workspace IS NULL")
        op.alter_column(table, "workspace", nullable=False)
    for table, (call, *others) in KEYS.items():
        op.drop_constraint(f"pk_{table}", table, type_="primary")
        op.create_primary_key(f"pk_{table}", table, [call, "workspace", *others])


def downgrade() -> None:
    """Go back to the one before. Of two workspaces with the same call the first keeps it."""
    for table, key in KEYS.items():
        same = " AND ".join(f"other.{column} = mine.{column}" for column in key)
        op.execute(
            f"DELETE FROM {table} mine USING {table} other WHERE {same} AND other.workspace < mine.workspace"
        )
        op.drop_constraint(f"pk_{table}", table, type_="primary")
        op.create_primary_key(f"pk_{table}", table, list(key))
    for table in WITHOUT_WORKSPACE:
        op.drop_column(table, "workspace")
    op.drop_column("apps", "created_by")
