"""Whose output is it? Tags for what user code writes past `sys.stdout`, exact and nearly free.

Subprocesses and `os.write` write into the runner's two pipes, which init reads. Runner and init share a
page of memory:

    [init is reading stdout][init is reading stderr] ... [sequence][markers][input id][sequence]

Before the runner goes from one input to the next it looks whether a pipe still holds something, or init
is just reading it. Only then does it write a *marker* into that pipe, "what came before this was of that
input". Then it writes the new input into the page. Init raises its flag, reads, looks at the page, lowers
its flag. Bytes in front of a marker belong to the input that the marker names. Bytes behind the last one
belong to the input in the page, unless the page counts more markers than have come through: then one is
on its way, and they wait for it. So a trivial input costs one `poll` and a few stores, not four writes
that wake init up each time.

Markers hold a random token, so that user code can neither write one by accident nor see one.
"""

import mmap
import os
import select
import struct
from contextlib import suppress

STREAMS = (1, 2)

_PAGE = 4096
_SEQUENCE = struct.Struct("=Q")
_SLOT = struct.Struct("=II64p")  # markers into stdout, into stderr, input id
_BEGUN = slice(64, 64 + _SEQUENCE.size)  # on another cache line than init's flags
_WRITTEN = slice(_BEGUN.stop, _BEGUN.stop + _SLOT.size)
_ENDED = slice(_WRITTEN.stop, _WRITTEN.stop + _SEQUENCE.size)
_PATIENCE = 1000  # milliseconds that a marker waits for room in a pipe that somebody made non-blocking
_TOKEN = 16  # bytes


class Tags:
    """The page that a runner and its init share, and the token of their markers. Made before the fork."""

    def __init__(self) -> None:
        self.page = mmap.mmap(-1, _PAGE)
        self.token = b"\0" + os.urandom(_TOKEN).hex().encode() + b"\0"

    def marker(self, input_id: bytes) -> bytes:
        """Return a marker: what came before was of this input."""
        return self.token + input_id + b"\0"


class Tagger:
    """The runner's side. `read_ends` and `write_ends` are its own descriptors of the pipes, by stream."""

    def __init__(self, tags: Tags, read_ends: dict[int, int], write_ends: dict[int, int]) -> None:
        self._tags = tags
        self._page = tags.page
        self._streams = {fd: stream for stream, fd in read_ends.items()}
        self._write_ends = write_ends
        self._poll = select.poll()
        for fd in read_ends.values():
            self._poll.register(fd, select.POLLIN)
        self._markers = {1: 0, 2: 0}
        self._sequence = 0
        self._now = b""

    def change(self, input_id: str) -> None:
        """Say that from now on this input runs, or none (empty)."""
        unread = self._poll.poll(0)
        page = self._page
        if unread or page[0] or page[1]:
            self._mark({self._streams[fd] for fd, _ in unread} | {s for s in STREAMS if page[s - 1]})
        self._now = now = input_id.encode()
        self._sequence += 1
        sequence = _SEQUENCE.pack(self._sequence)
        page[_BEGUN] = sequence  # each of the three is one store: `pack_into` would write zeros first
        page[_WRITTEN] = _SLOT.pack(self._markers[1], self._markers[2], now)
        page[_ENDED] = sequence

    def _mark(self, streams: set[int]) -> None:
        marker = self._tags.marker(self._now)
        for stream in streams:
            if _write_whole(self._write_ends[stream], marker):
                self._markers[stream] += 1


class Splitter:
    """Init's side of one stream."""

    def __init__(self, tags: Tags, stream: int) -> None:
        self._tags = tags
        self._page = tags.page
        self._stream = stream
        self._seen = 0
        self._held = b""

    def read(self, fd: int, size: int) -> list[tuple[bytes, str]] | None:
        """Read the pipe once and return (bytes, input id) in order; None at its end.

        `BlockingIOError` when there is nothing to read.
        """
        self._page[self._stream - 1] = 1
        try:
            data = os.read(fd, size)
            now, markers = self._look()
        finally:
            self._page[self._stream - 1] = 0
        if not data:
            return None
        whole, torn = self._held + data, b""
        if len(data) == size and _is_readable(fd):
            whole, torn = self._cut(whole)
        self._held = torn
        first, *others = whole.split(self._tags.token)
        found, text = [], first
        for other in others:
            input_id, _, following = other.partition(b"\0")
            found.append((text, input_id.decode()))
            text = following
        self._seen += len(others)
        if markers > self._seen:
            self._held = text + self._held
        else:
            found.append((text, now))
        return [(text, input_id) for text, input_id in found if text]

    def rest(self) -> list[tuple[bytes, str]]:
        """Return what still waited for its marker, when no more can come."""
        held, self._held = self._held, b""
        return [(held, "")] if held else []

    def _cut(self, data: bytes) -> tuple[bytes, bytes]:
        """Split off what may be the beginning of a marker, torn by the end of the buffer.

        A marker is written whole, so only a full buffer can tear one, and its rest is in the pipe already.
        """
        token = self._tags.token
        begun, behind = data.rfind(token), 0
        if begun >= 0:
            behind = data.find(b"\0", begun + len(token)) + 1
            if not behind:  # the input id is not whole
                return data[:begun], data[begun:]
        begun = data.rfind(b"\0", behind)
        if begun >= 0 and token.startswith(data[begun:]):
            return data[:begun], data[begun:]
        return data, b""

    def _look(self) -> tuple[str, int]:
        """Return the input in the page and the markers written so far, read while nobody writes.

        What the runner writes last is read first, and what it writes first last: so no write was under way
        when the reading began, and none began before it ended.
        """
        while True:
            ended = self._page[_ENDED]
            *markers, input_id = _SLOT.unpack(self._page[_WRITTEN])
            if self._page[_BEGUN] == ended:
                return input_id.decode(), markers[self._stream - 1]


def _is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _write_whole(fd: int, marker: bytes) -> bool:
    """Write a marker, which a pipe takes whole or not at all; return whether it did."""
    with suppress(OSError):
        try:
            os.write(fd, marker)
        except BlockingIOError:
            waiting = select.poll()
            waiting.register(fd, select.POLLOUT)
            waiting.poll(_PATIENCE)
            os.write(fd, marker)
        return True
    return False
