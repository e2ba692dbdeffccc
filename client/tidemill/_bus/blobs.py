"""Payloads and code bundles too large for a message: one bucket of the NATS object store per workspace.

The layout is the object store's own, so the `nats` command reads what has a name. Works on any bus, in
containers too. Chunks of one blob are published without waiting for each other; the order in which the
stream has them is checked against the acknowledgements, the content against its digest.
"""

import asyncio
import base64
import hashlib
import json
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from tidemill._bus.protocol import Bus, PubAck, Stored, WrongSequence
from tidemill._wire import subjects
from tidemill._wire.messages import Blob
from tidemill.exception import DataLossError, NotFoundError

CHUNK = 512 << 10  # bytes; the object store's usual 128 KiB and whole megabytes are both a quarter slower
WINDOW = 16 << 20  # bytes of one blob that are on their way to the server
KEPT = 7 * 86_400  # seconds that a payload is kept; what has a name stays until nobody refers to it
FRESH = 6 * 3_600  # seconds after which a record of what has a name is written anew, if it is wanted
PUT_TRIES = 3
GET_DELAYS = (0.05, 1.0)  # seconds: a replica may lag behind the leader that took the blob

_ROOM = 1024  # bytes left for headers below `max_payload`


async def put(bus: Bus, workspace: str, data: bytes) -> Blob:
    """Store a payload; it is kept for seven days."""
    return await _put(bus, workspace, data, {"Nats-TTL": f"{KEPT}s"})


async def get(bus: Bus, workspace: str, blob: Blob) -> bytes:
    """Return a payload. `NotFoundError` when it is not there, `DataLossError` when it is not what it was."""
    for delay in (*GET_DELAYS, None):
        reading = bus.read(subjects.blobs_stream(workspace), subjects.blob_chunks(workspace, blob.nuid))
        chunks = [stored.data async for stored in reading]
        if len(chunks) >= blob.chunks or delay is None:
            break
        await asyncio.sleep(delay)
    if not chunks and blob.chunks:
        raise NotFoundError(
            f"the payload {blob.name[:12]} is no longer stored",
            hint="large arguments and results are kept for 7 days: call the function again",
        )
    return await _checked(blob, chunks)


async def delete(bus: Bus, workspace: str, blob: Blob) -> None:
    """Remove a payload that nobody will ask for again."""
    await _purge_chunks(bus, workspace, blob.nuid)


class Named(NamedTuple):
    """What is stored under a name, as its record was seen. `time` is when the server took the record."""

    name: str
    blob: Blob
    record: bytes
    sequence: int
    time: float


async def has(bus: Bus, workspace: str, name: str) -> bool:
    """Say whether something is stored under a name."""
    return await _find(bus, workspace, name) is not None


async def put_named(bus: Bus, workspace: str, name: str, data: bytes) -> None:
    """Store something under a name that tells its content, and see to it that it stays for now.

    What is there already is not stored again. Its record is written anew now and then, so that nobody who
    tidies up removes what somebody is about to use.
    """
    for _ in range(PUT_TRIES):
        stored = await bus.last(subjects.blobs_stream(workspace), _meta(workspace, name))
        found = _named(stored) if stored is not None else None
        try:
            if found is None:
                await _put_named(bus, workspace, name, data, stored.sequence if stored else 0)
            elif time.time() - found.time > FRESH:
                await _record(bus, workspace, found.name, found.blob.nuid, found.record, found.sequence)
        except WrongSequence:  # somebody else stored it, or removed it
            continue
        return
    raise DataLossError(f"others keep writing what is stored under {name}")


async def get_named(bus: Bus, workspace: str, name: str) -> bytes:
    """Return what is stored under a name. Raises as `get` does."""
    if (found := await _find(bus, workspace, name)) is None:
        raise NotFoundError(f"nothing is stored under {name}", hint="deploy the app again, which stores it")
    return await get(bus, workspace, found.blob)


async def all_named(bus: Bus, workspace: str) -> AsyncIterator[Named]:
    """Yield everything that is stored under a name, the longest unasked for first."""
    every = subjects.blob_record(workspace, subjects.EVERY)
    async for stored in bus.read(subjects.blobs_stream(workspace), every):
        if (found := _named(stored)) is not None:
            yield found


async def delete_named(bus: Bus, workspace: str, seen: Named) -> bool:
    """Remove what is stored under a name, unless it was asked for since it was seen; return whether it is."""
    stream, subject = subjects.blobs_stream(workspace), _meta(workspace, seen.name)
    await bus.purge(stream, subject, below=seen.sequence + 1)
    if await bus.last(stream, subject) is not None:
        return False
    await delete(bus, workspace, seen.blob)
    return True


