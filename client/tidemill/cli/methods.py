"""Methods of classes on the command line: the parameters of class and method are options side by side."""

import inspect
from typing import TYPE_CHECKING, Any

from tidemill import _parameters
from tidemill.exception import InvalidError

if TYPE_CHECKING:
    from tidemill.cls import Cls
    from tidemill.functions import Function


class RunnableMethod:
    """A method that is run on an object which is made of the same arguments."""

    def __init__(self, cls: "Cls", method: str) -> None:
        self.cls = cls
        self._method = method
        self._partial = cls._here().methods[method]
        self.is_generator = self._partial.yields

    def get_raw_f(self) -> Any:
        """Return a function with the parameters of both."""
        declared, raw = self.cls._here(), self._partial.raw
        parameters = list(inspect.signature(raw, eval_str=True).parameters.values())[1:]
        fields = [
            inspect.Parameter(
                each.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if each.required else each.default,
                annotation=_parameters.KINDS[each.kind],
            )
            for each in declared.parameters
        ]
        if both := {each.name for each in parameters} & {each.name for each in fields}:
            raise InvalidError(
                f"{self._method} and its class both have a parameter {', '.join(sorted(both))}",
                hint="call it from a local entrypoint",
            )

        def run() -> None: ...

        run.__name__, run.__doc__ = self._method, raw.__doc__
        run.__module__ = raw.__module__
        run.__signature__ = inspect.Signature(_in_order(parameters, fields))  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in (*parameters, *fields)}
        return run

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Make the object, call the method, and wait."""
        function, rest = self._bind(kwargs)
        return function.remote(*args, **rest)

    def spawn(self, *args: Any, **kwargs: Any) -> Any:
        """Make the object and start the method."""
        function, rest = self._bind(kwargs)
        return function.spawn(*args, **rest)

    def _bind(self, kwargs: dict[str, Any]) -> "tuple[Function[..., Any, Any], dict[str, Any]]":
        names = {each.name for each in self.cls._here().parameters}
        given = {name: value for name, value in kwargs.items() if name in names}
        rest = {name: value for name, value in kwargs.items() if name not in names}
        return getattr(self.cls(**given), self._method), rest


def _in_order(
    parameters: list[inspect.Parameter], fields: list[inspect.Parameter]
) -> list[inspect.Parameter]:
    """Return all of them with what takes further keywords last."""
    last = [each for each in parameters if each.kind is inspect.Parameter.VAR_KEYWORD]
    return [*(each for each in parameters if each not in last), *fields, *last]
