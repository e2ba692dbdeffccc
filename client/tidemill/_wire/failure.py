"""A failed input's exception, as it travels: type, message, traceback, frames and, if it can, itself.

The caller gets the same type back with the remote frames in its traceback. Nothing here is trusted to
be small: whatever user code raised is cut to 2 MiB.
"""

from collections.abc import Iterable
from types import TracebackType
from typing import Any, NamedTuple

import msgpack

from tidemill import exception
from tidemill._wire import payload

MAX_FAILURE = 2 << 20  # bytes of one failure

_MAX_TEXT = 256 * 1024  # of message and traceback each
_MAX_PICKLE = MAX_FAILURE - 3 * _MAX_TEXT
_MAX_FRAMES = 200
_MAX_CAUSES = 5
_MAX_SHOWN_LINE = 20_000

Frame = tuple[str, int, str, str]  # file, line number, function, source line


def from_exception(
    error: BaseException, *, allow_pickle: bool = True, hide: Iterable[str] = (), place: str = ""
) -> bytes:
    """Return the failure payload of an exception.

    `hide` are path prefixes of frames that are not the user's; `place` (a container id) is shown in
    front of file names at the caller.
    """
    return _pack(_describe(error, allow_pickle, tuple(hide), place, _MAX_CAUSES))


def from_text(kind: str, message: str, *, traceback: str = "") -> bytes:
    """Return the failure payload for an error of our own: `kind` names a class of `tidemill.exception`."""
    return _pack({"kind": kind, "type": kind, "message": _cut(message), "traceback": _cut(traceback)})


def message_of(data: bytes) -> str:
    """Return one line that tells what a failure says: `ValueError: no such row`."""
    record = msgpack.unpackb(data)
    return f"{record['type']}: {record['message']}" if record["message"] else str(record["type"])


def traceback_of(data: bytes) -> str:
    """Return the remote traceback of a failure as text, empty where there was none."""
    return str(msgpack.unpackb(data).get("traceback", ""))


class Summary(NamedTuple):
    """What a failure says in plain text. `kind` is the class's name where it is an error of our own."""

    kind: str
    type: str
    module: str
    message: str
    traceback: str


def summary(data: bytes) -> Summary:
    """Return what a failure says, without making an exception of it; `ValueError` if it is none."""
    try:
        record = msgpack.unpackb(data)
        return Summary(*(str(record.get(name, "")) for name in Summary._fields))
    except (TypeError, AttributeError, msgpack.UnpackException) as error:
        raise ValueError(f"not a failure: {error}") from error


def to_exception(data: bytes) -> BaseException:
    """Return the exception that a failure stands for, with the remote frames as its traceback."""
    return _rebuild(msgpack.unpackb(data))


def _pack(record: dict[str, Any]) -> bytes:
    return msgpack.packb(record, unicode_errors="surrogatepass")  # type: ignore[no-any-return]


def _cut(text: str) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= _MAX_TEXT:
        return text
    half = _MAX_TEXT // 2
    return f"{text[:half]}\n... {len(text) - 2 * half:,} characters left out ...\n{text[-half:]}"


# --- in the container


def _describe(
    error: BaseException, allow_pickle: bool, hide: tuple[str, ...], place: str, causes: int
) -> dict[str, Any]:
    frames = _frames(error.__traceback__, hide)
    record: dict[str, Any] = {
        "type": type(error).__qualname__,
        "module": type(error).__module__,
        "message": _cut(_message(error)),
        "frames": frames,
        "traceback": _cut(_text(error, frames)),
        "place": place,
        "notes": [_cut(str(note)) for note in getattr(error, "__notes__", ())][:20],
    }
    if allow_pickle:
        record["pickle"] = _try_pickle(error)
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and causes:
        record["cause"] = _describe(cause, allow_pickle, hide, place, causes - 1)
        record["explicit"] = error.__cause__ is not None
        if len(record["cause"].get("pickle") or b"") + len(record.get("pickle") or b"") > _MAX_PICKLE:
            record["cause"]["pickle"] = None
    return record


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:
        return f"<its text cannot be shown: {type(broken).__name__}>"


