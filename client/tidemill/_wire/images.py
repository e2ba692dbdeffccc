"""What is kept of images, so that every worker makes the same of one recipe.

`tm.images.<workspace>.<verb>`: only workers ask.
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
