"""`Cls`: what `@app.cls()` makes of a class, and the objects whose methods run in containers.

class ──@app.cls()──> Cls ──(parameters)──> Obj ──.method──> a function, called like any other
"""

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from tidemill import _classes, _later, _parameters, _runtime, _sync
from tidemill._classes import Declared
from tidemill._handled import Lookup
from tidemill._partial import PartialFunction
from tidemill._variants import Bound, Given, Variant
from tidemill._wire.specs import Parameter
from tidemill.exception import ExecutionError, InvalidError
from tidemill.functions import Function

if TYPE_CHECKING:
    from tidemill._client import Client
    from tidemill._wire.control import FunctionHandle
    from tidemill.retries import Retries
    from tidemill.secret import Secret
    from tidemill.volume import Volume

__all__ = ["Cls", "Obj"]


class Cls(metaclass=_later.Listed):
    """A class whose objects live in containers.

    Made by `@app.cls()`, or found by `Cls.from_name`. Called, it gives an object; that one's methods are
    functions. What the class holds beside its methods is there as it was.

    Example:
        @app.cls()
        class Counter:
            start: int = tidemill.parameter(default=0)

            @tidemill.enter()
            def begin(self):
                self.count = self.start

            @tidemill.method()
            def add(self, n: int) -> int:
                self.count += n
                return self.count

        Counter(start=5).add.remote(1)   # 6
    """

    def __init__(self, service: Function[..., Any, Any], declared: Declared | None, given: Given) -> None:
        """Make it; `service` stands for the class on the server."""
        self._service = service
        self._declared = declared
        self._given = given
        if declared is not None:
            self.__doc__ = declared.user_cls.__doc__
            self.__module__ = declared.user_cls.__module__
            self.__name__ = declared.user_cls.__name__
            self.__qualname__ = declared.user_cls.__qualname__
            self.__wrapped__ = declared.user_cls

    @classmethod
    def from_name(
        cls,
        app_name: str,
        name: str,
        *,
        version: int | None = None,
        environment_name: str | None = None,
        client: "Client | None" = None,
    ) -> "Cls":
        """Return a class of a deployed app. Nothing is asked until a method of it is used.

        Args:
            app_name: the app.
            name: the name of the class in it.
            version: one deployment, for good; without it always the newest.
            environment_name: the environment; without it the configured one.
            client: the client to use.
        """
        service = Function[..., Any, Any](None, name=name, client=client)
        service._lookup = Lookup(app_name, name, environment_name or "", version)
        return cls(service, None, Given())

    # --- objects

    def __call__(self, /, *args: Any, **parameters: Any) -> "Obj":
        """Return an object with these parameters. Nothing is asked and nothing is started.

        Raises:
            InvalidError: a parameter is missing.
            TypeError: there is no such parameter, or its value is of another type.
        """
        if args:
            raise TypeError(f"{self._name} takes its parameters by keyword")
        if self._declared is not None:
            parameters = _parameters.values(self._name, self._declared.parameters, parameters)
        return Obj(self, parameters)

    # --- variants

    def with_options(
        self,
        *,
        cpu: float | tuple[float, float] | None = None,
        memory: int | tuple[int, int] | None = None,
        gpu: str | Sequence[str] | None = None,
        env: Mapping[str, str | None] | None = None,
        secrets: "Sequence[Secret] | None" = None,
        volumes: "Mapping[str | PurePosixPath, Volume]" = {},  # noqa: B006 - never changed
        retries: "int | Retries | None" = None,
        max_containers: int | None = None,
        buffer_containers: int | None = None,
        scaledown_window: int | None = None,
        timeout: int | None = None,
        region: str | Sequence[str] | None = None,
        cloud: str | None = None,
        routing_region: str | None = None,
    ) -> "Cls":
        """Return this class with other options: its objects have containers of their own.

        May be called again on what it returns. What is not given, or is empty, stays as it was; `env` and
        `secrets` take the place of earlier ones. The parameters are those of `App.cls`.

        Raises:
            InvalidError: a parameter cannot be what it is.
        """
        options = {name: value for name, value in locals().items() if name != "self"}
        return Cls(self._service, self._declared, self._given.with_options(options))

    def with_concurrency(self, *, max_inputs: int, target_inputs: int | None = None) -> "Cls":
        """Return this class with other numbers of inputs at once: see `concurrent`."""
        from tidemill import _partial
        from tidemill._wire.variants import Changes

        changes = Changes(concurrency=_partial.concurrency(max_inputs, target_inputs))
        return Cls(self._service, self._declared, self._given.with_changes(changes))

    def with_batching(self, *, max_batch_size: int, wait_ms: int) -> "Cls":
        """Return this class, whose one method is batched, with other batches: see `batched`."""
        from tidemill import _partial
        from tidemill._wire.variants import Changes

        if self._declared is not None:
            _classes.check_batching(self._declared.methods)
        changes = Changes(batching=_partial.batching(max_batch_size, wait_ms))
        return Cls(self._service, self._declared, self._given.with_changes(changes))

    # --- what it is

    @_sync.method
    async def hydrate(self, client: "Client | None" = None) -> "Cls":
        """Ask the server for this class now.

        Raises:
            NotFoundError: there is none.
        """
        from tidemill import _client

        service = self._service
        service._client = client or service._client
        handle = await service._find(_client.current(service._client), refresh=True)
        if handle.methods is None:
            raise InvalidError(
                f"{handle.name} is a function, not a class", hint="use Function.from_name instead"
            )
        return self

    @property
    def object_id(self) -> str:
        """Its id (`fu-...`)."""
        return self._service.object_id

    @property
    def is_hydrated(self) -> bool:
        """Whether the server knows it and it can be used."""
        return self._service.is_hydrated

    @property
    def _name(self) -> str:
        return self._service.name

    def __repr__(self) -> str:
        return f"Cls({self._name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as a name and a handle: the code stays where it is."""
        return _arrive, (self._service, self._given)

    def __mro_entries__(self, _bases: tuple[Any, ...]) -> tuple[type]:
        """Let another class be derived from the class itself."""
        return (self._here().user_cls,)

    def _here(self) -> Declared:
        if self._declared is None:
            raise ExecutionError(f"the code of {self._name} is not in this process")
        return self._declared

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            declared = self.__dict__.get("_declared")
            if declared is None or name.startswith("__"):
                raise _later.missing(self, name)
            if name in declared.methods:
                raise AttributeError(
                    f"{self._name}.{name} is a method: it needs an object, as in {self._name}().{name}",
                    name=name,
                    obj=self,
                )
            try:
                return getattr(declared.user_cls, name)
            except AttributeError:
                raise _later.missing(self, name) from None