def _frames(traceback: TracebackType | None, hide: tuple[str, ...]) -> list[Frame]:
    import linecache

    frames: list[Frame] = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if not code.co_filename.startswith(hide or ("\0",)):
            line = linecache.getline(code.co_filename, traceback.tb_lineno, traceback.tb_frame.f_globals)
            frames.append((code.co_filename, traceback.tb_lineno, code.co_name, line.strip()[:500]))
        traceback = traceback.tb_next
    half = _MAX_FRAMES // 2
    return frames if len(frames) <= _MAX_FRAMES else [*frames[:half], *frames[-half:]]


def _text(error: BaseException, frames: list[Frame]) -> str:
    lines = ["Traceback (most recent call last):\n"] if frames else []
    for file, line, name, source in frames:
        lines.append(f'  File "{file}", line {line}, in {name}\n')
        if source:
            lines.append(f"    {source}\n")
    message = _message(error)
    return "".join(lines) + type(error).__qualname__ + (f": {message}" if message else "") + "\n"


def _try_pickle(error: BaseException) -> bytes | None:
    """Return the pickled exception, with its text cut where it is too large; None if neither can be."""
    for make in (_unchanged, _shortened):
        try:
            data = payload.pickle(make(error))
        except Exception:
            return None
        if len(data) <= _MAX_PICKLE:
            return data
    return None


def _unchanged(error: BaseException) -> BaseException:
    return error


def _shortened(error: BaseException) -> BaseException:
    """Return an exception of the same type that says less."""
    short = type(error).__new__(type(error))
    short.args = tuple(_cut(arg) if isinstance(arg, str) else arg for arg in error.args)
    return short


# --- at the caller


def _rebuild(record: dict[str, Any]) -> BaseException:
    error = _own(record) or _unpickled(record)
    for note in record.get("notes", ()):
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
    cause = record.get("cause")
    if cause is not None:
        chained = _rebuild(cause)
        error.__context__ = chained
        if record.get("explicit"):
            error.__cause__ = chained
    return error.with_traceback(_traceback(record))


def _own(record: dict[str, Any]) -> BaseException | None:
    kind = getattr(exception, record.get("kind", ""), None)
    if not isinstance(kind, type):
        return None
    error = kind(record["message"])
    assert isinstance(error, BaseException)
    return error


def _unpickled(record: dict[str, Any]) -> BaseException:
    name = f"{record['type']}: {record['message']}" if record["message"] else record["type"]
    pickled = record.get("pickle")
    if pickled is None:
        return exception.RemoteError(name)
    try:
        error = payload.unpickle(pickled)
    except Exception as broken:
        return exception.ExecutionError(
            f"the remote exception cannot be read here ({type(broken).__name__}: {broken}); it was\n"
            f"{record['traceback']}"
        )
    return error if isinstance(error, BaseException) else exception.RemoteError(name)


def _traceback(record: dict[str, Any]) -> TracebackType | None:
    """Return the remote frames as a traceback, with their source lines where `traceback` looks for them."""
    from tblib import Traceback

    head: dict[str, Any] | None = None
    for file, line, name, source in reversed(record.get("frames", ())):
        shown = f"<{record.get('place') or 'remote'}>:{file}"
        _remember_line(shown, line, source)
        frame = {
            "f_globals": {"__file__": shown, "__name__": "remote"},
            "f_code": {"co_filename": shown, "co_name": name},
            "f_lineno": line,
        }
        head = {"tb_frame": frame, "tb_lineno": line, "tb_next": head}
    return Traceback.from_dict(head).as_traceback() if head else None


def _remember_line(file: str, line: int, source: str) -> None:
    import linecache

    if not source or line > _MAX_SHOWN_LINE:
        return
    entry = linecache.cache.get(file)
    lines = list(entry[2]) if entry and len(entry) == 4 else []
    lines.extend("\n" for _ in range(line - len(lines)))
    lines[line - 1] = f"{source}\n"
    linecache.cache[file] = (sum(map(len, lines)), None, lines, file)
