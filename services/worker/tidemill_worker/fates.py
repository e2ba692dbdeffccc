"""What becomes of inputs that gave no plain result: tried again, failed, cancelled, given up."""

import asyncio
import time

from tidemill._wire import failure
from tidemill._wire.messages import Format, Payload, Status, Try
from tidemill._wire.specs import Pool
from tidemill_common.records import reason_of
from tidemill_worker import decisions
from tidemill_worker.attempts import Attempts
from tidemill_worker.container import Container
from tidemill_worker.dead_letters import DeadLetters
from tidemill_worker.decisions import Fate, Killed, Verdict
from tidemill_worker.node import Node
from tidemill_worker.outputs import CANCELLED, Item, Outbox
from tidemill_worker.work import Part, Work

LOST_REQUEST = failure.from_text("InternalFailure", "the container ended while it answered the request")


class Fates:
    """Carries out the fates of one pool's inputs."""

    def __init__(self, node: Node, pool: Pool, outbox: Outbox, attempts: Attempts) -> None:
        self._pool = pool
        self._dead = DeadLetters(node, pool, attempts)
        self._outbox = outbox
        self._attempts = attempts

    def output(
        self,
        container: Container,
        part: Part,
        index: int,
        payload: Payload,
        output: tuple[Status, int, bytes],
    ) -> Item | None:
        """Return what is sent for an output that is no plain result, or None if its input is dealt with."""
        status, form, data = output
        pieces = container.pieces(part, index)
        container.close_stream(part, index)
        if status is Status.DONE:
            return index, status, (form, data), pieces
        if (part.number, index) in container.timed_out:
            self.judge(container, part.work, index, payload, Verdict(Fate.TIMED_OUT), pieces)
            return None
        if part.work.voided:
            return index, Status.CANCELLED, (Format.FAILURE, CANCELLED), pieces
        if status is Status.FAILURE and self._retried(container, part.work, index, payload, data):
            return None
        return index, status, (form, data), pieces

    def of_running(self, container: Container, part: Part, verdict: Verdict) -> Verdict:
        """Return what a container's end means for an input that it ran: bystanders of a kill are spared."""
        if part.work.voided:
            return Verdict(Fate.CANCELLED)
        if verdict.fate is Fate.TIMED_OUT and (part.number, part.running) not in container.timed_out:
            return Verdict(Fate.SPARED)
        if container.killed in (Killed.CANCEL, Killed.STOP):
            return Verdict(Fate.SPARED)
        return verdict

    def of_request(self, container: Container, part: Part) -> None:
        """End a web request whose container has ended: it was begun, and is not run again."""
        for index in part.left:
            if part.work.voided:
                self._end(container, part.work, index, Status.CANCELLED, CANCELLED, 0)
            elif (part.number, index) in container.timed_out:
                told = failure.from_text("FunctionTimeoutError", self._too_long)
                self._end(container, part.work, index, Status.TIMEOUT, told, 0)
            else:
                self._end(container, part.work, index, Status.FAILURE, LOST_REQUEST, 0)
        part.left.clear()

    def lost_request(self, held: Work) -> None:
        """End a web request that another worker had taken, and lost."""
        self._outbox.end(held, held.chunk.indices, Status.FAILURE, LOST_REQUEST)

    @property
    def _too_long(self) -> str:
        return f"the input ran for longer than its timeout of {self._pool.spec.timeout:g} s"

    def judge(
        self,
        container: Container,
        held: Work,
        index: int,
        payload: Payload,
        verdict: Verdict,
        pieces: int,
    ) -> None:
        """Carry out what becomes of an input that was running when it, or its container, was ended."""
        left = {index: payload}
        match verdict.fate:
            case Fate.CANCELLED:
                self._end(container, held, index, Status.CANCELLED, CANCELLED, pieces)
            case Fate.SPARED:
                self._attempts.elsewhere(held, self._pool, left)
            case Fate.LOST if not decisions.gives_up(held.chunk.losses):
                tried = _tried(container, held, "lost with its container")
                self._attempts.after_loss(held, self._pool, left, tried)
            case Fate.LOST:
                message = f"the input was lost with its container {held.chunk.losses + 1} times in a row"
                told = failure.from_text("InternalFailure", message)
                self._dead.bury(held, left, _tried(container, held, "lost with its container"), message, told)
                self._end(container, held, index, Status.FAILURE, told, pieces)
            case Fate.TIMED_OUT:
                told = failure.from_text("FunctionTimeoutError", self._too_long)
                if not self._retried(container, held, index, payload, told):
                    self._end(container, held, index, Status.TIMEOUT, told, pieces)
            case Fate.FAILED:
                told = failure.from_text("RemoteError", verdict.message)
                if not self._retried(container, held, index, payload, told, crashed=True):
                    self._end(container, held, index, Status.FAILURE, told, pieces)

    def cancelled(self, held: Work, indices: list[int]) -> None:
        """End inputs of a call that was cancelled."""
        self._outbox.end(held, indices, Status.CANCELLED, CANCELLED)

    def _retried(
        self,
        container: Container,
        held: Work,
        index: int,
        payload: Payload,
        told: bytes,
        *,
        crashed: bool = False,
    ) -> bool:
        """Try a failed input again if its pool's policy allows one more; else say whether it is given up.

        Requests are answered once. What a function raises, when no retry was asked for, is its answer and
        nothing to keep.
        """
        if held.voided or held.chunk.method in self._pool.spec.webs:
            return False
        policy = self._pool.spec.retries
        delay = decisions.retry_delay(policy, held.chunk.failures)
        if delay is None:
            if why := decisions.given_up(policy, crashed=crashed):
                tried = _tried(container, held, reason_of(told))
                self._dead.bury(held, {index: payload}, tried, why, told)
            return False
        tried = _tried(container, held, reason_of(told))
        self._attempts.retry(held, self._pool, {index: payload}, delay, tried)
        return True

    def _end(
        self, container: Container, held: Work, index: int, status: Status, told: bytes, pieces: int
    ) -> None:
        items: list[Item] = [(index, status, (Format.FAILURE, told), pieces)]
        self._outbox.finish(held, items, _seconds(container), container.id)


def _seconds(container: Container) -> float:
    """Return for how long the input has run that a container began last."""
    return asyncio.get_running_loop().time() - container.progress


def _tried(container: Container, held: Work, reason: str) -> Try:
    """Return the attempt that a container has just made in vain."""
    now = time.time()
    return Try(held.chunk.attempt, container.id, now - _seconds(container), now, reason)
