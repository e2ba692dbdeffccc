"""What an app is declared to have: functions, classes and local entrypoints."""

import sys
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from tidemill import _declarable, _options, _partial
from tidemill._decorators import ClassDecorator
from tidemill._entrypoint import LocalEntrypoint
from tidemill._options import Declaration, Defaults
from tidemill._standing import Standing
from tidemill.exception import InvalidError
from tidemill.functions import Function

if TYPE_CHECKING:
    from tidemill.app import App
    from tidemill.cls import Cls


class Declaring(Standing):
    """What `App` knows by its decorators."""

    def __init__(self, name: str | None, tags: Mapping[str, str] | None, defaults: Defaults) -> None:
        super().__init__(name, tags)
        self._defaults = defaults
        self._classes: dict[str, Cls] = {}
        self._entrypoints: dict[str, LocalEntrypoint[..., Any]] = {}

    @property
    def registered_functions(self) -> dict[str, Function[..., Any, Any]]:
        """The functions, by name."""
        return {name: each for name, each in self._functions.items() if name not in self._classes}

    @property
    def registered_entrypoints(self) -> dict[str, LocalEntrypoint[..., Any]]:
        """The local entrypoints, by name."""
        return dict(self._entrypoints)

    @property
    def registered_classes(self) -> "dict[str, Cls]":
        """The classes, by name."""
        return dict(self._classes)

    @property
    def registered_web_endpoints(self) -> list[str]:
        """The names of functions and methods with a URL."""
        return [
            f"{name}.{method}" if method else name
            for name, (declaration, _) in self._declared.items()
            for method in declaration.template.webs
        ]

    def _declare(self, decorated: Any, given: Mapping[str, Any]) -> Function[..., Any, Any]:
        if isinstance(decorated, Function):
            raise InvalidError("@app.function() is on this function already")
        partial = _partial.of(decorated)
        if partial.kind is not _partial.Kind.FUNCTION:
            raise InvalidError(
                f"{partial.name!r} is under @{partial.kind.value}(), which is for methods of classes",
                hint="put @app.cls() on the class, and no @app.function() on the method",
            )
        function = partial.raw
        _declarable.check_function(function, serialized=bool(given["serialized"]), name=given["name"])
        declaration = _options.declare(partial, given, include_source=self._defaults.include_source)
        template = declaration.template
        made = Function[..., Any, Any](
            function,
            name=template.name,
            app=cast("App", self),
            is_generator=template.is_generator,
        )
        self._add(made, declaration, self._defaults)
        return made

    def _add(self, function: Function[..., Any, Any], declaration: Declaration, defaults: Defaults) -> None:
        name = declaration.template.name
        before = self._functions.get(name)
        if before is not None and before is not function and not is_rerun(before, function):
            warnings.warn(
                f"app {self._name or ''}: a second function named {name!r} takes the place of the first one",
                UserWarning,
                stacklevel=4,
            )
        self._functions[name] = function
        self._classes.pop(name, None)
        self._declared[name] = declaration, defaults

    def _class_decorator(self, given: Mapping[str, Any]) -> ClassDecorator:
        def decorate(decorated: Any) -> "Cls":
            return self._declare_class(_partial.of(decorated), given)

        return decorate  # type: ignore[return-value]  # its exact type is the protocol's

    def _declare_class(
        self, partial: "_partial.PartialFunction[..., Any, Any]", given: Mapping[str, Any]
    ) -> "Cls":
        from tidemill import cls
        from tidemill._variants import Given

        declared = cls.declare(partial, serialized=bool(given["serialized"]))
        declaration = _options.declare_class(
            partial, declared.methods, declared.spec(), given, include_source=self._defaults.include_source
        )
        name, app = declaration.template.name, cast("App", self)
        service = Function[..., Any, Any](declared.user_cls, name=name, app=app)
        self._add(service, declaration, self._defaults)
        made = self._classes[name] = cls.Cls(service, declared, Given())
        return made


def check_parentheses(decorator: str, given: Any) -> None:
    """Refuse a decorator that was written without its parentheses."""
    if given is not None:
        raise InvalidError(
            f"{decorator} without parentheses, or with a positional argument",
            hint=f"write {decorator}()",
        )


def is_rerun(before: Any, now: Any) -> bool:
    """Return whether a definition comes again because the cell of a notebook was run again."""
    return "ipykernel" in sys.modules and getattr(before, "name", "") == getattr(now, "name", now.__name__)