async def _put_named(bus: Bus, workspace: str, name: str, data: bytes, sequence: int) -> None:
    """Store something and its record, which is to follow the one with this sequence."""
    blob = await _put(bus, workspace, data, {})
    digest = base64.urlsafe_b64encode(bytes.fromhex(blob.name)).decode()
    meta = {
        "name": name,
        "bucket": subjects.blobs_bucket(workspace),
        "nuid": blob.nuid,
        "size": blob.size,
        "chunks": blob.chunks,
        "digest": f"SHA-256={digest}",
        "mtime": datetime.now(UTC).isoformat(),
        "options": {"max_chunk_size": CHUNK},
    }
    try:
        await _record(bus, workspace, name, blob.nuid, json.dumps(meta).encode(), sequence)
    except WrongSequence:
        await delete(bus, workspace, blob)
        raise


async def _record(bus: Bus, workspace: str, name: str, nuid: str, record: bytes, sequence: int) -> None:
    headers = {"Nats-Rollup": "sub", "Nats-Expected-Last-Subject-Sequence": str(sequence)}
    subject, msg_id = _meta(workspace, name), f"{nuid}.{sequence}.meta"
    await bus.store(subject, record, msg_id=msg_id, headers=headers)


async def _find(bus: Bus, workspace: str, name: str) -> Named | None:
    stored = await bus.last(subjects.blobs_stream(workspace), _meta(workspace, name))
    return _named(stored) if stored is not None else None


def _named(stored: Stored) -> Named | None:
    meta = json.loads(stored.data)
    if meta.get("deleted"):  # as the `nats` command leaves it
        return None
    digest = base64.urlsafe_b64decode(meta["digest"].removeprefix("SHA-256="))
    blob = Blob(digest.hex(), meta["nuid"], meta["size"], meta["chunks"])
    return Named(meta["name"], blob, stored.data, stored.sequence, stored.time)


async def _put(bus: Bus, workspace: str, data: bytes, headers: Mapping[str, str]) -> Blob:
    for _ in range(PUT_TRIES):
        nuid = secrets.token_hex(11)
        digest, acks = await _send(bus, subjects.blob_chunks(workspace, nuid), data, headers)
        sequences = [ack.sequence for ack in acks]
        if sequences == sorted(sequences):
            return Blob(digest, nuid, len(data), len(acks))
        await _purge_chunks(bus, workspace, nuid)
    raise DataLossError("the object store does not keep the order of chunks")


async def _send(bus: Bus, subject: str, data: bytes, headers: Mapping[str, str]) -> tuple[str, list[PubAck]]:
    """Publish all chunks, a window of them at a time; return the digest and the acknowledgements."""
    digest = hashlib.sha256()
    acks: list[PubAck] = []
    on_the_way: deque[asyncio.Future[PubAck]] = deque()
    size = min(CHUNK, bus.max_payload - _ROOM)
    nuid = subject.rpartition(".")[2]
    try:
        for number, start in enumerate(range(0, len(data), size)):
            chunk = data[start : start + size]
            msg_id = f"{nuid}.{number}"
            on_the_way.append(bus.store(subject, chunk, msg_id=msg_id, headers=headers))
            digest.update(chunk)
            if len(on_the_way) * size >= WINDOW:
                acks.append(await on_the_way.popleft())
        while on_the_way:
            acks.append(await on_the_way.popleft())
    finally:
        for future in on_the_way:
            future.cancel()
    return digest.hexdigest(), acks


async def _checked(blob: Blob, chunks: list[bytes]) -> bytes:
    """Return the chunks as one, if they are what was stored."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        if len(chunks) > 1:
            await asyncio.sleep(0)  # hashing a megabyte takes the loop for half a millisecond
    data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    if len(data) != blob.size or digest.hexdigest() != blob.name:
        raise DataLossError(f"the payload {blob.name[:12]} is damaged: {len(data)} of {blob.size} bytes")
    return data


async def _purge_chunks(bus: Bus, workspace: str, nuid: str) -> None:
    await bus.purge(subjects.blobs_stream(workspace), subjects.blob_chunks(workspace, nuid))


def _meta(workspace: str, name: str) -> str:
    return subjects.blob_record(workspace, base64.urlsafe_b64encode(name.encode()).decode())
