"""The object store: contents whole or an error, on NATS and without a server."""

import asyncio
import os

import pytest

from tidemill._bus import blobs
from tidemill._wire.messages import Blob
from tidemill.exception import DataLossError, NotFoundError
from tidemill_common import streams
from tidemill_common.bus.protocol import ServiceBus


@pytest.fixture
async def store(bus: ServiceBus) -> ServiceBus:
    await streams.apply_workspace(bus, WORKSPACE)
    return bus


WORKSPACE, STREAM = "main", "OBJ_blobs_main"
SIZES = [0, 1, blobs.CHUNK - 1, blobs.CHUNK, blobs.CHUNK + 1, 5 * blobs.CHUNK + 17]


@pytest.mark.parametrize("size", SIZES)
async def test_a_payload_comes_back_as_it_was(store: ServiceBus, size: int) -> None:
    data = os.urandom(size)
    blob = await blobs.put(store, WORKSPACE, data)
    assert (blob.size, blob.chunks) == (size, -(-size // blobs.CHUNK))
    assert await blobs.get(store, WORKSPACE, blob) == data


async def test_a_payload_above_the_window_comes_back(store: ServiceBus) -> None:
    data = os.urandom(blobs.WINDOW + 3 * blobs.CHUNK)
    assert await blobs.get(store, WORKSPACE, await blobs.put(store, WORKSPACE, data)) == data


async def test_a_deleted_payload_is_not_found(store: ServiceBus) -> None:
    blob = await blobs.put(store, WORKSPACE, b"x" * 100)
    await blobs.delete(store, WORKSPACE, blob)
    with pytest.raises(NotFoundError):
        await blobs.get(store, WORKSPACE, blob)


async def test_a_missing_chunk_is_an_error(store: ServiceBus) -> None:
    blob = await blobs.put(store, WORKSPACE, os.urandom(3 * blobs.CHUNK))
    first = await anext(aiter(store.read(STREAM, f"$O.blobs_main.C.{blob.nuid}")))
    await store.purge(STREAM, f"$O.blobs_main.C.{blob.nuid}", below=first.sequence + 1)
    with pytest.raises(DataLossError):
        await blobs.get(store, WORKSPACE, blob)


async def test_changed_content_is_an_error(store: ServiceBus) -> None:
    blob = await blobs.put(store, WORKSPACE, b"as it was")
    wrong = Blob("0" * 64, blob.nuid, blob.size, blob.chunks)
    with pytest.raises(DataLossError):
        await blobs.get(store, WORKSPACE, wrong)


async def test_a_bundle_is_stored_once_under_its_name(store: ServiceBus) -> None:
    name = f"bundle-{os.urandom(8).hex()}"
    assert not await blobs.has(store, WORKSPACE, name)
    await blobs.put_named(store, WORKSPACE, name, b"code")
    assert await blobs.has(store, WORKSPACE, name)
    await blobs.put_named(store, WORKSPACE, name, b"not stored: the name is there")
    assert await blobs.get_named(store, WORKSPACE, name) == b"code"
    assert await blobs.delete_named(store, WORKSPACE, await _seen(store, name))
    assert not await blobs.has(store, WORKSPACE, name)
    with pytest.raises(NotFoundError):
        await blobs.get_named(store, WORKSPACE, name)


async def _seen(store: ServiceBus, name: str) -> blobs.Named:
    (found,) = [one async for one in blobs.all_named(store, WORKSPACE) if one.name == name]
    return found


async def test_a_bundle_that_is_wanted_again_is_not_removed_by_who_saw_it_before(
    store: ServiceBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"bundle-{os.urandom(8).hex()}"
    await blobs.put_named(store, WORKSPACE, name, b"code")
    before = await _seen(store, name)
    monkeypatch.setattr(blobs, "FRESH", -3_600.0)  # it is old
    await blobs.put_named(store, WORKSPACE, name, b"code")
    assert (await _seen(store, name)).blob == before.blob
    assert not await blobs.delete_named(store, WORKSPACE, before)
    assert await blobs.get_named(store, WORKSPACE, name) == b"code"
    assert await blobs.delete_named(store, WORKSPACE, await _seen(store, name))
    await blobs.put_named(store, WORKSPACE, name, b"code")
    assert await blobs.get_named(store, WORKSPACE, name) == b"code"


async def test_a_bundle_stored_twice_at_the_same_moment_is_there_once(store: ServiceBus) -> None:
    name = f"bundle-{os.urandom(8).hex()}"
    await asyncio.gather(
        *(blobs.put_named(store, WORKSPACE, name, b"code " + name.encode()) for _ in range(3))
    )
    assert await blobs.get_named(store, WORKSPACE, name) == b"code " + name.encode()
    chunks = [one async for one in store.read(STREAM, "$O.blobs_main.C.*") if name.encode() in one.data]
    assert len(chunks) == 1


async def test_a_payload_can_be_read_more_often_than_a_stream_has_consumers(store: ServiceBus) -> None:
    blob = await blobs.put(store, WORKSPACE, b"x" * 10)
    for _ in range(1_200):
        assert await blobs.get(store, WORKSPACE, blob) == b"x" * 10
