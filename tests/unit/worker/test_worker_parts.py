"""The worker's smaller parts, each by itself."""

import asyncio
import io
import socket
import tarfile
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import msgpack
import pytest
from waiting import PATIENCE

from tidemill import exception
from tidemill._container import sockets
from tidemill._wire.messages import Blob, Chunk, Payload
from tidemill._wire.scheduling import Capacity
from tidemill._wire.specs import FunctionSpec, ImageSpec, Pool, Resources, Source
from tidemill_worker import permissions, recipes, work
from tidemill_worker.archives import unpack
from tidemill_worker.capacity import Room
from tidemill_worker.deadlines import Deadlines
from tidemill_worker.devices import declared
from tidemill_worker.framing import Frame, FrameProtocol
from tidemill_worker.gpus import Gpus
from tidemill_worker.interpreters import OWN, Interpreters
from tidemill_worker.recent import Recent
from tidemill_worker.runtime_layer import make
from tidemill_worker.settings import Settings


def test_settings_read_gpus_and_labels_from_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_WORKER_GPUS", "H100:2, L4")
    monkeypatch.setenv("TIDEMILL_WORKER_LABELS", "disk=ssd,zone=b")
    settings = Settings()
    assert settings.worker_gpus == {"H100": 2, "L4": 1}
    monkeypatch.setenv("TIDEMILL_WORKER_GPUS", "")
    assert Settings().worker_gpus == {}
    monkeypatch.delenv("TIDEMILL_WORKER_GPUS")
    assert Settings().worker_gpus == "auto"
    assert settings.worker_labels == {"disk": "ssd", "zone": "b"}
    assert settings.data_dir.is_absolute()


def test_the_oldest_keys_are_forgotten_first() -> None:
    recent = Recent(2)
    for key in "abc":
        recent.add(key)
    assert [key in recent for key in "abc"] == [False, True, True]


def test_a_room_gives_what_it_has_and_takes_it_back() -> None:
    spec = FunctionSpec("f", Source(), resources=Resources(cpu=0.5, memory=100, gpus=(("H100", 2),)))
    pool = Pool("po-1", "ap-1", "app", "fu-1", "main", "main", "gpu-H100", 0, "INPUTS_gpu_0", "tm", spec)
    room = Room(1.0, 1_000, Gpus(declared({"H100": 3, "L4": 1}), lambda: 0.0))
    first = room.reserve("co-1", pool, overcommit=False)
    assert not isinstance(first, str)
    assert [device.number for device in first.devices] == [0, 1]
    assert room.free == Capacity(0.5, 900, {"H100": 1, "L4": 1})
    assert isinstance(room.reserve("co-2", pool, overcommit=False), str)
    room.release("co-1")
    room.release("co-1")
    assert room.free == room.total == Capacity(1.0, 1_000, {"H100": 3, "L4": 1})


# --- recipes


def test_a_recipe_is_read_from_its_layers() -> None:
    spec = ImageSpec(
        (
            ("debian_slim", {"python_version": "3.12"}),
            ("pip_install", {"packages": ["a", "b>=2"], "index_url": "https://x", "pre": True}),
            ("env", {"vars": {"A": "1", "B": "1"}}),
            ("uv_pip_install", {"packages": ["c"], "extra_index_url": ["https://y", "https://z"]}),
            ("env", {"vars": {"B": "2"}}),
            ("workdir", {"path": "/app"}),
        )
    )
    recipe = recipes.read(spec)
    assert (recipe.python, recipe.workdir, dict(recipe.env)) == ("3.12", "/app", {"A": "1", "B": "2"})
    first, second = recipe.installs
    assert first.packages == ("a", "b>=2")
    assert first.options == ("--default-index", "https://x", "--prerelease", "allow")
    assert second.options == ("--index", "https://y", "--index", "https://z")


