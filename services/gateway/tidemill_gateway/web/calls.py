"""Requests under way, as the bus sees them: an attached call each, and a stream where one is opened.

on_outputs   the whole response, or how the input ended
on_frame     what a worker says on the stream: opened, head or accept, then the body
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from tidemill import exception
from tidemill._attached import RawOutput
from tidemill._bus.protocol import Message
from tidemill._caller import Caller
from tidemill._duplex import Duplex
from tidemill._outcome import Outcome
from tidemill._wire import ids, subjects
from tidemill._wire.control import Trouble
from tidemill._wire.duplex import Frame
from tidemill._wire.messages import Format, Status
from tidemill._wire.web import ACCEPT, CONTINUE, HEAD, OPENED, Timing
from tidemill_common.bus.protocol import ServiceBus
from tidemill_gateway import problems
from tidemill_gateway.broker import Broker
from tidemill_gateway.problems import Problem
from tidemill_gateway.web.routes import Target

encode = msgspec.msgpack.Encoder().encode
_frame = msgspec.msgpack.Decoder(tuple[str, tuple[Any, ...]]).decode
response = msgspec.msgpack.Decoder(tuple[int, list[tuple[bytes, bytes]], bytes, Timing]).decode

LOST = "InternalFailure"  # the kind of failure of what was taken and is not run again

Fields = Sequence[Any]  # of a `Request`


class Answer(NamedTuple):
    """What a request was answered with: all of it, or the head of what its stream brings."""

    name: str  # "" for a whole response, else that of the control frame
    value: Any


class WebCall:
    """One request. See `tidemill._attached.Attached`."""

    __slots__ = (
        "_caller", "_inbox", "_is_queued", "_since", "_submission", "answer", "handle", "id", "opened",
        "stream", "wanted",
    )  # fmt: skip

    def __init__(self, inbox: "Inbox", caller: Caller, target: Target) -> None:
        self.id = ids.new(ids.CALL)
        self.handle = target.handle
        self.answer: asyncio.Future[Answer] = caller.loop.create_future()
        self.stream: Duplex | None = None
        self.opened: asyncio.Future[Duplex] | None = None  # made by who waits for it
        self.wanted: asyncio.Future[None] | None = None  # the same, for the app to ask for the body
        self._inbox = inbox
        self._caller = caller
        self._is_queued = False  # for certain
        self._submission = 0
        self._since = 0.0

    def start(self, request: Fields) -> None:
        """Queue it. Raises `Problem` where the broker was lost while it was read."""
        self._inbox.broker.check()
        caller = self._caller
        self._since = time.monotonic()
        payload = (Format.HTTP, encode(request))
        chunk = (
            self.id, (0,), 0, caller.reply, (payload,), time.time(), 0, 0, "", self.id, (), False,
            self._inbox.id, self.handle.method, True,
        )  # fmt: skip
        caller.begin(self)
        self._inbox.calls[self.id] = self
        self._submission = caller.submit(
            self.handle, self.id, 0, encode(chunk), stored=self._note_queued, refused=self.fail
        )

    def _note_queued(self) -> None:
        self._is_queued = True

    def age(self) -> float:
        """Return the seconds since it was queued."""
        return time.monotonic() - self._since

    def leave(self) -> None:
        """Expect nothing more."""
        self._caller.end(self)
        self._inbox.calls.pop(self.id, None)
        if self.stream is not None:
            self.stream.close()
        if not self.answer.done():
            self.answer.cancel()

    def cancel(self) -> None:
        """Have it end: nobody waits for it any more."""
        if self.id in self._caller.calls:
            self._inbox.broker.when_there(self._have_ended)
        self.leave()

    def give_up(self, problem: Problem) -> None:
        """End it without an answer: here, and where it is queued or runs."""
        self._inbox.broker.when_there(self._have_ended)
        self.fail(problem)

    def give_up_queueing(self) -> None:
        """Give it up if nobody knows whether it is queued: it will be when the broker is back."""
        if not self._is_queued and self.stream is None and not self.answer.done():
            self.give_up(problems.unreachable())

    def _have_ended(self) -> None:
        self._caller.cancel(self.id, self.handle, num_inputs=1)

    # --- what comes

    def on_outputs(self, items: list[RawOutput], seconds: float, container: str) -> None:  # noqa: ARG002
        """Take the one output."""
        for _, status, (form, data), *_ in items:
            self._caller.end(self)
            if status == Status.SUCCESS and form == Format.HTTP:
                self._take_response(data)
            else:
                self.fail(of_failure(Outcome(status, form, data)))

    def _take_response(self, data: bytes) -> None:
        try:
            answered = response(data)
        except msgspec.DecodeError as error:
            self.fail(Problem(502, "bad_response", f"the response cannot be read: {error}"))
            return
        if answered[0]:
            self._resolve(Answer("", answered))
        elif self.stream is None and not self.answer.done():
            self.fail(Problem(502, "lost", "the response was lost on its way"))

    def on_frame(self, frame: Frame) -> None:
        """Take a frame of the stream."""
        if frame[0] == OPENED and self.stream is None:
            self._open(str(frame[1]))
        elif self.stream is not None:
            self.stream.feed(frame)

    def _open(self, worker: str) -> None:
        self.stream = stream = self._inbox.stream(self._caller.workspace, worker, self.id)
        stream.on_control = self._on_control
        stream.on_break = self.fail
        stream.open()
        if self.opened is not None and not self.opened.done():
            self.opened.set_result(stream)

    def _on_control(self, name: str, value: Any) -> None:
        if name in (HEAD, ACCEPT):
            self._resolve(Answer(name, value))
        elif name == CONTINUE and self.wanted is not None and not self.wanted.done():
            self.wanted.set_result(None)

    def _resolve(self, answer: Answer) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: BaseException) -> None:
        """End it with an error, as long as nothing was answered; else break what is being answered."""
        self._caller.end(self)
        if not self.answer.done():
            self.answer.set_exception(error)
        elif self.stream is not None and not self.stream.has_heard_all:
            self.stream.abort(exception.ServiceError(str(error)))

    def on_trouble(self, trouble: Trouble) -> None:
        """Give up where no container becomes ready: whoever asks again finds those that did meanwhile."""
        headers = {"Retry-After": "1"}
        self.give_up(Problem(503, "no_container", trouble.message, hint=trouble.hint, headers=headers))

    def on_tick(self, now: float) -> None:
        """Nothing depends on time."""

    def oldest(self) -> tuple[int, float] | None:
        """See `Attached`. A stream shows by itself whether anybody is at its other end."""
        return (self._submission, self._since) if self.stream is None else None


class Inbox:
    """Where workers send the frames of this process's streams: one subject for all of them."""

    def __init__(self, bus: ServiceBus, broker: Broker) -> None:
        self.id = ids.new(ids.GATEWAY)
        self.broker = broker
        self.calls: dict[str, WebCall] = {}
        self._bus = bus

    async def listen(self) -> None:
        """Hear what workers send."""
        await self._bus.subscribe(subjects.all_streams(self.id, down=True), self._arrive)
        self._bus.on_disconnect(self._lose)
        self._bus.on_reconnect(self._find)

    def stream(self, workspace: str, worker: str, call: str) -> Duplex:
        """Return this side's end of a stream."""
        subject = subjects.stream(workspace, worker, down=False)

        def transmit(frame: Frame) -> None:
            self._bus.publish(subject, encode((call, frame)))

        return Duplex(transmit)

    def on_failing(self, trouble: Trouble) -> None:
        """Fail what waits for a pool whose containers fail to start."""
        for call in [call for call in self.calls.values() if call.handle.pool == trouble.pool]:
            call.on_trouble(trouble)

    def _arrive(self, message: Message) -> None:
        try:
            call, frame = _frame(message.data)
        except msgspec.DecodeError:
            return  # whoever sent it misses an answer
        if (found := self.calls.get(call)) is not None:
            found.on_frame(frame)

    def _lose(self) -> None:
        """Answer what may not have reached the broker; what is queued keeps its place and waits."""
        for call in list(self.calls.values()):
            call.give_up_queueing()

    def _find(self) -> None:
        """Go on after a reconnect."""
        for call in list(self.calls.values()):
            if call.stream is not None:
                call.stream.beat()


def of_failure(outcome: Outcome) -> Problem:
    """Return how an input ended that has no response."""
    if outcome.status == Status.TIMEOUT:
        return Problem(504, "function_timeout", "the function took longer than its timeout")
    problem = problems.of_outcome(outcome, 0, {})
    problem.status_code = problem.body["status"] = 502
    problem.body["title"] = problems.TITLES[502]
    problem.body.pop("traceback", None)
    return problem
