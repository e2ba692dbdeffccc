"""The streams of web requests, as far as the gateways see them: one subscription for all of this worker.

gateway ── tm.streams.<ws>.<worker>.up ──> (call, frame) ──> outer end ──> ... the container's end
gateway <── tm.streams.<ws>.<gateway>.down ── (call, frame) <── outer end
"""

import asyncio

import msgspec

from tidemill._bus.protocol import Message
from tidemill._duplex import Duplex
from tidemill._wire import subjects
from tidemill._wire.duplex import Frame
from tidemill._wire.web import OPENED
from tidemill_common.bus.protocol import ServiceBus
from tidemill_worker.work import Work

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, list[object]]).decode

Key = tuple[str, str]  # workspace, call


class WebStreams:
    """The outer ends."""

    def __init__(self, worker: str, bus: ServiceBus) -> None:
        self._worker = worker
        self._bus = bus
        self._ends: dict[Key, Duplex] = {}
        self._none_left = asyncio.Event()
        self._none_left.set()

    async def listen(self) -> None:
        """Hear what gateways send."""
        await self._bus.subscribe(subjects.all_streams(self._worker, down=False), self._arrive)
        self._bus.on_reconnect(self._beat)

    def open(self, work: Work) -> Duplex:
        """Return the outer end of a request's stream; `ValueError` if its gateway expects none."""
        workspace, call = work.workspace, work.chunk.call
        subject = subjects.stream(workspace, work.chunk.gateway, down=True)

        def transmit(frame: Frame) -> None:
            self._bus.publish(subject, _encode((call, frame)))

        end = self._ends[workspace, call] = Duplex(transmit)
        self._none_left.clear()
        self._bus.publish(subject, _encode((call, (OPENED, self._worker))))
        end.open()
        return end

    def forget(self, work: Work) -> None:
        """Hear no more of a request's stream, which is over or is ended by this."""
        if end := self._ends.pop((work.workspace, work.chunk.call), None):
            end.close()
        if not self._ends:
            self._none_left.set()

    async def drain(self) -> None:
        """Return when all streams are over: a slow client may still take what its function has sent."""
        await self._none_left.wait()

    def _arrive(self, message: Message) -> None:
        try:
            call, frame = _decode(message.data)
        except msgspec.DecodeError:
            return  # whoever sent it misses an answer
        workspace = subjects.workspace_of_stream(message.subject)
        if (end := self._ends.get((workspace, call))) is not None:
            end.feed(frame)

    def _beat(self) -> None:
        for end in list(self._ends.values()):
            end.beat()
