"""The user's classes: what their decorators say, their objects, and the hooks around an object's life.

Containers use this too, so it knows nothing of calls.
"""

import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tidemill import _parameters
from tidemill._partial import Kind, PartialFunction
from tidemill._wire.specs import ClassSpec, MethodSpec, Parameter
from tidemill.exception import InvalidError

Partials = Mapping[str, PartialFunction[..., Any, Any]]


@dataclass(frozen=True, eq=False)
class Declared:
    """A class under `@app.cls()`: its methods by name, its hooks in the order in which they run.

    Those of `snap` come first: they run before a snapshot is taken.
    """

    user_cls: type
    methods: Partials
    snap: tuple[str, ...]
    enter: tuple[str, ...]
    exit: tuple[str, ...]
    parameters: tuple[Parameter, ...]

    def spec(self) -> ClassSpec:
        """Return what the platform is told."""
        methods = (
            MethodSpec(name, each.yields, each.is_async, each.web) for name, each in self.methods.items()
        )
        return ClassSpec(tuple(methods), self.parameters)


def declared(user_cls: type, *, serialized: bool = True) -> Declared:
    """Return what a class declares.

    Raises:
        InvalidError: it cannot be one whose objects live in containers.
    """
    _check_class(user_cls, serialized=serialized)
    found = _partials(user_cls)
    for name, partial in found.items():
        if partial.kind is Kind.FUNCTION and partial.web is None:
            raise InvalidError(
                f"{user_cls.__name__}.{name} has decorators but is no method that can be called",
                hint="put @method() on top of them",
            )
    methods = {name: partial for name, partial in found.items() if partial.kind is Kind.METHOD or partial.web}
    if any(partial.batching is not None for partial in methods.values()):
        check_batching(methods)
    snap = tuple(name for name, partial in found.items() if partial.kind is Kind.ENTER and partial.snap)
    enter = tuple(name for name, partial in found.items() if partial.kind is Kind.ENTER and not partial.snap)
    leave = tuple(name for name, partial in found.items() if partial.kind is Kind.EXIT)
    return Declared(user_cls, methods, snap, enter, leave, _parameters.declared(user_cls))


def check_batching(methods: Partials) -> None:
    """Refuse to batch the method of a class that has others."""
    if len(methods) != 1:
        raise InvalidError(
            f"a class with a batched method has no other methods, this one has {', '.join(methods)}",
            hint="move them to a class of their own",
        )


def _check_class(user_cls: type, *, serialized: bool) -> None:
    name = user_cls.__qualname__
    if "<locals>" in name and not serialized:
        raise InvalidError(
            f"{name!r} is not at the top of its module, so a container cannot import it",
            hint="move it there, or give @app.cls() serialized=True",
        )
    if user_cls.__init__ is not object.__init__:  # type: ignore[misc]  # it is only looked at
        raise InvalidError(
            f"{name} has a constructor, which classes under @app.cls() cannot have",
            hint="declare what it takes by parameter(), and set things up in a method under @enter()",
        )


def _partials(user_cls: type) -> dict[str, PartialFunction[..., Any, Any]]:
    """Return what is decorated in a class and its bases, base classes first, in the order of definition."""
    found: dict[str, PartialFunction[..., Any, Any]] = {}
    for base in reversed(user_cls.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, PartialFunction):
                found[name] = value
            else:
                found.pop(name, None)  # a plain method that takes its place
    return found


# --- objects


def build(cls: Declared, parameters: Mapping[str, Any]) -> Any:
    """Return an object with these parameters, whose hooks have not run."""
    instance: Any = object.__new__(cls.user_cls)
    _parameters.put_on(instance, cls.parameters, parameters)
    return instance


class LocalObject:
    """An object in the caller's own process. Its enter hooks run once, before the first call of a method."""

    def __init__(self, cls: Declared, instance: Any) -> None:
        self.instance = instance
        self._left = [getattr(instance, name) for name in (*cls.snap, *cls.enter)]

    def call(
        self, partial: PartialFunction[..., Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call a method, as the plain Python that it is."""
        function = partial.raw.__get__(self.instance)
        if inspect.iscoroutinefunction(partial.raw):
            return self._await(function, args, kwargs)
        if inspect.isasyncgenfunction(partial.raw):
            return self._iterate(function, args, kwargs)
        self._enter()
        return function(*args, **kwargs)

    def _enter(self) -> None:
        for result in self._hooks():
            if inspect.isawaitable(result):
                import asyncio

                asyncio.run(_awaited(result))

    async def _await(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        await self._enter_async()
        return await function(*args, **kwargs)

    async def _iterate(self, function: Callable[..., Any], args: Any, kwargs: Any) -> AsyncIterator[Any]:
        await self._enter_async()
        async for piece in function(*args, **kwargs):
            yield piece

    async def _enter_async(self) -> None:
        for result in self._hooks():
            if inspect.isawaitable(result):
                await result

    def _hooks(self) -> Iterator[Any]:
        while self._left:
            yield self._left.pop(0)()


async def _awaited(result: Any) -> Any:
    return await result
