"""`dataclass` for classes of which a program declares many and uses few: its messages.

The standard one writes and compiles six methods of each class when the class is made, which costs 0.3 to
1 ms: more than all else that a module of messages does. Here `__init__` is compiled at its first call, and
the others are the same functions for every class. To the standard library, to msgspec and to type checkers
the classes are ordinary frozen dataclasses with slots.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

T = TypeVar("T")

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # noqa: PLC0414 - exported
else:

    def dataclass(
        *, frozen: Literal[True], slots: Literal[True], kw_only: bool = False
    ) -> Callable[[type[T]], type[T]]:
        """Return what makes a frozen dataclass with slots of a class that has no bases and a docstring."""
        assert frozen
        assert slots
        return partial(_make, kw_only=kw_only)


def _make(kind: type[T], *, kw_only: bool) -> type[T]:
    # Told to write nothing, it only collects the fields.
    made = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True, kw_only=kw_only)(kind)
    for name, function in _METHODS.items():
        if name not in kind.__dict__:
            setattr(made, name, function)
    return made


def _names(kind: Any) -> tuple[str, ...]:
    names: tuple[str, ...] = kind.__slots__
    return names


def _values(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, name) for name in _names(type(self)))


# --- methods


def _first_init(self: Any, *args: Any, **kwargs: Any) -> None:
    kind = type(self)
    kind.__init__ = _compile_init(kind)
    kind.__init__(self, *args, **kwargs)


def _compile_init(kind: type[Any]) -> Callable[..., None]:
    """Return the method that takes the fields of a class, by position or name."""
    parameters, lines = ["self"], []
    known: dict[str, Any] = {"_set": object.__setattr__, "_missing": MISSING}
    for field in dataclasses.fields(kind):
        name, value = field.name, field.name
        if field.kw_only and "*" not in parameters:
            parameters.append("*")
        if field.default_factory is not MISSING:
            known[f"_{name}"] = field.default_factory
            parameters.append(f"{name}=_missing")
            value = f"_{name}() if {name} is _missing else {name}"
        elif field.default is not MISSING:
            known[f"_{name}"] = field.default
            parameters.append(f"{name}=_{name}")
        else:
            parameters.append(name)
        lines.append(f" _set(self, {name!r}, {value})")
    source = f"def __init__({', '.join(parameters)}):\n" + ("\n".join(lines) or " pass")
    exec(source, known)  # noqa: S102 - as the standard library's does
    init: Callable[..., None] = known["__init__"]
    init.__qualname__ = f"{kind.__qualname__}.__init__"
    return init


def _repr(self: Any) -> str:
    fields = (f"{name}={getattr(self, name)!r}" for name in _names(type(self)))
    return f"{type(self).__qualname__}({', '.join(fields)})"


def _eq(self: Any, other: object) -> Any:
    if type(other) is not type(self):
        return NotImplemented
    return _values(self) == _values(other)


def _hash(self: Any) -> int:
    return hash(_values(self))


def _setattr(self: Any, name: str, _value: object) -> None:  # noqa: ARG001
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(self: Any, name: str) -> None:  # noqa: ARG001
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _setstate(self: Any, state: tuple[Any, ...]) -> None:
    # Of another version it may have fewer fields, or more.
    self.__init__(**dict(zip(_names(type(self)), state, strict=False)))


_METHODS: dict[str, Callable[..., Any]] = {
    "__init__": _first_init,
    "__repr__": _repr,
    "__eq__": _eq,
    "__hash__": _hash,
    "__setattr__": _setattr,
    "__delattr__": _delattr,
    "__getstate__": _values,
    "__setstate__": _setstate,
}
