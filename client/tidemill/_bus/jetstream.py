"""What JetStream says: its answers and refusals as values, and the requests that are more than one field."""

import base64
import json
import re
from datetime import UTC, datetime
from typing import Any

from tidemill._bus.framing import parse_headers
from tidemill._bus.protocol import (
    AlreadyHeld,
    BusError,
    PubAck,
    Refused,
    Stored,
    StreamFull,
    WrongSequence,
)

API = "$JS.API"

# The one text of refusal 10077 that means "accepted before"; every other means "full".
HELD_TEXT = "maximum messages per subject exceeded"

STORE_FAILED = 10077
WRONG_SEQUENCE = frozenset({10071, 10164})
NO_ROOM = frozenset({10023, 10028, 10047})  # resources of the server or account are used up
TOO_MANY_REQUESTS = 10167  # the stream's own queue is full for a moment
LEADERLESS = frozenset({10008, 10009, 10118})  # servers that are still choosing
NO_MESSAGE, NO_STREAM, NO_CONSUMER, STREAM_DIFFERS = 10037, 10059, 10014, 10058

BATCH, BATCH_BYTES = 1_000, 8 << 20  # of one direct get


class Busy(StreamFull):
    """The stream could not take it this moment: worth another try."""


class Leaderless(Refused):
    """The servers have nobody yet who could answer."""


_STORED = re.compile(rb'\{"stream":"([^"]+)", ?"seq":(\d+)\}')


def stored(data: bytes) -> PubAck:
    """Return a stream's answer to a publish, or raise what it says instead."""
    if plain := _STORED.fullmatch(data):
        return PubAck(plain[1].decode(), int(plain[2]), duplicate=False)
    answer = parsed(data)
    return PubAck(answer["stream"], answer["seq"], answer.get("duplicate", False))


def acknowledged(data: bytes) -> None:
    """Take a consumer's answer to an acknowledgement: it has none but that it answered."""


def parsed(data: bytes) -> dict[str, Any]:
    """Return an answer of the JetStream API, or raise the error in it."""
    answer: dict[str, Any] = json.loads(data)
    if error := answer.get("error"):
        raise refusal(error.get("err_code", error.get("code", 0)), error.get("description", ""))
    return answer


def refusal(code: int, description: str) -> BusError:
    """Return a refusal of JetStream as an exception."""
    if code == STORE_FAILED:
        return AlreadyHeld(description) if description == HELD_TEXT else StreamFull(description)
    if code in WRONG_SEQUENCE:
        return WrongSequence(description)
    if code == TOO_MANY_REQUESTS:
        return Busy(description)
    if code in NO_ROOM:
        return StreamFull(description)
    if code in LEADERLESS:
        return Leaderless(code, description)
    return Refused(code, description)


def message(answer: dict[str, Any]) -> Stored:
    """Return the message that an answer of `STREAM.MSG.GET` holds."""
    found = answer["message"]
    return Stored(
        subject=found["subject"],
        data=base64.b64decode(found.get("data", "")),
        sequence=found["seq"],
        time=unix_time(found["time"]),
        headers=parse_headers(base64.b64decode(found.get("hdrs", ""))),
    )


def piece(block: bytes, data: bytes) -> Stored:
    """Return one message of a batched direct get."""
    headers = parse_headers(block)
    return Stored(
        subject=headers["Nats-Subject"],
        data=data,
        sequence=int(headers["Nats-Sequence"]),
        time=unix_time(headers["Nats-Time-Stamp"]),
        headers=headers,
    )


def batch_request(subject: str, *, since: float | None, sequence: int) -> bytes:
    """Return the request for the next messages on `subject`, from a unix time or a sequence."""
    begin = {"start_time": rfc3339(since)} if since is not None else {"seq": sequence}
    return json.dumps({"batch": BATCH, "max_bytes": BATCH_BYTES, "next_by_subj": subject, **begin}).encode()


def rfc3339(time: float) -> str:
    """Return a unix time as JetStream takes it."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def unix_time(text: str) -> float:
    """Return JetStream's notation of a time as unix time."""
    return datetime.fromisoformat(text).timestamp()
