"""Chunks of inputs as they come out of their stream: anybody of a workspace may have written them."""

import msgspec

from tidemill._wire import subjects
from tidemill._wire.messages import Chunk

MAX_INDEX = 2**30  # of an input in its call
UNNAMED = "unknown", 0  # the call and the first index where a subject names none

_decode = msgspec.msgpack.Decoder(Chunk).decode


def read(subject: str, data: bytes, workspace: str) -> Chunk:
    """Return the chunk that was published on a subject of a workspace's pool; `ValueError` if it is none."""
    try:
        chunk = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error
    count = len(chunk.indices)
    if not count or count != len(chunk.inputs) or (count > 1 and count != len(set(chunk.indices))):
        raise ValueError("as many inputs as indices, each once, and at least one")
    if min(chunk.indices) < 0 or max(chunk.indices) > MAX_INDEX:
        raise ValueError(f"indices are between 0 and {MAX_INDEX:,}")
    if not subject.endswith(f".{subjects.token(chunk.call)}.{chunk.indices[0]}.{chunk.attempt}"):
        raise ValueError("the chunk is not the one of its subject")
    # User code may have written the chunk: outputs only go to a caller of the same workspace.
    if chunk.reply and not subjects.is_reply(workspace, chunk.reply):
        raise ValueError("outputs cannot be sent there")
    if chunk.gateway:
        subjects.token(chunk.gateway)
    return chunk


def named(subject: str) -> tuple[str, int]:
    """Return the call and the first index that a subject names, for a chunk that says nothing itself."""
    try:
        found = subjects.parse_inputs(subject)
        if 0 <= found.first <= MAX_INDEX:
            return subjects.token(found.call), found.first
    except ValueError:
        pass
    return UNNAMED
