"""Tracebacks without our own frames: what is shown is the user's code, here and where it ran.

Every way from user code into the SDK goes through `with EDGE:`. An exception that leaves it there has lost
the frames below, and that of the `with` statement too: an exception that is raised again by the end of a
`with` block does not add the frame once more. With `TIDEMILL_TRACEBACK` set everything stays.
"""

import os
from collections.abc import Iterator
from types import TracebackType

_OWN = os.path.dirname(os.path.abspath(__file__)) + os.sep  # noqa: PTH100, PTH120 - pathlib is slow to import
_LIBRARY = os.path.dirname(os.__file__) + os.sep  # noqa: PTH120
# What our frames call each other through; the user's own use of it lies above the first of our frames.
_BETWEEN = tuple(f"{_LIBRARY}{name}{os.sep}" for name in ("asyncio", "concurrent"))


class _Edge:
    """Where user code calls the SDK."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not os.environ.get("TIDEMILL_TRACEBACK"):
            for each in chain(error):
                each.__traceback__ = without_own_frames(each.__traceback__)


EDGE = _Edge()


def without_own_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback without our frames and what they call each other through."""
    hidden: tuple[str, ...] = (_OWN,)
    shown: list[TracebackType] = []
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if not name.startswith(hidden):
            shown.append(trace)
        elif name.startswith(_OWN):
            hidden = (_OWN, *_BETWEEN)
        trace = trace.tb_next
    head: TracebackType | None = None
    for each in reversed(shown):
        head = TracebackType(head, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return head


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all that it was caused by, raised in the course of, or made of, each once."""
    waiting, seen = [error], set()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [other for other in (each.__cause__, each.__context__) if other is not None]
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions
