"""The messages of the hot path: named tuples, packed as MessagePack arrays.

Callers, workers and containers exchange these for every input, so they carry no field names.
A field is only ever added at the end, with a default.
"""

import time
from enum import IntEnum
from typing import NamedTuple


class Format(IntEnum):
    """How the bytes of a payload are to be read.

    PLAIN and JSON are arguments from a caller that is no Python program: PLAIN is read as MSGPACK is, and
    what answers either is MSGPACK or FAILURE, never a pickle.
    """

    MSGPACK = 1
    PICKLE = 2
    FAILURE = 3
    JSON = 4
    PLAIN = 5
    HTTP = 6  # a `Request` or a `Response` of `tidemill._wire.web`


NO_PICKLE = frozenset((Format.JSON, Format.PLAIN))


class Extension(IntEnum):
    """The extension codes of MSGPACK and PLAIN. What is in them stands in `docs/other-languages.md`."""

    TUPLE = 1
    SET = 2
    FROZENSET = 3
    DATETIME = 4
    DATE = 5
    TIME = 6
    TIMEDELTA = 7
    DECIMAL = 8
    UUID = 9
    COMPLEX = 10
    NDARRAY = 11


class Status(IntEnum):
    """What an output says about its input. All but YIELD are terminal."""

    SUCCESS = 0
    FAILURE = 1
    TIMEOUT = 2
    CANCELLED = 3
    YIELD = 4
    DONE = 5


class Blob(NamedTuple):
    """Where a payload above the inline limit lies in the object store.

    `name` is the SHA-256 of the content in hexadecimal, `nuid` the token of its chunks' subject.
    """

    name: str
    nuid: str
    size: int
    chunks: int


class Payload(NamedTuple):
    """An encoded value: its format and either its bytes or the blob that holds them."""

    format: int
    data: bytes | Blob


class Try(NamedTuple):
    """An attempt at an input that was followed by another. Times are unix times of its worker."""

    attempt: int
    container: str
    started: float
    finished: float
    reason: str


class Chunk(NamedTuple):
    """Inputs of one call in one message.

    `indices` names the inputs, in the order of `inputs`. `reply` is the subject for their outputs, or
    empty when they are kept in RESULTS. `attempt` grows with every new publish of the same inputs;
    `failures` counts the tries that used up a retry, `losses` those lost with a container or worker.
    `parent` is the input id of the caller when it is itself a container, `root` the call it began with.
    `tries` are the attempts before this one, the last few of them.
    `collect` asks for all that a generator yields as one result, a list, instead of as a stream.
    `gateway` is where the duplex stream of a web request leads to (see `tidemill._wire.web`).
    `method` names the method of a class.
    `direct` tells that the caller takes outputs past the stream, and says which it has (see `Outputs`).
    """

    call: str
    indices: list[int]
    attempt: int
    reply: str
    inputs: list[Payload]
    sent: float
    failures: int = 0
    losses: int = 0
    parent: str = ""
    root: str = ""
    tries: tuple[Try, ...] = ()
    collect: bool = False
    gateway: str = ""
    method: str = ""
    direct: bool = False

    @classmethod
    def first(
        cls,
        call: str,
        indices: list[int],
        inputs: list[Payload],
        *,
        reply: str = "",
        origin: tuple[str, str] = ("", ""),
        collect: bool = False,
        method: str = "",
    ) -> "Chunk":
        """Return inputs at their first attempt. `origin` is the input that makes the call, and its root."""
        parent, root = origin
        sent, root = time.time(), root or call
        return cls(
            call, indices, 0, reply, inputs, sent, 0, 0, parent, root, (), collect, "", method, bool(reply)
        )


class Output(NamedTuple):
    """One result: the terminal one of an input, or one piece of a generator's stream.

    `piece` numbers the pieces of a stream from 0; the terminal DONE carries their count.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks an output
    status: int
    payload: Payload
    piece: int = 0


class Outputs(NamedTuple):
    """Outputs of one call in one message. `seconds` is the time spent executing all of them.

    What is not stored has a `number` of its `worker`, which keeps it until somebody tells it, by the number
    and on `subjects.taken`, to have it.
    """

    call: str
    attempt: int
    items: list[Output]
    seconds: float
    container: str = ""
    worker: str = ""
    number: int = 0


class Credit(NamedTuple):
    """How far the reader of a stream lets its sender go. Cumulative, so a repeat does no harm."""

    pieces: int
    bytes: int


class LogRecord(NamedTuple):
    """Some output of user code. `stream` is 1 (stdout), 2 (stderr) or 3 (said by Tidemill)."""

    stream: int
    text: str
    time: float
    input: str
    function: str
    container: str
