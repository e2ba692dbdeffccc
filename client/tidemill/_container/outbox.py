"""Everything that a runner sends, in the order in which it happened, in as few writes as can be.

Output of user code, results and pieces of streams join an open *batch* while they are of one kind. What
closes a chunk, or comes after a pause, is sent at once; the rest when 64 KiB have come together, and in
any case after a few milliseconds, by a thread that is only awake while something is held back. So a
finished result never waits for the input that runs after it, and a burst of tiny inputs costs one write.

Any thread may add. Who adds much is made to wait while a slow worker does not read; the thread that reads
frames never waits, else both sides could wait for each other (`wait=False`: whoever is sending then sends
this too).
"""

import os
import socket
import threading
import time
from _queue import SimpleQueue
from typing import Any

import msgpack

from tidemill._container.frames import LENGTH, FromRunner

LIMIT = 64 * 1024  # bytes held back at most, before whoever adds sends them
AGE = 0.002  # seconds after a send within which results are held back
PAUSE = 0.001  # seconds after a send within which frames of a stream are worth a common write
TICK = 0.003  # seconds between two looks at what is held back
IDLE_TICKS = 10  # looks without finding anything before the thread goes to sleep
_LARGE = 256 * 1024  # bytes from which a body is written without being copied once more

Encoded = tuple[int, bytes]  # format, bytes


class _Logs:
    """Text of one stream and input that follows upon another."""

    __slots__ = ("input_id", "stream", "texts", "time")

    def __init__(self, stream: int, input_id: str) -> None:
        self.stream = stream
        self.input_id = input_id
        self.time = time.time()
        self.texts: list[str] = []

    def frame(self, _outbox: "Outbox") -> tuple[Any, ...]:
        return (FromRunner.LOG, self.stream, "".join(self.texts), self.time, self.input_id)


class _Outputs:
    """Terminal results of one chunk."""

    __slots__ = ("chunk", "items", "seconds")

    def __init__(self, chunk: int) -> None:
        self.chunk = chunk
        self.items: list[tuple[int, int, int, bytes]] = []
        self.seconds = 0.0

    def frame(self, outbox: "Outbox") -> tuple[Any, ...]:
        chunk, index = outbox.running
        return (
            FromRunner.OUTPUTS,
            self.chunk,
            self.items,
            self.seconds,
            index if chunk == self.chunk else -1,
        )


class _Pieces:
    """Pieces of one generator's stream that follow each other."""

    __slots__ = ("chunk", "first", "index", "items")

    def __init__(self, chunk: int, index: int, first: int) -> None:
        self.chunk = chunk
        self.index = index
        self.first = first
        self.items: list[Encoded] = []

    def frame(self, _outbox: "Outbox") -> tuple[Any, ...]:
        return (FromRunner.PIECES, self.chunk, self.index, self.first, self.items)


