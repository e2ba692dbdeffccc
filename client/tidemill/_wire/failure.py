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

_MAX_TEXT = 256 * 1024  # characters of message and traceback each
_MAX_INNER_TEXT = 16 * 1024  # the same of causes, and of the parts of a group
_MAX_PICKLE = MAX_FAILURE - 3 * _MAX_TEXT
_MAX_FRAMES = 200
_MAX_DEPTH = 5  # of causes and of groups in groups
_MAX_DESCRIBED = 32  # exceptions in one failure
_MAX_NOTES = 20
_MAX_SHOWN_LINE = 20_000
_UNREADABLE_HINT = "its class has to exist here too, and to be made again from the `args` of the exception"

Frame = tuple[str, int, str, str]  # file, line number, function, source line


def from_exception(
    error: BaseException, *, allow_pickle: bool = True, hide: Iterable[str] = (), place: str = ""
) -> bytes:
    """Return the failure payload of an exception.

    `hide` are path prefixes of frames that are not the user's; `place` (a container id) is shown in
    front of file names at the caller.
    """
    data = b""
    for number in (_MAX_DESCRIBED, 1):  # one alone always fits
        describer = _Describer(allow_pickle, tuple(hide), place, number)
        data = _pack(describer.describe(error, 0))
        if len(data) <= MAX_FAILURE:
            break
    return data


def from_text(kind: str, message: str, *, traceback: str = "", hint: str = "") -> bytes:
    """Return the failure payload for an error of our own: `kind` names a class of `tidemill.exception`."""
    record = {"kind": kind, "type": kind, "message": _cut(message), "traceback": _cut(traceback)}
    return _pack({**record, "hint": _cut(hint)})


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


def _cut(text: str, most: int = _MAX_TEXT) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n... {len(text) - 2 * half:,} characters left out ...\n{text[-half:]}"


# --- in the container


class _Describer:
    """Describes an exception with its causes and parts, of which there may be any number, and cycles."""

    def __init__(self, allow_pickle: bool, hide: tuple[str, ...], place: str, number: int) -> None:
        self._allow_pickle = allow_pickle
        self._hide = hide
        self._place = place
        self._left = number  # exceptions that have room
        self._pickles = _MAX_PICKLE  # bytes that have room

    def describe(self, error: BaseException, depth: int) -> dict[str, Any]:
        self._left -= 1
        most = _MAX_INNER_TEXT if depth else _MAX_TEXT
        frames = _frames(error.__traceback__, self._hide)
        record: dict[str, Any] = {
            "type": type(error).__qualname__,
            "module": type(error).__module__,
            "message": _cut(_message(error), most),
            "frames": frames,
            "traceback": _cut(_text(error, frames), most),
            "place": self._place,
            "notes": _notes(error),
        }
        if self._allow_pickle:
            record["pickle"] = pickled = _try_pickle(error, self._pickles)
            self._pickles -= len(pickled or b"")
        if isinstance(error, BaseExceptionGroup) and depth < _MAX_DEPTH:
            record["group"] = _cut(error.message, most)
            record["parts"] = [self.describe(part, depth + 1) for part in error.exceptions if self._left > 0]
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is not None and depth < _MAX_DEPTH and self._left > 0:
            record["cause"] = self.describe(cause, depth + 1)
            record["explicit"] = error.__cause__ is not None
        return record


def _notes(error: BaseException) -> list[str]:
    notes = getattr(error, "__notes__", None)
    texts = [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []
    return [_cut(note, _MAX_INNER_TEXT) for note in texts[:_MAX_NOTES]]


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


def _try_pickle(error: BaseException, most: int) -> bytes | None:
    """Return the pickled exception, else without attributes and with its text cut; None if neither can be."""
    for make in (_unchanged, _shortened):
        try:
            data = payload.pickle(make(error))
        except Exception:  # noqa: S112 - the next says less
            continue
        if len(data) <= most:
            return data
    return None


def _unchanged(error: BaseException) -> BaseException:
    return error


def _shortened(error: BaseException) -> BaseException:
    """Return an exception of the same type that says less."""
    short = type(error).__new__(type(error))
    short.args = tuple(_cut_argument(arg) for arg in error.args)
    return short


def _cut_argument(arg: object) -> object:
    if isinstance(arg, str):
        return _cut(arg)
    return arg[:_MAX_TEXT] if isinstance(arg, bytes) else arg


# --- at the caller


def _rebuild(record: dict[str, Any]) -> BaseException:
    return _complete(_own(record) or _unpickled(record), record)


def _complete(error: BaseException, record: dict[str, Any]) -> BaseException:
    """Give an exception what it lost on the way: notes, causes, frames, also those of its parts."""
    for note in record.get("notes", ()):
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
    cause = record.get("cause")
    if cause is not None:
        chained = _rebuild(cause)
        error.__context__ = chained
        if record.get("explicit"):
            error.__cause__ = chained
    if isinstance(error, BaseExceptionGroup):
        for part, described in zip(error.exceptions, record.get("parts", ()), strict=False):
            _complete(part, described)
    return error.with_traceback(_traceback(record))


def _own(record: dict[str, Any]) -> BaseException | None:
    kind = getattr(exception, record.get("kind", ""), None)
    if not isinstance(kind, type):
        return None
    if not issubclass(kind, exception.Error):
        return kind(record["message"]) if issubclass(kind, BaseException) else None
    return kind(record["message"], hint=record.get("hint", ""))


def _of_parts(record: dict[str, Any]) -> BaseException | None:
    """Return a group of exceptions made of its parts, for one that cannot be unpickled as a whole."""
    parts = record.get("parts")
    return BaseExceptionGroup(record["group"], [_rebuild(part) for part in parts]) if parts else None


def _unpickled(record: dict[str, Any]) -> BaseException:
    name = f"{record['type']}: {record['message']}" if record["message"] else record["type"]
    pickled = record.get("pickle")
    if pickled is None:
        return _of_parts(record) or exception.RemoteError(name)
    try:
        error = payload.unpickle(pickled)
    except payload.NOT_OF_READING:
        raise
    except BaseException as broken:
        group = _of_parts(record)
        if group is not None:
            return group
        missing = getattr(broken, "name", None) if isinstance(broken, ModuleNotFoundError) else None
        return exception.ExecutionError(
            f"the remote exception cannot be read here ({type(broken).__name__}: {broken}); it was\n"
            f"{record['traceback']}",
            hint=f"install {missing} here" if missing else _UNREADABLE_HINT,
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
