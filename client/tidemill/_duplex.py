"""One end of a duplex stream on an event loop (`tidemill._wire.duplex` tells what a stream is).

    application ── send, control, end ──> transmit ──> (bus or socket)
    application <── receive, on_control <── feed <──── (bus or socket)

The end does not know what carries it: whoever makes it gives it `transmit` and calls `feed`. On a bus,
where nobody is told that the other side has died, both repeat their credit every few seconds with the
number they use next: that is a sign of life, gives lost credit again, and shows that a last frame is
missing. Over a container's socket none of this is needed (`beat=0`).

Nothing waits without a bound: a sender without credit gives up after a minute, a silent other side is
given up after 20 seconds.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from tidemill import exception
from tidemill._bus.protocol import Bus, BusError, Message
from tidemill._wire import coding, errors, subjects
from tidemill._wire.control import ErrorReply
from tidemill._wire.duplex import PIECE, Content, Frame, Gap, Kind, Receiving, Sending

WINDOW = 1 << 20  # bytes that the other side may be ahead on a bus
BEAT = 5.0  # seconds between two signs of life
SILENCE = 20.0  # seconds without any after which the other side is dead
PATIENCE = 60.0  # seconds that a sender waits for credit

Control = Callable[[str, Any], None]
Soon = Callable[[Callable[[], None]], object]  # runs something at the end of the loop's turn


class HalfEnded(exception.InvalidError):
    """Something was to be sent on a half that this side has ended."""


class Duplex:
    """One end of a stream.

    Args:
        transmit: sends a frame; may raise `BusError`.
        window: bytes that the other side may be ahead of what is taken here.
        piece: the most bytes of one piece that is sent.
        beat: seconds between two signs of life; 0 where the carrier tells that the other side is gone.

    `on_control` is called with the name and value of each control frame as it arrives, `on_break` with
    the error when the stream breaks; `word` is what the other side said at its end.
    """

    def __init__(
        self,
        transmit: Callable[[Frame], None],
        *,
        window: int = WINDOW,
        piece: int = PIECE,
        beat: float = BEAT,
    ) -> None:
        self.on_control: Control = _ignore
        self.on_break: Callable[[exception.Error], None] = _ignore
        self.word: Any = None
        self.error: exception.Error | None = None
        self.piece = piece
        self._transmit = transmit
        self._beat = beat
        self._out = Sending()
        self._in = Receiving(window)
        self._waiting: deque[Content] = deque()
        self._arrival = asyncio.Event()  # something to receive, the end, or an error
        self._room = asyncio.Event()  # credit, or an error
        self._over = asyncio.Event()
        self._relay: tuple[Duplex, Soon] | None = None  # where what arrives is passed on to at once
        self._relays_soon = False
        self._hurry: exception.Error | None = None
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Begin: let the other side send, and look after it from now on."""
        self._heard = self._loop.time()
        self._grant()
        if self._beat:
            self._timer = self._loop.call_later(self._beat, self._on_beat, self._heard + self._beat)

    # --- the application sends

    async def send(self, data: bytes, tag: int = 0) -> None:
        """Send content, in as many pieces as it takes; waits while there is no credit.

        Raises:
            HalfEnded: this half was ended.
            Error: the stream is broken.
        """
        view = memoryview(data)
        for start in range(0, len(view), self.piece):
            await self._credit()
            self._put(self._out.piece(tag, bytes(view[start : start + self.piece])))
        if self.error is not None:
            raise self.error

    def control(self, name: str, value: Any = None) -> None:
        """Say something that the other side hears at once. Nothing happens when the stream is over."""
        if not self.is_over:
            self._put(self._out.control(name, value))

    def end(self, word: Any = None) -> None:
        """End this half; `word` is the last that the other side hears. Again, it does nothing."""
        if self.error is None and not self._out.ended:
            self._put(self._out.end(word))
            self._room.set()
            self._check_over()

    def hurry(self, error: exception.Error) -> None:
        """Raise this from now on instead of waiting for credit: what is sent has lost its source."""
        self._hurry = error
        self._room.set()

    async def _credit(self) -> None:
        while self.error is None and not self._out.ended and not self._out.is_open:
            if self._hurry is not None:
                raise self._hurry
            self._room.clear()
            known = self._out.limit
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._room.wait()
            except TimeoutError:
                if self._out.limit == known and not self._out.ended:
                    message = f"nobody has read the stream for {PATIENCE:.0f} seconds"
                    self.abort(exception.TimeoutError(message))
        if self.error is not None:
            raise self.error
        if self._out.ended:
            raise HalfEnded("this half of the stream has ended")

    # --- the application receives

    async def receive(self) -> Content | None:
        """Return the next piece, or None at the end of the other side's half.

        Raises:
            Error: the stream broke before that end; what had come before was received first.
        """
        while not self._waiting:
            if self._in.ended:
                return None
            if self.error is not None:
                raise self.error
            self._arrival.clear()
            await self._arrival.wait()
        content = self._waiting.popleft()
        self._in.take(content.cost)
        self._grant()
        return content

    async def gather(self, most: int) -> Content | None:
        """Return the next piece, together with those that wait behind it, up to so many bytes.

        Only pieces without a tag are put together: where they end means nothing.
        """
        content = await self.receive()
        return content and self._with_following(content, most)

    def _with_following(self, content: Content, most: int) -> Content:
        waiting = self._waiting
        if content.tag or not waiting:
            return content
        found, size = [content.data], len(content.data)
        while waiting and not waiting[0].tag and size + len(waiting[0].data) <= most:
            following = waiting.popleft()
            self._in.take(following.cost)
            found.append(following.data)
            size += len(following.data)
        self._grant()
        return Content(content.tag, b"".join(found))

    def pass_on(self, other: "Duplex | None", soon: "Soon | None" = None) -> None:
        """Pass what arrives on to another end from now on, for as long as that takes it without waiting.

        What it does not take is received here as ever. `soon` runs what passes on, once for all that arrives
        together: at the end of the loop's turn. None ends it.
        """
        self._relay = None if other is None else (other, soon or self._loop.call_soon)

    def _pass_on(self) -> None:
        self._relays_soon = False
        if self._relay is None:
            return
        other, waiting = self._relay[0], self._waiting
        while waiting and other.takes_now(len(waiting[0].data)):
            content = waiting.popleft()
            self._in.take(content.cost)
            content = self._with_following(content, other.piece)
            other._put(other._out.piece(content.tag, content.data))
        self._grant()
        if waiting:
            self._arrival.set()

    def takes_now(self, size: int) -> bool:
        """Whether a piece of this size may be sent as it is, without waiting for credit."""
        return self.error is None and not self._out.ended and self._out.is_open and size <= self.piece

    def __aiter__(self) -> AsyncIterator[Content]:
        """Receive to the end."""
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[Content]:
        while (content := await self.receive()) is not None:
            yield content

    async def wait_over(self) -> None:
        """Return when both halves have ended, or the stream is broken."""
        await self._over.wait()

    @property
    def is_over(self) -> bool:
        """Whether both halves have ended, or the stream is broken."""
        return self._over.is_set()

    @property
    def has_heard_all(self) -> bool:
        """Whether the other side has ended its half: what is still to be received is here."""
        return self._in.ended

    # --- what arrives

    def feed(self, frame: Any) -> None:
        """Take a frame that arrived. What makes no sense breaks the stream; nothing is raised."""
        if self.error is not None:
            return
        self._heard = self._loop.time()
        try:
            self._on_frame(frame)
        except Gap as error:
            self.abort(exception.DataLossError(str(error)))
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            self.abort(exception.DataLossError(f"a frame of the stream makes no sense: {error}"))

    def _on_frame(self, frame: Any) -> None:
        kind = frame[0]
        if kind == Kind.CREDIT:
            _, limit, following = frame
            self._in.check(following)
            self._out.grant(limit)
            if self._out.is_open:
                self._room.set()
        elif kind == Kind.ABORT:
            _, code, message = frame
            self._break(errors.to_exception(ErrorReply(str(code), str(message))))
        elif self._in.accept(frame):
            self._take_in(kind, frame)

    def _take_in(self, kind: int, frame: Any) -> None:
        if kind == Kind.PIECE:
            _, _, tag, data = frame
            self._waiting.append(Content(int(tag), bytes(data)))
            if self._relay is None:
                self._arrival.set()
            elif not self._relays_soon:
                self._relays_soon = True
                self._relay[1](self._pass_on)
        elif kind == Kind.END:
            self.word = frame[2]
            self._arrival.set()
            self._check_over()
        elif kind == Kind.CONTROL:
            _, _, name, value = frame
            self.on_control(name, value)
        else:
            raise ValueError(f"there is no kind {kind!r}")

    # --- time

    def beat(self) -> None:
        """Give a sign of life now, as after a reconnect."""
        if not self.is_over:
            self._put((Kind.CREDIT, self._in.limit, self._out.next))

    def _on_beat(self, due: float) -> None:
        """Give a sign of life. A loop that was late itself has heard nothing, and accuses nobody."""
        now = self._loop.time()
        if now - due > self._beat:
            self._heard = now
        if now - self._heard > SILENCE:
            self.abort(exception.TimeoutError(f"the other side was silent for {SILENCE:.0f} seconds"))
            return
        self.beat()
        if not self.is_over:
            self._timer = self._loop.call_later(self._beat, self._on_beat, now + self._beat)

    # --- the end

    def abort(self, error: exception.Error) -> None:
        """Break the stream, and tell the other side why. Both ends raise this error, or one like it."""
        if self.error is None:
            reply = errors.to_reply(error)
            over = self.is_over
            self._break(error)
            if not over:
                self._put((Kind.ABORT, reply.code, reply.message))

    def close(self) -> None:
        """Leave it. If it is not over, the other side is told that nobody is here any more."""
        self.abort(exception.ServiceError("the other side has left"))

    def _break(self, error: exception.Error) -> None:
        if self.error is None:
            self.error = error
            self._end()
            self.on_break(error)

    def _check_over(self) -> None:
        if self._out.ended and self._in.ended:
            self._end()

    def _end(self) -> None:
        self._over.set()
        self._arrival.set()
        self._room.set()
        if self._timer is not None:
            self._timer.cancel()

    def _grant(self) -> None:
        if self.error is None and (limit := self._in.grant()) is not None:
            self._put((Kind.CREDIT, limit, self._out.next))

    def _put(self, frame: Frame) -> None:
        """Transmit. Credit that does not get through is said again; of anything else a gap would be left."""
        try:
            self._transmit(frame)
        except BusError as error:
            if frame[0] != Kind.CREDIT:
                self._break(exception.ConnectionError(f"the stream is cut off: {error}"))


