"""How an input ended, as it is sent: a status and a payload."""

import os
import sys
from contextlib import suppress
from types import TracebackType

from tidemill import exception
from tidemill._container.outbox import Encoded
from tidemill._container.sockets import MAX_FRAME
from tidemill._runtime import current_input
from tidemill._wire import failure, payload
from tidemill._wire.messages import Format, Status

Outcome = tuple[int, Encoded]

OWN_CODE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep  # noqa: PTH100, PTH120
HIDDEN = (OWN_CODE, "<frozen ")  # frames that say nothing to a user: ours, and the import system's

_ROOM = 1 << 20  # bytes of a frame beside one payload


class NotTransported(BaseException):
    """User code raised what ends a process (KeyboardInterrupt, GeneratorExit): so it ends this one."""


class Outcomes:
    """Makes the outcomes of one function's inputs."""

    def __init__(self, container: str, *, restrict_output: bool) -> None:
        self._container = container
        self._allow_pickle = not restrict_output

    def encode(self, value: object) -> Encoded:
        """Return a value as it travels; `SerializationError` or `RequestSizeError` where it cannot."""
        encoded = payload.encode(value, allow_pickle=self._may_pickle())
        if len(encoded[1]) > MAX_FRAME - _ROOM:
            raise exception.RequestSizeError(f"the result has {len(encoded[1]):,} bytes, the limit is 4 GiB")
        return encoded

    def success(self, value: object) -> Outcome:
        """Return the outcome of an input whose function returned this. It may fail at the last moment."""
        try:
            return Status.SUCCESS, self.encode(value)
        except BaseException as error:  # the value's own code runs while it is pickled
            return self.failure(error)

    def done(self, pieces: int) -> Outcome:
        """Return the outcome of a generator that came to its end."""
        return Status.DONE, payload.encode(pieces)

    def failure(self, error: BaseException) -> Outcome:
        """Return the outcome of an input whose function raised this, and show its traceback on stderr."""
        show(error)
        try:
            data = self._describe(error)
        except BaseException as broken:  # its own code runs while it is described
            message = f"an exception that cannot be described ({type(broken).__name__}: {broken})"
            data = failure.from_text("RemoteError", message)
        return Status.FAILURE, (Format.FAILURE, data)

    def _describe(self, error: BaseException) -> bytes:
        may_pickle = self._may_pickle()
        if type(error).__module__ == exception.__name__ and not may_pickle:
            hint = getattr(error, "hint", "")  # ours can be named without a pickle
            return failure.from_text(type(error).__name__, str(error), hint=hint)
        return failure.from_exception(error, allow_pickle=may_pickle, hide=HIDDEN, place=self._container)

    def _may_pickle(self) -> bool:
        """Return whether the function, and whoever called it now, can do with pickles."""
        now = current_input.get()
        return self._allow_pickle and not (now and now.plain)


def cancelled() -> Outcome:
    """Return the outcome of an input that was cancelled."""
    data = failure.from_text("InputCancellation", "the input was cancelled")
    return Status.CANCELLED, (Format.FAILURE, data)


def show(error: BaseException) -> None:
    """Print the user's part of a traceback on stderr, where the input's other output goes."""
    import traceback

    with suppress(Exception):  # a broken `__str__`, or a `sys.stderr` that user code has closed
        shown = error.with_traceback(without_own_frames(error.__traceback__))
        sys.stderr.write("".join(traceback.format_exception(shown)))


def without_own_frames(frames: TracebackType | None) -> TracebackType | None:
    """Return a traceback from the first frame that is the user's to the last one.

    Frames of ours lie before, and behind where a signal's handler raised it.
    """
    found: list[TracebackType] = []
    while frames is not None:
        found.append(frames)
        frames = frames.tb_next
    while found and _is_own(found[-1]):
        found.pop()
    visible: TracebackType | None = None
    for each in reversed(found):
        visible = TracebackType(visible, each.tb_frame, each.tb_lasti, each.tb_lineno)
    while visible is not None and _is_own(visible):
        visible = visible.tb_next
    return visible


def _is_own(frames: TracebackType) -> bool:
    return frames.tb_frame.f_code.co_filename.startswith(HIDDEN)
