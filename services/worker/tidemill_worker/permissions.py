"""What the code in a container may do on the bus: tables of subjects, and nothing beside them.

All of it is bound to the workspace of the container's pool, which the worker was told by the scheduler.
Ids of calls, callers and apps carry 80 random bits: who names one has been told it. Whether a pool is one
of the workspace is in the pool's record, which whoever asks here looks at (`pool_of`): the subject of its
inputs is only what the container says.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from tidemill._wire import subjects

_NAME = r"[A-Za-z0-9_+-]{1,128}"

# Headers that mean something to the server; a rollup of more than one subject would empty a stream.
_HEADER_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_HEADER_VALUE = re.compile(r"[^\x00-\x1f\x7f]{0,4096}")
_SERVER_HEADERS = {
    "Nats-TTL": re.compile(r"\d{1,9}s"),
    "Nats-Rollup": re.compile("sub"),
    "Nats-Expected-Last-Subject-Sequence": re.compile(r"\d{1,19}"),
}


class Permissions:
    """What the containers of one workspace may do."""

    def __init__(self, workspace: str) -> None:
        ws = re.escape(subjects.workspace(workspace))
        replies = rf"tm\.replies\.{ws}\.TOKEN"
        results = rf"tm\.results\.{ws}\.TOKEN\.(?:\d{{1,19}}|call|\*|>)"
        logs = rf"tm\.logs\.{ws}\.TOKEN\.>"
        events = rf"tm\.events\.{ws}\.(?:\*|TOKEN)\.TOKEN"
        blobs = rf"\$O\.blobs_{ws}\.C\.TOKEN"
        blob_names = rf"\$O\.blobs_{ws}\.M\.[A-Za-z0-9_=-]{{1,256}}"
        inputs = rf"tm\.inputs\.(?:cpu|gpu)\.\d{{1,4}}\.{ws}\.TOKEN\.(TOKEN)\.TOKEN\.\d{{1,19}}\.\d{{1,9}}"
        self._input = _table(inputs)
        self._publish = _table(
            rf"tm\.demand\.{ws}\.TOKEN",
            rf"tm\.credit\.{ws}\.TOKEN\.\d{{1,19}}",
            rf"tm\.taken\.{ws}\.TOKEN",
        )
        self._store = _table(inputs, rf"tm\.results\.{ws}\.TOKEN\.call", blobs, blob_names)
        self._request = _table(rf"tm\.registry\.{ws}\.TOKEN", rf"tm\.scheduler\.{ws}\.(?:cancel|find_queued)")
        self._subscribe = _table(
            replies, rf"tm\.outputs\.{ws}\.TOKEN", results, logs, events, rf"tm\.trouble\.{ws}\.TOKEN"
        )
        self._read = {
            subjects.replies_stream(workspace): _table(replies),
            subjects.results_stream(workspace): _table(results),
            subjects.logs_stream(workspace): _table(logs),
            subjects.events_stream(workspace): _table(events),
            subjects.blobs_stream(workspace): _table(blobs, blob_names),
        }
        self._purge = {
            subjects.replies_stream(workspace): _table(replies),
            subjects.blobs_stream(workspace): _table(blobs),
        }

    def may_publish(self, subject: str, headers: Mapping[str, str]) -> bool:
        """Return whether a container may publish on a subject, with these headers."""
        return self._publish.fullmatch(subject) is not None and may_carry(headers)

    def may_store(self, subject: str, msg_id: str, headers: Mapping[str, str]) -> bool:
        """Return whether a container may store on a subject, with this message id and these headers."""
        return self._store.fullmatch(subject) is not None and may_carry(headers) and is_header("Id", msg_id)

    def pool_of(self, subject: str) -> str | None:
        """Return the pool whose inputs a subject is for, or None for any other subject."""
        found = self._input.fullmatch(subject)
        return found[1] if found else None

    def may_request(self, subject: str) -> bool:
        """Return whether a container may ask on a subject."""
        return self._request.fullmatch(subject) is not None

    def may_subscribe(self, subject: str) -> bool:
        """Return whether a container may listen to a subject."""
        return self._subscribe.fullmatch(subject) is not None

    def may_read(self, stream: str, subject: str) -> bool:
        """Return whether a container may read a stream's messages on a subject."""
        return stream in self._read and self._read[stream].fullmatch(subject) is not None

    def may_purge(self, stream: str, subject: str) -> bool:
        """Return whether a container may remove a stream's messages on a subject."""
        return stream in self._purge and self._purge[stream].fullmatch(subject) is not None


@lru_cache(maxsize=1_000)
def of(workspace: str) -> Permissions:
    """Return what the containers of a workspace may do."""
    return Permissions(workspace)


def _table(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns).replace("TOKEN", _NAME))


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
