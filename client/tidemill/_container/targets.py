"""What a container runs: one function, or the methods of one object with hooks around its life."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from tidemill import exception
from tidemill._container import loading

if TYPE_CHECKING:
    from tidemill._container.configuration import Configuration

Hook = Callable[[], Any]


class Target(NamedTuple):
    """What an input is given to."""

    function: Callable[..., Any]
    is_generator: bool
    is_async: bool


class Program(NamedTuple):
    """All that inputs may be given to, by the method that they name (empty: the function), and the hooks."""

    targets: Mapping[str, Target]
    snap: tuple[Hook, ...] = ()  # run first, once for all containers that are forked from a snapshot
    enter: tuple[Hook, ...] = ()
    exit: tuple[Hook, ...] = ()

    @property
    def is_async(self) -> bool:
        """Whether everything is called on an event loop."""
        return all(target.is_async for target in self.targets.values())

    def target(self, method: str) -> Target:
        """Return what a method's inputs are given to; one that fails where there is no such method."""
        return self.targets.get(method) or Target(_missing(method), is_generator=False, is_async=False)


def _missing(method: str) -> Callable[..., Any]:
    def fail(*_args: Any, **_kwargs: Any) -> Any:
        raise exception.NotFoundError(f"there is no method {method!r} here")

    return fail


def load(configuration: "Configuration") -> Program:
    """Return what a configuration names. Whatever importing it, or making the object, raises is raised."""
    found = loading.load(configuration)
    if configuration.parameters is not None:
        return _of_class(found, configuration)
    is_async = configuration.is_async or loading.runs_on_loop(found)
    return Program({"": Target(found, configuration.is_generator, is_async)})


def _of_class(user_cls: Any, configuration: "Configuration") -> Program:
    from tidemill import _classes

    if not isinstance(user_cls, type):
        raise exception.ExecutionError(
            f"{configuration.module}.{configuration.qualname} is a {type(user_cls).__name__}, not a class"
        )
    cls = _classes.declared(user_cls)
    instance = _classes.build(cls, configuration.parameters or {})
    targets = {
        name: Target(method.raw.__get__(instance), method.yields, method.is_async)
        for name, method in cls.methods.items()
    }
    hooks = (tuple(getattr(instance, name) for name in names) for names in (cls.snap, cls.enter, cls.exit))
    return Program(targets, *hooks)
