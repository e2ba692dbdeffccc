"""What an output means to the one who called: a value, or the exception to raise."""

from typing import Any, NamedTuple

from tidemill import exception
from tidemill._wire import failure, payload
from tidemill._wire.messages import Format, Status

_RELATIVE_IMPORT = "attempted relative import with no known parent package"
_RELATIVE_IMPORT_HINT = (
    "\n\nhint: run the app as a module: `tidemill run -m package.module` instead of `tidemill run file.py`"
)


_FAILED = frozenset({Status.FAILURE, Status.TIMEOUT, Status.CANCELLED})


class Outcome(NamedTuple):
    """A terminal output, or a piece of a stream, with its bytes at hand."""

    status: int
    format: int
    data: bytes
    restricted: bool = False  # its function may only return plain data: nothing of it is unpickled

    @property
    def failed(self) -> bool:
        """Return whether reading it raises."""
        return self.status in _FAILED

    def read(self) -> Any:
        """Return the value, or raise what the function raised.

        Raises:
            RemoteError: the input was cancelled, or failed with what cannot be raised here.
            FunctionTimeoutError: it ran for longer than its function's timeout.
            InternalFailure: it was lost too often.
            DeserializationError: the value cannot be read here.
            ExecutionError: the exception cannot be read here.
        """
        if self.status in _FAILED:
            raise self.error()
        if self.restricted and self.format == Format.PICKLE:
            raise exception.ExecutionError("a function with restricted output returned a pickle")
        try:
            return payload.decode(self.format, self.data)
        except exception.DeserializationError as error:
            raise exception.DeserializationError(
                f"the result cannot be read: {error}", hint=error.hint
            ) from error.__cause__

    def error(self) -> BaseException:
        """Return the exception of a failed output."""
        if self.status == Status.CANCELLED:
            return exception.RemoteError("the input was cancelled")
        if self.format != Format.FAILURE:
            return exception.RemoteError(f"the input failed with status {self.status}")
        try:
            if self.restricted:
                return exception.RemoteError(failure.message_of(self.data))
            error = failure.to_exception(self.data)
        except payload.NOT_OF_READING:
            raise
        except BaseException as broken:
            return exception.ExecutionError(f"the failure of the input cannot be read: {broken}")
        return _with_hint(error)


class Failed(NamedTuple):
    """An end that this side decided on."""

    cause: BaseException
    failed: bool = True

    def read(self) -> Any:
        """Raise it."""
        raise self.cause

    def error(self) -> BaseException:
        """Return it."""
        return self.cause


End = Outcome | Failed


def _with_hint(error: BaseException) -> BaseException:
    if isinstance(error, ImportError) and error.msg == _RELATIVE_IMPORT:
        error.msg += _RELATIVE_IMPORT_HINT
    return error