def _ignore(*_: object) -> None:
    """Do nothing."""


@asynccontextmanager
async def on_bus(
    bus: Bus, workspace: str, stream: str, *, is_client: bool, piece: int = PIECE
) -> AsyncIterator[Duplex]:
    """Hold one end of the stream of this id, in a workspace, on a bus while the block runs.

    One of them is the client's end (the gateway's too), the other the platform's. Whoever makes the id
    enters the block and then tells the other side to enter it too.

    Raises:
        ServiceError: the bus does not take the subscription.
    """
    sending, receiving = (
        subjects.stream(workspace, stream, down=down) for down in (not is_client, is_client)
    )

    def transmit(frame: Frame) -> None:
        bus.publish(sending, coding.encode(frame))

    end = Duplex(transmit, piece=piece)

    def arrive(message: Message) -> None:
        try:
            frame = coding.decode(list[Any], message.data)
        except ValueError as error:
            end.abort(exception.DataLossError(str(error)))
        else:
            end.feed(frame)

    try:
        subscription = await bus.subscribe(receiving, arrive)
    except BusError as error:
        raise exception.ServiceError(f"no stream can be opened: {error}") from error
    forget = bus.on_reconnect(end.beat)
    try:
        yield end
    finally:
        forget()
        end.close()
        await subscription.close()


def couple(one: Duplex, other: Duplex, soon: Soon | None = None) -> None:
    """Begin to `join` two ends: what arrives now is passed on, if it need not wait for credit."""
    one.on_control, other.on_control = other.control, one.control
    one.on_break, other.on_break = other.hurry, one.hurry
    one.pass_on(other, soon)
    other.pass_on(one, soon)


async def join(one: Duplex, other: Duplex, soon: Soon | None = None) -> None:
    """Pass everything from each end to the other until both are over; what breaks one breaks the other.

    See `Duplex.pass_on` about `soon`.
    """
    couple(one, other, soon)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_pump(one, other, soon), name="stream there")
            tasks.create_task(_pump(other, one, soon), name="stream back")
    except* exception.Error as group:
        error = next(each for each in group.exceptions if isinstance(each, exception.Error))
        one.abort(error)
        other.abort(error)


async def _pump(source: Duplex, sink: Duplex, soon: Soon | None) -> None:
    while (content := await source.gather(sink.piece)) is not None:
        source.pass_on(None)  # nothing may overtake this
        with suppress(HalfEnded):  # by somebody else: who sends does not know yet
            await sink.send(content.data, content.tag)
        source.pass_on(sink, soon)
    sink.end(source.word)
