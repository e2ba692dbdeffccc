"""What every image is: layers, what is attached when a container starts, and what follows from them."""

import hashlib
import json
from typing import TYPE_CHECKING, Any, Self

from tidemill import _image_parts, _later
from tidemill._image_parts import Collected, LocalFiles, LocalModule
from tidemill._wire import ids
from tidemill._wire.specs import ImageSpec
from tidemill.exception import InvalidError

if TYPE_CHECKING:
    from tidemill._client import Client
    from tidemill._wire.images import ImageInfo

Layers = tuple[tuple[str, dict[str, Any]], ...]


class Recipe(metaclass=_later.Listed):
    """An immutable list of layers. `attached` costs no build and comes last."""

    _layers: Layers
    _attached: tuple[LocalModule | LocalFiles, ...]
    _is_closed: bool
    _image_id: str  # once it was built here
    _info: "ImageInfo | None"  # once the server was asked
    _client: "Client | None"

    @classmethod
    def _make(
        cls,
        layers: Layers,
        attached: tuple[LocalModule | LocalFiles, ...] = (),
        *,
        is_closed: bool = False,
    ) -> Self:
        image = cls.__new__(cls)
        image._layers, image._attached, image._is_closed = layers, attached, is_closed
        image._image_id, image._info, image._client = "", None, None
        return image

    def _add(self, operation: str, arguments: dict[str, Any]) -> Self:
        self._check_open(operation)
        return self._make((*self._layers, (operation, arguments)), self._attached)

    def _attach(self, *parts: LocalModule | LocalFiles) -> Self:
        return self._make(self._layers, self._attached + parts, is_closed=True)

    def _check_open(self, operation: str) -> None:
        if self._is_closed:
            raise InvalidError(
                f"Image.{operation} comes after local files that are attached when a container starts",
                hint="put add_local_... last, or give it copy=True",
            )

    # --- what the platform is told

    def _spec(self) -> ImageSpec:
        return self._collect(Collected())

    def _collect(self, into: Collected) -> ImageSpec:
        """Read what the recipe takes from this machine; return what the platform is told.

        Raises:
            InvalidError: a file is not there or cannot be read.
        """
        layers = tuple(
            (operation, _image_parts.collected(arguments, into)) for operation, arguments in self._layers
        )
        files = [part.collect(into) for part in self._attached if isinstance(part, LocalFiles)]
        return ImageSpec(
            layers,
            declared=self._declared(),
            attached=tuple((file["remote"], file["bundle"]) for file in files),
            functions=tuple(into.functions),
        )

    def _declared(self) -> str:
        """Return the digest of the recipe as it is written: the same here and in a container."""
        written = [
            (operation, _image_parts.declared({**arguments, "build": None}))
            for operation, arguments in self._layers
        ]
        return _digest(written)

    @property
    def _modules(self) -> tuple[LocalModule, ...]:
        """The local modules that travel with the source of each function."""
        copied = (arguments.get("module") for _, arguments in self._layers)
        both = (*copied, *self._attached)
        return tuple(part for part in both if isinstance(part, LocalModule))

    @property
    def _python(self) -> str:
        """The `major.minor` of the Python in this image, or nothing where only its base knows."""
        base = self._layers[0][1]
        version: str = base.get("python_version") or base.get("add_python") or ""
        return ".".join(version.split(".")[:2])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and (self._layers, self._attached) == (
            other._layers,
            other._attached,
        )

    def __hash__(self) -> int:
        return hash(self._declared())

    def __reduce__(self) -> tuple[Any, ...]:
        # What a connection knows stays here: a function that travels by value may refer to its image.
        return type(self)._arrive, (self._layers, self._attached, self._is_closed)

    @classmethod
    def _arrive(cls, layers: Layers, attached: tuple[LocalModule | LocalFiles, ...], is_closed: bool) -> Self:
        return cls._make(layers, attached, is_closed=is_closed)

    def __repr__(self) -> str:
        return "Image." + ".".join(f"{operation}(...)" for operation, _ in self._layers)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise _later.missing(self, name)


def _digest(value: Any) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def key(spec: ImageSpec) -> str:
    """Return the digest of a recipe: equal recipes have equal keys, in every process."""
    return _digest(spec.layers)


def image_id(spec: ImageSpec) -> str:
    """Return the id of an image (`im-...`): the same for equal recipes, wherever they are made."""
    return f"{ids.IMAGE}-{key(spec)[:26]}"
