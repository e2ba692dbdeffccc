"""What is held of the broker: delivered chunks, and the parts of them that containers have."""

from collections.abc import Hashable, Iterable
from math import inf

from tidemill._wire import subjects
from tidemill._wire.messages import Blob, Chunk, Payload, Try
from tidemill._wire.specs import Pool
from tidemill_common import chunks
from tidemill_common.bus.protocol import Delivery
from tidemill_worker.decisions import Killed

MAX_TRIES = 20  # earlier attempts that an input carries along


class Work:
    """One delivered chunk. It is acknowledged when none of its inputs is open and every store is answered.

    An input is open until its terminal output, or its next attempt, has been handed to the broker.
    """

    __slots__ = (
        "arrived",
        "chunk",
        "delivery",
        "key",
        "noted",
        "older",
        "open",
        "pool",
        "renew_at",
        "stores",
        "voided",
        "workspace",
    )

    def __init__(self, delivery: Delivery, pool: Pool, chunk: Chunk, now: float) -> None:
        self.delivery = delivery
        self.workspace = workspace = pool.workspace
        self.chunk = chunk
        self.pool = pool
        self.key: Hashable = (workspace, chunk.call, chunk.indices[0], chunk.attempt)
        self.open = len(chunk.indices)
        self.stores = 0
        self.arrived = now
        self.renew_at = now + 8.0
        self.voided = False  # its call was cancelled
        self.noted = False  # somebody may know of this web request: it gets a record of its own
        self.older: list[Delivery] = []  # earlier leases of the same message

    @property
    def untouched(self) -> bool:
        """Whether nothing of it has been finished, so that the whole message may be handed back."""
        return self.open == len(self.chunk.indices) and not self.stores


class Part:
    """Inputs of one chunk that go to one container together.

    `left` are the inputs that are not finished, in the order in which they run, as they came from the
    broker; `running` is the one that runs, or -1, `told` the last one of which a record says so. `fetched`
    has the payloads that lie in blobs, while they are on their way to the container. `until` is when the
    running input has had its time, or, with a `grace`, when its container is killed for that reason.
    """

    __slots__ = (
        "fetched",
        "grace",
        "left",
        "number",
        "placed",
        "running",
        "seconds",
        "told",
        "until",
        "work",
    )

    def __init__(self, work: Work, left: dict[int, Payload]) -> None:
        self.work = work
        self.left = left
        self.fetched: dict[int, bytes] | None = None
        self.number = 0
        self.running = -1
        self.told = -1
        self.until = inf  # in the loop's time
        self.grace: Killed | None = None
        self.placed = 0.0  # when it came to its pool, where that matters
        self.seconds = 0.0  # spent executing its inputs so far

    def first(self) -> int:
        """Return the input that runs first."""
        return next(iter(self.left))

    def unstarted(self) -> list[int]:
        """Return the inputs that have not begun."""
        return [index for index in self.left if index != self.running]

    def take(self, indices: Iterable[int]) -> "Part":
        """Return a part with some of these inputs, which leave this one."""
        return Part(self.work, {index: self.left.pop(index) for index in indices if index in self.left})

    def blobs(self) -> dict[int, Blob]:
        """Return the inputs whose payloads lie in the object store."""
        return {index: item.data for index, item in self.left.items() if isinstance(item.data, Blob)}

    def payloads(self) -> list[tuple[int, bytes | Blob]]:
        """Return the payloads as a container gets them: whole."""
        fetched = self.fetched or {}
        return [(item.format, fetched.get(index, item.data)) for index, item in self.left.items()]


def read(delivery: Delivery, pool: Pool, now: float) -> Work:
    """Return the work that a delivery to a pool brings; `ValueError` if it is none."""
    return Work(delivery, pool, chunks.read(delivery.subject, delivery.data, pool.workspace), now)


def whole_part(work: Work) -> Part:
    """Return all inputs of a chunk as one part."""
    return Part(work, dict(zip(work.chunk.indices, work.chunk.inputs, strict=True)))


def next_chunk(
    work: Work, left: dict[int, Payload], *, failures: int, losses: int, tried: Try | None = None
) -> Chunk:
    """Return the chunk under which some inputs are tried again; `tried` is the attempt that was in vain."""
    old = work.chunk
    tries = (*old.tries, tried)[-MAX_TRIES:] if tried else old.tries
    return Chunk(
        old.call,
        list(left),
        old.attempt + 1,
        old.reply,
        list(left.values()),
        old.sent,
        failures,
        losses,
        old.parent,
        old.root,
        tries,
        old.collect,
        old.gateway,
        old.method,
        old.direct,
    )


def input_subject(prefix: str, chunk: Chunk) -> str:
    """Return the subject on which a chunk is published."""
    return subjects.inputs(prefix, chunk.call, chunk.indices[0], chunk.attempt)


def input_key(chunk: Chunk) -> str:
    """Return the message id of a chunk."""
    return subjects.input_key(chunk.call, chunk.indices[0], chunk.attempt)
