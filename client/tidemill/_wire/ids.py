"""Ids: a prefix that tells the type and a ULID, which sorts by time."""

import os
import time

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"

APP = "ap"
CALL = "fc"
CALLER = "cl"
CONTAINER = "co"
DEPLOYMENT = "de"
ENVIRONMENT = "en"
FUNCTION = "fu"
IMAGE = "im"
POOL = "po"
STREAM = "st"
WORKER = "wo"
WORKSPACE = "ws"


def new(prefix: str) -> str:
    """Return a new id such as `fc-01ja8m3k9x4q7w2v5y6z0b1c2d`: 48 bits of milliseconds, 80 random bits."""
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    return f"{prefix}-" + "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def created(id: str) -> float:  # noqa: A002 - what it is
    """Return the unix time at which an id was made; `ValueError` if it is none."""
    number = 0
    for letter in id.partition("-")[2][:10]:
        number = number << 5 | _CROCKFORD.index(letter)
    return number / 1000


def input_id(call: str, index: int) -> str:
    """Return the id of one input of a call, the form that `current_input_id()` shows."""
    return f"in-{call.partition('-')[2]}-{index}"
