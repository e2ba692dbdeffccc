"""A container that answers web requests: several at once, each with a deadline and a stream of its own.

Other methods of its class may be called in it too: each input comes by itself, with a deadline of its own.

    gateway ══ outer end ══ joined ══ inner end ══ runner's socket ══ the app

What a client does not take any more is no reason to end what others use: a cancelled request is told so, and
goes on for as long as its function's timeout allows.
"""

from math import inf
from typing import Any

from tidemill import exception
from tidemill._container.frames import FromRunner, ToRunner
from tidemill._duplex import Duplex, couple, join
from tidemill._wire.duplex import PIECE_TO_CONTAINER
from tidemill._wire.specs import Pool
from tidemill_worker.container import GRACE, Container, Listener
from tidemill_worker.decisions import Killed
from tidemill_worker.node import Node
from tidemill_worker.work import Part

WINDOW = 256 * 1024  # bytes that the runner may be ahead of what the gateway takes


class WebContainer(Container):
    """See `Container`."""

    def __init__(self, node: Node, pool: Pool, container_id: str, listener: Listener) -> None:
        super().__init__(node, pool, container_id, listener)
        self._webs = pool.spec.webs
        self._inner: dict[int, Duplex] = {}  # by chunk
        self._from_runner |= {
            FromRunner.STREAM: self._on_stream,
            FromRunner.LOG: self._on_log,
            FromRunner.NOTE: self._note,
        }
        self._bridge.on_call = lambda data: node.records.calls(self, data)

    # --- requests

    def _on_assigned(self, part: Part) -> None:
        self._begin(part, part.first())

    def _watch(self, part: Part, deadline: float) -> None:
        part.until = deadline
        self._look_at(deadline)

    def _look_at(self, deadline: float) -> None:
        if deadline < self.deadline:
            self.deadline = deadline
            self._node.deadlines.hint(deadline)

    def cancel(self, part: Part) -> None:
        """Tell a request that its client has gone; end what else runs."""
        if part.work.chunk.method not in self._webs:
            super().cancel(part)
        elif part.running != -1:
            self._runner.send((ToRunner.CANCEL, part.number, part.running))

    def on_deadline(self) -> None:
        """Act on requests that run for too long: tell them to end, then end the container."""
        now, self.deadline = self._loop.time(), inf
        for part in self.parts.values():
            if part.until <= now:
                if part.grace is not None:
                    self.kill(part.grace)
                    return
                if (part.number, part.running) in self.timed_out:
                    self.kill(Killed.TIMEOUT)
                    return
                self.timed_out.add((part.number, part.running))
                self._runner.send((ToRunner.CANCEL, part.number, part.running))
                part.until = now + GRACE
            self._look_at(part.until)

    def finished(self, part: Part) -> None:
        """See `Container.finished`."""
        inner = self._inner.get(part.number)
        if inner is not None and not inner.has_heard_all:
            inner.abort(exception.ServiceError("the request has ended"))
        super().finished(part)

    def _move_on(self, _number: int, _part: Part, _running: int) -> None:
        """Do nothing: each request runs by itself."""

    # --- requests of which somebody may know

    def _on_log(self, stream: int, text: str, when: float, input_id: str) -> None:
        self.log.write(stream, text, when, input_id)
        if input_id:
            self._note(input_id)

    def _note(self, input_id: str) -> None:
        self._node.records.note(self, input_id)

    # --- their streams

    def _on_stream(self, number: int, frame: Any) -> None:
        inner = self._inner.get(number)
        if inner is None:
            part = self.parts.get(number)
            if part is None or not part.work.chunk.gateway:
                return  # it has ended, or nobody asked for a stream
            inner = self._open_stream(part, number)
        inner.feed(frame)

    def _open_stream(self, part: Part, number: int) -> Duplex:
        inner = self._inner[number] = Duplex(
            lambda frame: self._runner.send((ToRunner.STREAM, number, frame)),
            window=WINDOW,
            piece=PIECE_TO_CONTAINER,
            beat=0,
        )
        outer = self._node.web.open(part.work)
        couple(outer, inner, self._node.bus.soon)
        inner.open()
        self._node.spawn(self._carry(part, number, outer, inner), f"stream of {part.work.chunk.call}")
        return inner

    async def _carry(self, part: Part, number: int, outer: Duplex, inner: Duplex) -> None:
        """Carry a stream to its end, which may come after that of the request: its client may be slow."""
        try:
            await join(outer, inner, self._node.bus.soon)
        finally:
            self._inner.pop(number, None)
            inner.close()
            self._node.web.forget(part.work)

    def _end(self) -> None:
        for inner in list(self._inner.values()):
            if not inner.has_heard_all:
                inner.abort(exception.ServiceError("the container has ended"))
        super()._end()
