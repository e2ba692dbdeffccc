"""Recipes of images by their id, and names for them."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go to this revision."""
    exact = sa.Text(collation="C")
    op.create_table(
        "image_recipes",
        sa.Column("workspace", exact, nullable=False),
        sa.Column("image", exact, nullable=False),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("workspace", "image", name=op.f("pk_image_recipes")),
    )
    op.create_table(
        "image_names",
        sa.Column("environment_id", sa.Text(), nullable=False),
        sa.Column("name", exact, nullable=False),
        sa.Column("workspace", exact, nullable=False),
        sa.Column("image", exact, nullable=False),
        sa.Column(
            "published_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["environment_id"],
            ["environments.id"],
            name=op.f("fk_image_names_environment_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["workspace", "image"],
            ["image_recipes.workspace", "image_recipes.image"],
            name=op.f("fk_image_names_workspace_image"),
        ),
        sa.PrimaryKeyConstraint("environment_id", "name", name=op.f("pk_image_names")),
    )


def downgrade() -> None:
    """Go back to the one before."""
    op.drop_table("image_names")
    op.drop_table("image_recipes")
