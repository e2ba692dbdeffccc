"""`Function.remote_gen`: a generator that runs elsewhere, iterated here."""

from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from tidemill import _sync, exception
from tidemill._iteration import Closable, Iteration
from tidemill._single import read
from tidemill._tracebacks import EDGE
from tidemill._wire.payload import encode_call

if TYPE_CHECKING:
    from tidemill._caller import Caller
    from tidemill._wire.control import FunctionHandle
    from tidemill.functions import Function

P = ParamSpec("P")
R = TypeVar("R")


class RemoteGen(Generic[P, R]):
    """`Function.remote_gen`."""

    def __init__(self, function: "Function[P, R, Any]") -> None:
        self._function = function
        self._name = f"{function.name}.remote_gen"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Generator[R, None, None]:
        """Call the generator elsewhere and iterate what it yields, each piece when it comes.

        Closing the iteration cancels the generator where it runs. A slow reader slows it down.

        Raises:
            InvalidError: the function is not a generator.
        """
        with EDGE:
            _sync.warn_if_blocking(self._name)
            return self._run(args, kwargs).each(read)

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[R, None]:
        """Do the same for `async for`."""
        with EDGE:
            return self._run(args, kwargs).each_async(read)

    def _run(self, args: Any, kwargs: Any) -> "_Run":
        function = self._function
        present = function._present_handle()
        if present is None and not function._can_be_found:
            raise function._not_hydrated()
        if present is not None and not present.is_generator:
            raise _not_a_generator(function)
        return _Run(function, self._name, *encode_call(args, kwargs))


class _Run(Iteration):
    """One iteration of a generator."""

    def __init__(self, function: "Function[Any, Any, Any]", name: str, form: int, data: bytes) -> None:
        super().__init__(function, name)
        self._form = form
        self._data = data

    def _check(self, handle: "FunctionHandle") -> None:
        if not handle.is_generator:
            raise _not_a_generator(self._function)

    async def _begin(self, caller: "Caller", handle: "FunctionHandle") -> Closable:
        from tidemill._stream import RemoteGenerator

        call = RemoteGenerator(caller, handle, self.channel, self.origin)
        try:
            await call.start(self._form, self._data)
        except BaseException:
            call.close()
            raise
        return call


def _not_a_generator(function: "Function[Any, Any, Any]") -> exception.InvalidError:
    return exception.InvalidError(f"{function.name} is not a generator", hint="call it with .remote()")
