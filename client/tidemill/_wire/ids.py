"""Ids: a prefix that tells the type and a ULID, which sorts by time."""

import os
import re
import time

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"

_TOKEN_ID = re.compile(f"ak-([a-z0-9][a-z0-9-]{{0,31}})-[{_CROCKFORD}]{{26}}")

APP = "ap"
CALL = "fc"
CALLER = "cl"
CONTAINER = "co"
DEPLOYMENT = "de"
ENVIRONMENT = "en"
FUNCTION = "fu"
IMAGE = "im"
POOL = "po"
SCHEDULE = "sc"
SECRET = "st"  # noqa: S105 - a prefix
TOKEN = "ak"  # noqa: S105 - a prefix
WORKER = "wo"
WORKSPACE = "ws"


def new(prefix: str) -> str:
    """Return a new id such as `fc-01ja8m3k9x4q7w2v5y6z0b1c2d`: 48 bits of milliseconds, 80 random bits."""
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    return f"{prefix}-" + "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


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