def test_variables_do_not_make_another_environment_and_packages_do() -> None:
    base = ("debian_slim", {"python_version": None})
    plain = recipes.key(recipes.read(ImageSpec((base,))), "/python")
    assert recipes.key(recipes.read(ImageSpec((base, ("env", {"vars": {"A": "1"}})))), "/python") == plain
    assert recipes.key(recipes.read(ImageSpec((base,))), "/other") != plain
    packed = ImageSpec((base, ("pip_install", {"packages": ["a"]})))
    assert recipes.key(recipes.read(packed), "/python") != plain


def test_an_unknown_operation_is_refused_by_its_name() -> None:
    with pytest.raises(exception.ImageBuildError, match="no_such_thing"):
        recipes.read(ImageSpec((("no_such_thing", {}),)))


async def test_a_missing_python_is_refused_with_the_list_of_those_there() -> None:
    class Nothing(Interpreters):
        async def discover(self) -> None:
            return

    there = Nothing(None)  # type: ignore[arg-type]
    assert (await there.find("")).version == OWN
    with pytest.raises(exception.ImageBuildError, match=rf"Python 3\.99 is not on this worker: found {OWN}"):
        await there.find("3.99")


# --- bundles


def archive(**members: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
            else:
                entry.type, entry.linkname = content
                tar.addfile(entry)
    return buffer.getvalue()


def test_a_bundle_is_unpacked_below_its_folder(tmp_path: Path) -> None:
    unpack(archive(**{"a.py": b"1", "p/q/b.py": b"2"}), tmp_path / "made")
    assert (tmp_path / "made" / "p" / "q" / "b.py").read_bytes() == b"2"


@pytest.mark.parametrize(
    "members",
    [
        {"../out.py": b""},
        {"/etc/out.py": b""},
        {"a/../../out.py": b""},
        {"link": (tarfile.SYMTYPE, "/etc")},
        {"hard": (tarfile.LNKTYPE, "/etc/passwd")},
        {"device": (tarfile.CHRTYPE, "")},
    ],
    ids=str,
)
def test_what_leads_out_of_a_bundle_is_refused(tmp_path: Path, members: dict[str, Any]) -> None:
    with pytest.raises(exception.InvalidError):
        unpack(archive(**members), tmp_path / "made")
    assert not list((tmp_path / "made").rglob("*"))


def test_bytes_that_are_no_bundle_are_refused(tmp_path: Path) -> None:
    with pytest.raises(exception.InvalidError):
        unpack(b"x" * 2_000, tmp_path / "made")


def test_the_runtime_layer_has_what_containers_need_and_no_services(tmp_path: Path) -> None:
    layer = make(tmp_path)
    assert make(tmp_path) == layer
    there = {path.name for path in layer.iterdir()}
    assert {"tidemill", "msgpack", "cloudpickle", "tblib", "aiohttp"} <= there
    assert not {"nats", "msgspec", "tidemill_common", "tidemill_worker"} & there
    assert not (layer / "tidemill" / "cli").exists()
    assert list((layer / "tidemill" / "_container" / "__pycache__").glob("runner.*.pyc"))


# --- work

POOL = Pool(
    "po-1", "ap-1", "app", "fu-1", "main", "main", "cpu", 0, "INPUTS_cpu_0", "tm", FunctionSpec("f", Source())
)


class Delivered:
    """A delivery that was never on a server."""

    def __init__(self, chunk: object, subject: str = "tm.inputs.cpu.0.main.cpu.po-1.fc-1.0.0") -> None:
        self.subject = subject
        self.data: bytes = msgpack.packb(chunk)


def part(count: int) -> work.Part:
    inputs = [Payload(1, bytes([index])) for index in range(count)]
    held = work.read(Delivered(Chunk("fc-1", list(range(count)), 0, "", inputs, 0.0)), POOL, 0.0)  # type: ignore[arg-type]
    return work.whole_part(held)


def test_a_part_can_be_divided_without_losing_an_input() -> None:
    whole = part(5)
    whole.running = 0
    assert whole.unstarted() == [1, 2, 3, 4]
    taken = whole.take([1, 3, 9])
    assert (list(whole.left), list(taken.left)) == ([0, 2, 4], [1, 3])


def test_the_next_attempt_keeps_what_the_call_needs() -> None:
    whole = part(3)
    again = work.next_chunk(whole.work, {1: whole.left[1]}, failures=2, losses=0)
    assert (again.call, again.indices, again.attempt, again.failures) == ("fc-1", [1], 1, 2)
    assert again.inputs == [Payload(1, b"\x01")]


def test_payloads_from_blobs_stand_where_the_blobs_were() -> None:
    whole = part(2)
    whole.left[0] = Payload(2, Blob("a" * 64, "n", 3, 1))
    assert set(whole.blobs()) == {0}
    whole.fetched = {0: b"abc"}
    assert whole.payloads() == [(2, b"abc"), (1, b"\x01")]


@pytest.mark.parametrize(
    "chunk", [[], ["fc-1"], ["fc-1", [], 0, "", [], 0.0], ["fc-1", [0, 1], 0, "", [], 0.0]]
)
def test_what_is_no_chunk_is_refused(chunk: list[Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any of msgspec's
        work.read(Delivered(chunk), POOL, 0.0)  # type: ignore[arg-type]


# --- frames


async def pair(on_frame: Callable[[Frame], None]) -> tuple[FrameProtocol, socket.socket, asyncio.Event]:
    ours, theirs = socket.socketpair()
    lost = asyncio.Event()
    protocol = FrameProtocol(on_frame, lost.set)
    await asyncio.get_running_loop().create_unix_connection(lambda: protocol, sock=ours)
    theirs.setblocking(False)
    return protocol, theirs, lost


async def test_frames_arrive_whole_however_they_are_cut() -> None:
    frames: list[Frame] = []
    _, theirs, lost = await pair(frames.append)
    sent = [[1, "a"], [2, b"x" * 300_000], [3], [4, b"y" * 70_000], [5, ["z"]]]
    data = b"".join(sockets.pack(tuple(frame)) for frame in sent)
    loop = asyncio.get_running_loop()
    for start in range(0, len(data), 50_021):
        await loop.sock_sendall(theirs, data[start : start + 50_021])
    for byte in sockets.pack((6, "slowly")):
        await loop.sock_sendall(theirs, bytes([byte]))
    theirs.close()
    await asyncio.wait_for(lost.wait(), PATIENCE)
    assert frames == [*sent, [6, "slowly"]]


@pytest.mark.parametrize(
    "nonsense", [b"\x00\x00\x00\x01\xc1", b"\x00\x00\x00\x01\x05", b"\x00\x00\x00\x01\x90"]
)
async def test_what_is_no_frame_ends_the_connection(nonsense: bytes) -> None:
    _, theirs, lost = await pair(lambda _frame: None)
    await asyncio.get_running_loop().sock_sendall(theirs, nonsense)
    await asyncio.wait_for(lost.wait(), PATIENCE)
    theirs.close()


async def test_small_and_large_frames_are_written_in_order() -> None:
    protocol, theirs, _ = await pair(lambda _frame: None)
    frames = [(1, b"a" * 100), (2, b"b" * 1_000_000), (3, b"c")]
    for frame in frames:
        protocol.send(frame)
    theirs.setblocking(True)
    reading = sockets.read(theirs)
    found = [tuple(await asyncio.to_thread(next, reading)) for _ in frames]
    assert found == frames
    protocol.close()
    theirs.close()


# --- deadlines


class Watched:
    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.fired = asyncio.Event()

    def on_deadline(self) -> None:
        self.deadline = inf
        self.fired.set()


async def test_deadlines_fire_once_and_in_time_whatever_is_set_in_between() -> None:
    deadlines, now = Deadlines(), asyncio.get_running_loop().time()
    late, early, never = Watched(now + 60), Watched(now + 0.02), Watched(inf)
    for one in (late, early, never):
        deadlines.watch(one)
    await asyncio.wait_for(early.fired.wait(), PATIENCE)
    late.deadline = now + 0.04
    deadlines.hint(late.deadline)
    await asyncio.wait_for(late.fired.wait(), PATIENCE)
    assert not never.fired.is_set()
    deadlines.close()


async def test_a_deadline_that_was_moved_later_does_not_fire_early() -> None:
    loop = asyncio.get_running_loop()
    deadlines, one = Deadlines(), Watched(loop.time() + 0.01)
    deadlines.watch(one)
    later = one.deadline = loop.time() + 0.05
    await asyncio.wait_for(one.fired.wait(), PATIENCE)
    assert loop.time() >= later
    deadlines.close()


# --- permissions

MAY = permissions.of("main")


@pytest.mark.parametrize(
    "subject",
    [
        "tm.inputs.cpu.0.main.cpu.po-1.fc-1.0.0",
        "tm.results.main.fc-1.call",
        "$O.blobs_main.C.abc",
        "$O.blobs_main.M.YWJj",
    ],
)
def test_containers_may_store_what_calls_need(subject: str) -> None:
    assert MAY.may_store(subject, "id", {})


def test_containers_say_which_outputs_they_have_in_their_own_workspace_only() -> None:
    assert MAY.may_publish("tm.taken.main.wo-1", {})
    assert not MAY.may_publish("tm.taken.other.wo-1", {})
    assert not MAY.may_publish("tm.taken.main.wo-1", {"Nats-TTL": "never"})


@pytest.mark.parametrize(
    "subject",
    [
        "tm.inputs.cpu.0.main.cpu.po-1.fc-1.0.0.more",
        "tm.inputs.cpu.0.main.cpu.*.fc-1.0.0",
        "tm.results.main.fc-1.0",
        "tm.replies.main.cl-1",
        "tm.timers.main.fc-1.0.1",
        "tm.logs.main.ap-1.po-1.co-1",
        "tm.workers.wo-1.place",
        "$KV.pools.po-1",
        "$JS.API.STREAM.PURGE.REPLIES_main",
        "$O.blobs_main.C.*",
        "tm.demand.main.po-1",
    ],
)
def test_containers_may_store_nothing_else(subject: str) -> None:
    assert not MAY.may_store(subject, "id", {})


def test_headers_that_rule_the_server_are_refused() -> None:
    assert MAY.may_store("$O.blobs_main.M.YWJj", "id", {"Nats-Rollup": "sub"})
    assert not MAY.may_store("$O.blobs_main.M.YWJj", "id", {"Nats-Rollup": "all"})
    assert not MAY.may_store("$O.blobs_main.M.YWJj", "id", {"nats-rollup": "sub"})
    assert not MAY.may_store("tm.results.main.fc-1.call", "id", {"Other": "a\r\nNats-Rollup: all"})
    assert not MAY.may_store("tm.results.main.fc-1.call", "a\r\nNats-Rollup: all", {})
    assert not MAY.may_store("tm.results.main.fc-1.call", "id", {"Nats-Schedule": "@at 2030-01-01T00:00:00Z"})


def test_wildcards_are_for_results_logs_and_events_of_one_thing() -> None:
    assert MAY.may_subscribe("tm.results.main.fc-1.*")
    assert MAY.may_read("LOGS_main", "tm.logs.main.ap-1.>")
    assert not MAY.may_subscribe("tm.results.main.*.0")
    assert not MAY.may_subscribe("tm.replies.main.*")
    assert not MAY.may_subscribe("tm.outputs.main.*")
    assert not MAY.may_read("LOGS_main", "tm.logs.main.>")
    assert not MAY.may_purge("RESULTS_main", "tm.results.main.fc-1.0")


def test_the_pool_of_an_input_is_known_from_its_subject() -> None:
    assert MAY.pool_of("tm.inputs.gpu.3.main.gpu-H100+gpu-L4.po-1.fc-1.0.0") == "po-1"
    assert MAY.pool_of("tm.results.main.fc-1.call") is None
