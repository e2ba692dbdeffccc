"""What is kept of images.

`tm.images.<workspace>.<verb>`, which only workers ask, so that every one makes the same of one recipe;
`tm.registry.<workspace>.<verb>` for images that were used before, by their id or by a name.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GetResolution:
    """`get_resolution`: to which exact versions the packages of a recipe were resolved."""

    key: str


@dataclass(frozen=True, slots=True)
class PutResolution:
    """`put_resolution`: what a worker resolved. The first one stays; the answer is the one that stays."""

    key: str
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Resolution:
    """Requirements with exact versions and hashes, one text for each layer of packages.

    None where the recipe was not resolved yet.
    """

    layers: tuple[str, ...] | None = None


# --- images that were used before


@dataclass(frozen=True, slots=True)
class GetImage:
    """`get_image`: which image is it? By its id, or by a name in an environment."""

    image: str = ""
    name: str = ""
    environment: str = ""


@dataclass(frozen=True, slots=True)
class PublishImage:
    """`publish_image`: give an image that was used before a name (`name:tag`) in an environment."""

    image: str
    name: str
    environment: str


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """An image: its id, the app that it was first used in, and when (unix time)."""

    image: str
    app_id: str
    created: float
