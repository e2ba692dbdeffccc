"""Inputs that are given up, on their way to DEAD: with the reason, the failure and every attempt.

The letter is stored before the input is acknowledged, so that no death loses it; its caller has the
output by then.
"""

import time

from tidemill._wire import coding, subjects
from tidemill._wire.calls import DeadLetter
from tidemill._wire.messages import Payload, Try
from tidemill._wire.specs import Pool
from tidemill_common import chunks
from tidemill_common.bus.protocol import Delivery
from tidemill_worker.attempts import Attempts
from tidemill_worker.node import Node
from tidemill_worker.work import Work, next_chunk


class DeadLetters:
    """Buries the inputs of one pool."""

    def __init__(self, node: Node, pool: Pool, attempts: Attempts) -> None:
        self._node = node
        self._pool = pool
        self._attempts = attempts

    def bury(self, held: Work, left: dict[int, Payload], tried: Try, reason: str, told: bytes) -> None:
        """Keep one input where it can be looked at and replayed."""
        old = held.chunk
        chunk = next_chunk(held, left, failures=old.failures, losses=old.losses, tried=tried)
        (index,) = left
        letter = DeadLetter(
            self._pool.id, self._pool.app_id, old.call, index, time.time(), reason, coding.encode(chunk), told
        )
        subject = subjects.dead(self._pool.workspace, self._pool.id, old.call, index)
        self._node.metrics.buried.inc()
        self._attempts.keep(held, subject, coding.encode(letter), f"{old.call}.{index}.dead")


async def bury_unreadable(node: Node, pool: Pool, delivery: Delivery, reason: str) -> None:
    """Keep what cannot be read where it can be looked at, instead of delivering it for ever."""
    node.log.error("an input cannot be read", subject=delivery.subject, reason=reason)
    call, first = chunks.named(delivery.subject)
    letter = DeadLetter(pool.id, pool.app_id, call, first, time.time(), reason, delivery.data, readable=False)
    node.metrics.buried.inc()
    subject = subjects.dead(pool.workspace, pool.id, call, first)
    await node.bus.store(subject, coding.encode(letter))
    await delivery.ack()
