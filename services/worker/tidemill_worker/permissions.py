"""What the code in a container may do on the bus: tables of subjects, and nothing beside them.

Ids of calls, callers and apps carry 80 random bits: who names one has been told it. Pools are checked
against the container's own workspace by whoever asks here (`pool_of`).
"""

import re
from collections.abc import Mapping

_NAME = r"[A-Za-z0-9_+-]{1,128}"


def _table(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns).replace("TOKEN", _NAME))


_REPLIES = r"tm\.replies\.TOKEN"
_RESULTS = r"tm\.results\.TOKEN\.(?:\d{1,19}|call|\*|>)"
_LOGS = r"tm\.logs\.TOKEN\.>"
_EVENTS = r"tm\.events\.(?:\*|TOKEN)\.TOKEN"
_BLOBS = r"\$O\.blobs\.C\.TOKEN"
_BLOB_NAMES = r"\$O\.blobs\.M\.[A-Za-z0-9_=-]{1,256}"
_INPUTS = r"tm\.inputs\.(?:cpu|gpu)\.\d{1,4}\.TOKEN\.(TOKEN)\.TOKEN\.\d{1,19}\.\d{1,9}"

_INPUT = _table(_INPUTS)
_PUBLISH = _table(r"tm\.demand\.TOKEN", r"tm\.credit\.TOKEN\.\d{1,19}")
_STORE = _table(_INPUTS, r"tm\.results\.TOKEN\.call", _BLOBS, _BLOB_NAMES)
_REQUEST = _table(r"tm\.registry\.TOKEN", r"tm\.scheduler\.cancel")
_SUBSCRIBE = _table(_REPLIES, _RESULTS, _LOGS, _EVENTS, r"tm\.trouble\.TOKEN")
_READ = {
    "REPLIES": _table(_REPLIES),
    "RESULTS": _table(_RESULTS),
    "LOGS": _table(_LOGS),
    "EVENTS": _table(_EVENTS),
    "OBJ_blobs": _table(_BLOBS, _BLOB_NAMES),
}
_PURGE = {"REPLIES": _table(_REPLIES), "OBJ_blobs": _table(_BLOBS)}

# Headers that mean something to the server; a rollup of more than one subject would empty a stream.
_HEADER_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_HEADER_VALUE = re.compile(r"[^\x00-\x1f\x7f]{0,4096}")
_SERVER_HEADERS = {"Nats-TTL": re.compile(r"\d{1,9}s"), "Nats-Rollup": re.compile("sub")}


def may_publish(subject: str, headers: Mapping[str, str]) -> bool:
    """Return whether a container may publish on a subject, with these headers."""
    return _PUBLISH.fullmatch(subject) is not None and may_carry(headers)


def may_store(subject: str, msg_id: str, headers: Mapping[str, str]) -> bool:
    """Return whether a container may store on a subject, with this message id and these headers."""
    return _STORE.fullmatch(subject) is not None and may_carry(headers) and is_header("Id", msg_id)


def may_carry(headers: Mapping[str, str]) -> bool:
    """Return whether these headers say nothing to the server but what is harmless."""
    return all(
        is_header(name, value) and (not name.lower().startswith("nats-") or _is_harmless(name, value))
        for name, value in headers.items()
    )


def is_header(name: str, value: str) -> bool:
    """Return whether a header is one: a line break in it would begin another."""
    return _HEADER_NAME.fullmatch(name) is not None and _HEADER_VALUE.fullmatch(value) is not None


def _is_harmless(name: str, value: str) -> bool:
    allowed = _SERVER_HEADERS.get(name)
    return allowed is not None and allowed.fullmatch(value) is not None


def pool_of(subject: str) -> str | None:
    """Return the pool whose inputs a subject is for, or None for any other subject."""
    found = _INPUT.fullmatch(subject)
    return found[1] if found else None


def may_request(subject: str) -> bool:
    """Return whether a container may ask on a subject."""
    return _REQUEST.fullmatch(subject) is not None


def may_subscribe(subject: str) -> bool:
    """Return whether a container may listen to a subject."""
    return _SUBSCRIBE.fullmatch(subject) is not None


def may_read(stream: str, subject: str) -> bool:
    """Return whether a container may read a stream's messages on a subject."""
    return stream in _READ and _READ[stream].fullmatch(subject) is not None


def may_purge(stream: str, subject: str) -> bool:
    """Return whether a container may remove a stream's messages on a subject."""
    return stream in _PURGE and _PURGE[stream].fullmatch(subject) is not None