class Outbox:
    """The sending half of a runner's socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._owner = os.getpid()
        self._state = threading.Lock()  # held for a few instructions only
        self._sending = threading.Lock()
        self._packer = msgpack.Packer()
        self._ready: list[bytes] = []
        self._open: _Logs | _Outputs | _Pieces | None = None
        self._size = 0
        self._sent = 0.0
        self._ticking = False
        self._bell: SimpleQueue[None] = SimpleQueue()
        self.running = (-1, -1)  # chunk and index of the input that runs

    # --- adding

    def frame(self, kind: FromRunner, *arguments: object, wait: bool = True) -> None:
        """Send a frame now, behind everything that was added before."""
        with self._state:
            self._close()
            self._pack((kind, *arguments))
        self.flush(wait=wait)

    def add_frame(self, kind: FromRunner, *arguments: object) -> bool:
        """Add a frame and leave it to the caller to flush; return whether that is to be done at once.

        It is when nothing was sent for a moment, or much has come together.
        """
        with self._state:
            self._close()
            self._size += self._pack((kind, *arguments))
        return self._size > LIMIT or time.monotonic() - self._sent > PAUSE

    def log(self, stream: int, text: str, input_id: str) -> None:
        """Add output of user code."""
        with self._state:
            batch = self._open
            if type(batch) is not _Logs or batch.stream != stream or batch.input_id != input_id:
                self._close()
                batch = self._open = _Logs(stream, input_id)
            batch.texts.append(text)
            self._size += len(text)
        self.hold()

    def output(
        self,
        chunk: int,
        index: int,
        status: int,
        payload: Encoded,
        *,
        seconds: float = 0.0,
        last: bool = True,
        wait: bool = True,
    ) -> None:
        """Add the terminal result of an input; `last` when nothing more of its chunk waits here."""
        self.add_output(chunk, index, status, payload, seconds=seconds)
        if last or time.monotonic() - self._sent > AGE:
            self.flush(wait=wait)
        else:
            self.hold()

    def add_output(self, chunk: int, index: int, status: int, payload: Encoded, *, seconds: float) -> None:
        """Add the terminal result of an input, and leave it to the caller to flush."""
        with self._state:
            batch = self._open
            if type(batch) is not _Outputs or batch.chunk != chunk:
                self._close()
                batch = self._open = _Outputs(chunk)
            batch.items.append((index, status, *payload))
            batch.seconds += seconds
            self._size += len(payload[1])

    def piece(self, chunk: int, index: int, number: int, payload: Encoded) -> None:
        """Add a piece of a generator's stream."""
        with self._state:
            batch = self._open
            if type(batch) is not _Pieces or batch.chunk != chunk or batch.index != index:
                self._close()
                batch = self._open = _Pieces(chunk, index, number)
            batch.items.append(payload)
            self._size += len(payload[1])
        if time.monotonic() - self._sent > AGE:
            self.flush()
        else:
            self.hold()

    def hold(self) -> None:
        """Leave what was added to the thread that looks after it, unless it is too much."""
        if self._size > LIMIT:
            self.flush()
        elif not self._ticking:
            self._ticking = True
            self._bell.put(None)

    def _close(self) -> None:
        """Pack the open batch. With the lock held."""
        batch, self._open = self._open, None
        if batch is not None:
            self._pack(batch.frame(self))

    def _pack(self, frame: tuple[Any, ...]) -> int:
        """Add a frame to what is ready; return its size."""
        body = self._packer.pack(frame)
        self._size += LENGTH.size
        if len(body) < _LARGE:
            self._ready.append(LENGTH.pack(len(body)) + body)
        else:
            self._ready += (LENGTH.pack(len(body)), body)
        return len(body)

    # --- sending

    def flush(self, *, wait: bool = True) -> None:
        """Send everything that was added. Without `wait`, leave it to the thread that is sending."""
        while self._open is not None or self._ready:
            if not self._sending.acquire(blocking=wait):
                return
            try:
                if frames := self._take():  # else another thread has sent it meanwhile
                    self._send(frames)
            finally:
                self._sending.release()

    def _take(self) -> list[bytes]:
        with self._state:
            self._close()
            ready, self._ready = self._ready, []
            self._size = 0
        return ready

    def _send(self, frames: list[bytes]) -> None:
        if os.getpid() != self._owner:
            os._exit(0)  # a process that user code forked came back from the user's function
        try:
            if len(frames) == 1:
                self._sock.sendall(frames[0])
            elif sum(map(len, frames)) < _LARGE:
                self._sock.sendall(b"".join(frames))
            else:
                for frame in frames:
                    self._sock.sendall(frame)
        except OSError:
            os._exit(1)  # the worker is gone, and everything here with it
        self._sent = time.monotonic()

    def tick(self) -> None:
        """Send what is held back, whenever something is, for ever. Runs in a thread of its own."""
        while True:
            self._bell.get()
            idle = 0
            while idle < IDLE_TICKS:
                time.sleep(TICK)
                idle = 0 if self._open is not None or self._ready else idle + 1
                self.flush()
            self._ticking = False
            # What was added while this thread still counted as awake rang no bell.
            self.flush()

    def detach(self) -> None:
        """Let go of the socket, in a process that user code forked: it is its parent's.

        The locks may be held by threads that were left behind.
        """
        self._state = threading.Lock()
        self._sending = threading.Lock()
        self._sock.close()