class Obj:
    """An object of a `Cls`. Its methods are functions: see `Function`.

    Everything else of it is here, in this process, where the class is: attributes and methods without
    `@method()` work on an object that is made when it is first needed, without its `@enter()` hooks.
    """

    def __init__(self, cls: Cls, parameters: Mapping[str, Any]) -> None:
        """Make it, with parameters that were checked."""
        self._cls = cls
        self._values = parameters
        self._variant = Variant(cls._service, cls._given.with_parameters(parameters), of_class=True)
        self._local: _classes.LocalObject | None = None
        self._own: FunctionHandle | None = None  # of the one object of this container

    @property
    def update_autoscaler(self) -> Any:
        """Change how many containers objects like this have: see `Function.update_autoscaler`."""
        return Bound(self._variant).update_autoscaler

    def _bound(self, name: str) -> Bound:
        declared = self._cls._declared
        if declared is None:
            return Bound(self._variant, name)
        partial = declared.methods[name]

        def local(*args: Any, **kwargs: Any) -> Any:
            return self._here().call(partial, args, kwargs)

        return Bound(self._variant, name, raw=partial.raw, is_generator=partial.yields, local=local)

    def _here(self) -> "_classes.LocalObject":
        if self._local is None:
            declared = self._cls._here()
            instance = _classes.build(declared, self._values)
            vars(instance)[_OBJECT] = self
            self._local = _classes.LocalObject(declared, instance)
        return self._local

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self._values.items())
        return f"{self._cls._name}({shown})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Obj, (self._cls, dict(self._values))

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__") or "_cls" not in self.__dict__:
                raise AttributeError(f"'Obj' has no attribute {name!r}", name=name, obj=self)
            declared = self._cls._declared
            if declared is None and name.startswith("_"):
                raise AttributeError(f"{self._cls._name} has no method {name!r}", name=name, obj=self)
            if declared is None or name in declared.methods:
                bound = self.__dict__[name] = self._bound(name)
                return bound
            return getattr(self._here().instance, name)


_OBJECT = "_tidemill_object"  # the attribute of a user's object that names what it is called through


def method_of(instance: object, partial: PartialFunction[..., Any, Any]) -> Bound:
    """Return the function that a method is, looked up on the user's object itself, as `self.method` is."""
    found = vars(instance).get(_OBJECT)
    obj: Obj = found if found is not None else _of_container(instance)
    own = obj._own
    return Bound(
        obj._variant,
        partial.name,
        raw=partial.raw,
        is_generator=partial.yields,
        local=partial.raw.__get__(instance),
        parameters=_parameters.of(instance, map(Parameter._make, own.parameters)) if own else None,
    )


def _of_container(instance: object) -> Obj:
    """Return what the one object of this container is called through: this container's own pool."""
    container = _runtime.container
    own = container.own if container is not None else None
    if own is None:
        raise ExecutionError(
            f"this {type(instance).__name__} was not made by its Cls", hint="call the class under @app.cls()"
        )
    service = Function[..., Any, Any](None, name=own.name)
    given = dataclasses.replace(own, parameters=())  # this object has them
    service._hydrate(given, None, Lookup(function_id=own.function_id, like=own.pool))
    obj = vars(instance)[_OBJECT] = Obj(Cls(service, None, Given()), {})
    obj._own = own
    return obj


def declare(partial: PartialFunction[..., Any, Any], *, serialized: bool) -> Declared:
    """Return what a class under `@app.cls()` declares.

    Raises:
        InvalidError: it cannot be one.
    """
    if isinstance(partial.raw, Cls):
        raise InvalidError("@app.cls() is on this class already")
    if not inspect.isclass(partial.raw):
        raise InvalidError(
            f"@app.cls() is for classes, not {partial.raw!r}", hint="@app.function() is for functions"
        )
    return _classes.declared(partial.raw, serialized=serialized)


def _arrive(service: Function[..., Any, Any], given: Given) -> Cls:
    """Rebuild a class that travelled."""
    return Cls(service, None, given)
