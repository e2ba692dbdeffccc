"""Web requests between a gateway and a container.

    gateway ── one input: head and first piece of the body ──> work queue ──> worker ──> runner
    gateway <── one message: head and whole body ────────────────────────────────────────┘   when it is small
    gateway <══ duplex stream (`tidemill._wire.duplex`) ══ worker ══ runner                  otherwise

The stream is opened by the runner. Its frames go to one subject for each gateway and one for each worker,
beside the id of the call, so that nobody subscribes for a request. The first that comes down is `OPENED`
with the worker to whom what goes up is sent.

    down   CONTROL head: status, headers, timing   PIECE body ...   END trailers
    down   CONTROL accept: subprotocol, headers     PIECE message ...   END code, reason
    up                                        PIECE body ...      END
    up                                        PIECE message ...   END code, reason
"""

from typing import NamedTuple

from tidemill._dataclass import dataclass
from tidemill._wire.specs import Parameter

HTTP, WEBSOCKET = "http", "websocket"  # kinds of requests, as ASGI names them

MAX_KEPT = 16 << 20  # bytes of a response that is kept
MAX_INLINE = 128 * 1024  # bytes of a response that travels in one message, and of a request's first piece

OPENED = 0  # the first element of what a worker sends first, in the place of a frame's kind: its id follows
HEAD, ACCEPT, CONTINUE = "head", "accept", "continue"  # names of control frames; the last asks for the body

# Tags of the pieces of a WebSocket's messages. A piece is never split again: its last flags belong to it.
TEXT, BINARY = 1, 2
FINAL = 4  # flag: the message ends with it
EMPTY = 8  # flag: its one byte stands for none, for there are no empty pieces

Headers = list[tuple[bytes, bytes]]


# Seconds: how long the app took up to the head of its response, and how long its container had been ready
# when the request came to it. From a new one the phases of its start follow (`phases.OF_START`).
Timing = tuple[float, ...]
NO_TIMING: Timing = (0.0, 0.0)


class Request(NamedTuple):
    """What an ASGI scope is made of, and the first piece of the body; `more` tells that others follow.

    With `keep` the response is to be kept: it comes whole, whatever its length, and never over a stream.
    """

    kind: str
    method: str
    scheme: str
    http_version: str
    path: str
    raw_path: bytes
    query: bytes
    root_path: str
    headers: Headers
    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    body: bytes = b""
    more: bool = False
    subprotocols: tuple[str, ...] = ()
    keep: bool = False


class Response(NamedTuple):
    """A whole response. A status of 0 stands for one that went over the stream."""

    status: int
    headers: Headers
    body: bytes = b""
    timing: Timing = NO_TIMING


@dataclass(frozen=True, slots=True)
class Route:
    """An entry of the `routes` bucket, under its label: which pool answers.

    `timeout` is how long it may take to answer, `startup_timeout` how long a container may take to start.
    `method` is that of a class, whose `parameters` come with the query.
    """

    label: str
    workspace: str
    environment: str
    app_id: str
    app_name: str
    function_id: str
    function: str
    pool: str
    prefix: str
    kind: str
    timeout: float = 300.0
    startup_timeout: float = 300.0
    requires_proxy_auth: bool = False
    method: str = ""
    parameters: tuple[Parameter, ...] = ()
