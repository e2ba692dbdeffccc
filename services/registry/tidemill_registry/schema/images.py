"""Images: what recipes were resolved to, and what was published by name."""

from datetime import datetime

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Text, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tidemill_registry.schema.base import Base


class ImageRow(Base):
    """What the packages of an image's recipe were resolved to, by the digest of the recipe and its Python.

    `layers` are requirements with exact versions, one text for each layer of packages.
    """

    __tablename__ = "images"

    key: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    workspace: Mapped[str]
    layers: Mapped[list[str]] = mapped_column(JSONB)
    resolved_at: Mapped[datetime] = mapped_column(server_default=func.now())


class RecipeRow(Base):
    """The recipe of an image that a workspace has used, by the image's id, as it is on the wire.

    `app_id` is the app that used it first: its output tells how the image was built.
    """

    __tablename__ = "image_recipes"

    workspace: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    image: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    record: Mapped[bytes]
    app_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ImageName(Base):
    """A name (`name:tag`) that was given to an image of a workspace in one of its environments."""

    __tablename__ = "image_names"
    __table_args__ = (
        ForeignKeyConstraint(["workspace", "image"], ["image_recipes.workspace", "image_recipes.image"]),
    )

    environment_id: Mapped[str] = mapped_column(
        ForeignKey("environments.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    workspace: Mapped[str] = mapped_column(Text(collation="C"))
    image: Mapped[str] = mapped_column(Text(collation="C"))
    published_at: Mapped[datetime] = mapped_column(server_default=func.now())
