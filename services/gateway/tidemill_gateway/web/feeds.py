"""Event streams that a client can come back to: kept in JetStream while a function makes them.

    function ──> recorder (one gateway) ──> FEEDS_<ws> ──> reader (any gateway) ──> client

From the first event with an id on, a client is given only what is stored. When it has gone, its function goes
on for a while; the same client, coming back with `Last-Event-ID`, reads on behind that event. Reader and
recorder know of each other by what they say on core subjects: how far is read, and that more is to come.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
from starlette.types import Scope, Send

from tidemill import exception
from tidemill._bus.protocol import BusError, Message
from tidemill._wire import ids, subjects
from tidemill._wire.web import Headers, Route
from tidemill_common.bus.protocol import ServiceBus
from tidemill_common.logging import Logger
from tidemill_gateway.web.calls import WebCall
from tidemill_gateway.web.events import MAX_EVENT, Event, Splitter

GRACE = 30.0  # seconds that a function goes on without a reader
AHEAD = 1_000  # events that may be stored before they are read
BEAT = 5.0  # seconds between two words of reader and recorder
SILENCE = 15.0  # seconds without any after which a recorder is gone
ANSWER = 3.0  # seconds for a recorder to say that it is there

_HEAD, _EVENT, _END, _BROKEN = range(4)
_LAST_ID = b"last-event-id"

_encode = msgspec.msgpack.Encoder().encode
_entry = msgspec.msgpack.Decoder(tuple[str, int, int, bytes]).decode  # run, number, kind, data
_head = msgspec.msgpack.Decoder(tuple[int, list[tuple[bytes, bytes]]]).decode

Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class Place(NamedTuple):
    """Where somebody is in a feed: behind its event `number`, which is `sequence` in the stream."""

    workspace: str
    requester: str
    run: str
    number: int = -1
    sequence: int = 0


class Found(NamedTuple):
    """A feed to be read on from a place, and how its response began."""

    place: Place
    status: int
    headers: Headers


class Broken(Exception):
    """A feed has no more, and not because it is complete."""


def requester(route: Route, scope: Scope, token: str = "") -> str:
    """Return who asks for what, as far as that can be told: the same for a client that comes again.

    A client that shows who it is may come from elsewhere; others are told apart by their addresses.
    """
    shown = b"\0".join(value for name, value in scope["headers"] if name in (b"authorization", b"cookie"))
    address = "" if shown or token else (scope["client"] or ("",))[0]
    parts = (
        f"{route.label}\0{token}\0{address}".encode(), scope["raw_path"], scope["query_string"], shown,
    )  # fmt: skip
    return hashlib.sha256(b"\0\0".join(parts)).hexdigest()[:40]


def last_id(scope: Scope) -> bytes | None:
    """Return the id of the last event that a client has, None if it begins."""
    if scope["type"] != "http" or scope["method"] != "GET":
        return None
    return next((value for name, value in scope["headers"] if name == _LAST_ID and value), None)


def is_feed(scope: Scope, status: int, headers: Headers) -> bool:
    """Return whether a response is an event stream that can be kept."""
    kinds = [value for name, value in headers if name.lower() == b"content-type"]
    is_stream = any(kind.split(b";")[0].strip().lower() == b"text/event-stream" for kind in kinds)
    return is_stream and status == 200 and scope.get("method") == "GET"


class Feeds:
    """The feeds that this gateway keeps, and how all are read."""

    def __init__(self, bus: ServiceBus, spawn: Spawn, log: Logger) -> None:
        self._bus = bus
        self._log = log
        self._spawn = spawn
        self._recorders: dict[str, Recorder] = {}

    async def listen(self) -> None:
        """Hear from readers."""
        await self._bus.subscribe(subjects.ALL_READ_FEEDS, self._on_read)

    def _on_read(self, message: Message) -> None:
        recorder = self._recorders.get(message.subject.rpartition(".")[2])
        if recorder is not None:
            recorder.is_read(int(message.data))
            self._bus.publish(subjects.kept_feed(recorder.place.run), b"")

    async def keep(
        self,
        call: WebCall,
        place: tuple[str, str],
        head: tuple[int, Headers],
        events: Sequence[Event],
        rest: Splitter,
    ) -> Place:
        """Take a call over whose response is a feed: `events` are the first, `rest` splits what follows.

        Raises `BusError`: it cannot be kept.
        """
        run = ids.new(ids.FEED)
        recorder = Recorder(self._bus, call, Place(*place, run), rest)
        begun = await recorder.begin(head)
        self._recorders[run] = recorder
        task = self._spawn(self._guarded(recorder, events))
        task.add_done_callback(lambda _: self._recorders.pop(run, None))
        return begun

    async def _guarded(self, recorder: "Recorder", events: Sequence[Event]) -> None:
        try:
            await recorder.run(events)
        except Exception:
            self._log.exception("an event stream is no longer kept", feed=recorder.place.run)

    async def find(self, workspace: str, requester: str, event: bytes) -> Found | None:
        """Return a feed behind an event, if anything has come behind it, or is to come."""
        try:
            place = await self._place(workspace, requester, event)
            if place is None or not await self._goes_on(place):
                return None
            subject = subjects.feed(workspace, requester, place.run)
            head = await self._bus.last(subjects.feeds_stream(workspace), subject)
            return Found(place, *_head(_entry(head.data)[3])) if head is not None else None
        except (BusError, msgspec.DecodeError):
            return None  # the function is asked, which sees the id too

    async def _place(self, workspace: str, requester: str, event: bytes) -> Place | None:
        subject = subjects.feed(workspace, requester, _name(event))
        found = await self._bus.last(subjects.feeds_stream(workspace), subject)
        if found is None:
            return None
        run, number, _, _ = _entry(found.data)
        return Place(workspace, requester, run, number, found.sequence)

    async def _goes_on(self, place: Place) -> bool:
        everything = subjects.feed(place.workspace, place.requester, subjects.EVERY)
        stream = subjects.feeds_stream(place.workspace)
        async for stored in self._bus.read(stream, everything, sequence=place.sequence + 1):
            run, _, kind, _ = _entry(stored.data)
            if run == place.run:
                return kind == _EVENT
        return await self._is_kept(place)

    async def _is_kept(self, place: Place) -> bool:
        kept = asyncio.Event()
        undo = await self._bus.subscribe(subjects.kept_feed(place.run), lambda _: kept.set())
        try:
            self._say_read(place.run, place.number)
            async with asyncio.timeout(ANSWER):
                await kept.wait()
        except TimeoutError:
            return False
        finally:
            await undo.close()
        return True

    async def send(self, place: Place, send: Send, skip: int = 0) -> None:
        """Answer with what comes behind a place, but for the first `skip` bytes.

        Where something is missing the answer is not ended, so that the client comes again.
        """
        try:
            await self._follow(place, send, skip)
        except (Broken, BusError, msgspec.DecodeError):
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _follow(self, place: Place, send: Send, skip: int) -> None:
        """Send what comes behind a place, but for the first `skip` bytes. Raises `Broken`, `BusError`."""
        bell, run = asyncio.Event(), place.run
        everything = subjects.feed(place.workspace, place.requester, subjects.EVERY)
        unring = await self._bus.subscribe(everything, lambda _: bell.set())
        unhear = await self._bus.subscribe(subjects.kept_feed(run), lambda _: bell.set())
        stream, number, sequence = subjects.feeds_stream(place.workspace), place.number, place.sequence
        heard = 0.0  # nobody yet
        try:
            while True:
                bell.clear()
                async for stored in self._bus.read(stream, everything, sequence=sequence + 1):
                    sequence = stored.sequence
                    theirs, index, kind, data = _entry(stored.data)
                    if theirs != run or kind == _HEAD:
                        continue
                    if kind == _END:
                        return
                    if kind == _BROKEN or index != number + 1:
                        raise Broken("an event is missing")
                    number = index
                    await send({"type": "http.response.body", "body": data[skip:], "more_body": True})
                    skip = 0
                self._say_read(run, number)
                try:
                    async with asyncio.timeout(BEAT):
                        await bell.wait()
                    heard = time.monotonic()
                except TimeoutError:
                    if not heard or time.monotonic() - heard > SILENCE:
                        raise Broken("its gateway has gone") from None
        finally:
            with suppress(BusError):
                await unring.close()
                await unhear.close()

    def _say_read(self, run: str, number: int) -> None:
        self._bus.publish(subjects.read_feed(run), str(number).encode())


class Recorder:
    """Stores the events of one response as they come, and sees to it that somebody reads them."""

    def __init__(self, bus: ServiceBus, call: WebCall, place: Place, splitter: Splitter) -> None:
        self.place = place
        self._bus = bus
        self._call = call
        self._splitter = splitter
        self._stored = -1
        self._read = -1
        self._heard = time.monotonic()
        self._is_left = False
        self._news = asyncio.Event()

    def is_read(self, number: int) -> None:
        """Hear how far somebody has read."""
        self._read = max(self._read, number)
        self._heard = time.monotonic()
        self._news.set()

    async def begin(self, head: tuple[int, Headers]) -> Place:
        """Store status and headers; return the place behind them."""
        sequence = await self._store(self.place.run, 0, _HEAD, _encode(head))
        return self.place._replace(sequence=sequence)

    async def run(self, events: Sequence[Event]) -> None:
        """Store everything, and how it ended."""
        end = _BROKEN
        watching = asyncio.create_task(self._watch(), name=f"readers of {self.place.run}")
        try:
            await self._keep(events)
            stream = self._call.stream
            assert stream is not None
            while (content := await stream.receive()) is not None:
                await self._keep(self._splitter.feed(content.data))
                if self._splitter.held > MAX_EVENT:
                    raise Broken("an event is longer than what is kept")
            stream.end()
            end = _END
        except (exception.Error, BusError, Broken):
            self._call.cancel()
        except asyncio.CancelledError:
            self._call.cancel()
            raise
        finally:
            watching.cancel()
            self._call.leave()
            with suppress(BusError):
                await self._store("end", self._stored + 1, end, b"")

    async def _keep(self, events: Sequence[Event]) -> None:
        for event in events:
            while self._stored - self._read >= AHEAD:
                if self._is_left:
                    raise Broken("nobody reads it")
                self._news.clear()
                await self._news.wait()
            self._stored += 1
            name = _name(event.id) if event.id else "event"
            await self._store(name, self._stored, _EVENT, event.data)

    async def _store(self, name: str, number: int, kind: int, data: bytes) -> int:
        place = self.place
        subject = subjects.feed(place.workspace, place.requester, name)
        msg_id = f"{place.run}.{number}.{kind}"
        entry = _encode((place.run, number, kind, data))
        return (await self._bus.store(subject, entry, msg_id=msg_id)).sequence

    async def _watch(self) -> None:
        """Say that it goes on; end the function when nobody has read it for long."""
        while time.monotonic() - self._heard < GRACE:
            with suppress(BusError):  # who reads has no connection either, or hears the next one
                self._bus.publish(subjects.kept_feed(self.place.run), b"")
            await asyncio.sleep(BEAT)
        self._is_left = True
        self._news.set()
        self._call.cancel()


def _name(event: bytes) -> str:
    return f"id-{hashlib.sha256(event).hexdigest()[:40]}"
