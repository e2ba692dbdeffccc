"""Images: the environment a function runs in, as an immutable recipe of layers."""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

from tidemill import _runtime
from tidemill._image_bases import Bases
from tidemill._image_named import Named
from tidemill._image_packages import Packages
from tidemill._image_recipe import image_id, key
from tidemill._image_system import System
from tidemill.exception import InvalidError

__all__ = ["Image", "check", "image_id", "key"]

P = ParamSpec("P")
R = TypeVar("R")


class Image(Bases, Packages, System, Named):
    """An immutable recipe. Every method returns a new image; nothing is built before it is used.

    Example:
        `image = tidemill.Image.debian_slim().uv_pip_install("numpy").env({"MODE": "fast"})`
    """

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        raise InvalidError("an Image is not made by its class", hint="begin with Image.debian_slim()")

    def pipe(self, func: "Callable[Concatenate[Image, P], R]", *args: P.args, **kwargs: P.kwargs) -> R:
        """Return `func(image, ...)`: recipes as functions, in one chain."""
        return func(self, *args, **kwargs)

    @contextlib.contextmanager
    def imports(self) -> Iterator[None]:
        """Import what only containers of this image have: elsewhere a missing module is passed over."""
        try:
            yield
        except Exception as error:
            running = "" if _runtime.is_local() else os.environ.get("TIDEMILL_IMAGE_RECIPE", "")
            if running == self._declared():
                raise
            if not isinstance(error, ImportError):
                text = f"an import under Image.imports() failed: {type(error).__name__}: {error}"
                warnings.warn(text, RuntimeWarning, stacklevel=3)


def check(image: Any) -> Image | None:
    """Return a decorator's `image=`, or raise `InvalidError`."""
    if image is not None and not isinstance(image, Image):
        raise InvalidError(f"image has to be an Image, not {image!r}", hint="begin with Image.debian_slim()")
    return image
