"""Ids: a prefix that tells the type and a ULID, which sorts by time."""

import hashlib
import os
import re
import time

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = tuple(one + other for one in _CROCKFORD for other in _CROCKFORD)  # of letters, by 10 bits

_SHIFTS = range(120, -1, -10)
_TOKEN_ID = re.compile(f"ak-([a-z0-9][a-z0-9-]{{0,31}})-[{_CROCKFORD}]{{26}}")

APP = "ap"
CALL = "fc"
CALLER = "cl"
CONTAINER = "co"
DEPLOYMENT = "de"
ENVIRONMENT = "en"
FEED = "fd"
FUNCTION = "fu"
GATEWAY = "ga"
IMAGE = "im"
POOL = "po"
PROXY_TOKEN = "pt"  # noqa: S105 - a prefix
SCHEDULE = "sc"
SECRET = "st"  # noqa: S105 - a prefix
STREAM = "sm"
TOKEN = "ak"  # noqa: S105 - a prefix
WORKER = "wo"
WORKSPACE = "ws"


def new(prefix: str) -> str:
    """Return a new id such as `fc-01ja8m3k9x4q7w2v5y6z0b1c2d`: 48 bits of milliseconds, 80 random bits."""
    return _id(prefix, time.time_ns() // 1_000_000, os.urandom(10))


def _id(prefix: str, milliseconds: int, random: bytes) -> str:
    number = milliseconds << 80 | int.from_bytes(random, "big")
    return f"{prefix}-" + "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


def created(id: str) -> float:  # noqa: A002 - what it is
    """Return the unix time at which an id was made; `ValueError` if it is none."""
    number = 0
    for letter in id.partition("-")[2][:10]:
        number = number << 5 | _CROCKFORD.index(letter)
    return number / 1000


def derived(prefix: str, moment: float, *parts: str) -> str:
    """Return the id that follows from a unix time and some texts: the same for the same."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return _id(prefix, int(moment * 1_000), digest[:10])


def related(prefix: str, other: str) -> str:
    """Return the id of the one thing of another kind that belongs to something."""
    return f"{prefix}-{other.partition('-')[2]}"


def new_token(workspace: str) -> str:
    """Return the id of a new token of a workspace, which names it: `ak-<workspace>-<ULID>`."""
    return new(f"{TOKEN}-{workspace}")


def workspace_of_token(token_id: str) -> str:
    """Return the workspace that a token is of; `ValueError` if this is not the id of such a token."""
    found = _TOKEN_ID.fullmatch(token_id)
    if found is None:
        raise ValueError(f"not the id of a token: {token_id!r}")
    return found[1]


def input_id(call: str, index: int) -> str:
    """Return the id of one input of a call, the form that `current_input_id()` shows."""
    return f"in-{call.partition('-')[2]}-{index}"


def parse_input_id(value: str) -> tuple[str, int]:
    """Return the call and the index that an input's id names; `ValueError` if it is none."""
    prefix, _, rest = value.partition("-")
    call, dash, index = rest.rpartition("-")
    if prefix != "in" or not dash or not index.isdecimal() or not call:
        raise ValueError(f"not the id of an input: {value!r}")
    return f"{CALL}-{call}", int(index)


def time_of(value: str) -> float:
    """Return the unix time at which an id was made; `ValueError` if it is none."""
    ulid = value.partition("-")[2]
    if len(ulid) != 26 or any(letter not in _CROCKFORD for letter in ulid):
        raise ValueError(f"not an id: {value!r}")
    number = 0
    for letter in ulid[:10]:
        number = number << 5 | _CROCKFORD.index(letter)
    return number / 1_000


def first_at(prefix: str, time_: float) -> str:
    """Return the lowest id that can have been made at a unix time or later: ids sort by time."""
    number = max(0, int(time_ * 1_000))
    return f"{prefix}-" + "".join(_CROCKFORD[number >> shift & 31] for shift in range(45, -1, -5)) + "0" * 16
