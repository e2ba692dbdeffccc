"""Images with a root file system of their own, built by buildah in the ids of containers."""

import asyncio
import base64
import dataclasses
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import build_function_sample
import pytest
import root_stage
import waiting
from root_stage import RootStage
from worker_stage import WORKSPACE, Stage

from tidemill import Image, Secret, _source
from tidemill._bus import blobs
from tidemill._wire import ids
from tidemill.exception import ImageBuildError
from tidemill_worker import build_steps, debian, roots
from tidemill_worker.children import Children

pytestmark = [
    pytest.mark.skipif(
        bool(root_stage.missing()) and not os.environ.get("CI"), reason=root_stage.missing() or "all is there"
    ),
    pytest.mark.timeout(600),  # of which making the Debian tree takes most, once on a machine
]

PASSWORD = "$2y$05$P0EkywZ1EOuBMELIcEb7tuwNF9UKpgZzqUJqZJHw4yb.JLPtqMtne"
LOGIN = {"REGISTRY_USERNAME": "user", "REGISTRY_PASSWORD": "secret-of-the-registry"}
SLIM = Image.debian_slim("3.11")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("roots")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)  # half a gigabyte


@pytest.fixture
def stage(folder: Path) -> Iterator[RootStage]:
    stage = RootStage(folder)
    yield stage
    stage.roots.close()


def test_every_kind_of_layer_leaves_what_it_says_and_secrets_leave_nothing(
    stage: RootStage, tmp_path: Path
) -> None:
    (tmp_path / "run.sh").write_text("#!/bin/sh\necho ran as $(id -u) with $(ls /proc | grep -c '^[0-9]')\n")
    (tmp_path / "run.sh").chmod(0o755)
    token = Secret.from_dict({"TOKEN": "quite 'a' secret"})
    image = (
        SLIM.env({"COLOUR": "dark blue"})
        .workdir("/srv")
        .add_local_file(tmp_path / "run.sh", "/opt/", copy=True)
        .run_commands('/opt/run.sh; printf "$COLOUR" > colour; printf "$TOKEN" | wc -c', secrets=[token])
        .pip_install("six")
        .run_function(build_function_sample.leave_a_trace, args=("x",), kwargs={"times": 3})
        .dockerfile_commands(
            [
                "ARG NUMBER",
                "COPY run.sh /copied",
                "RUN --mount=type=secret,id=TOKEN wc -c < /run/secrets/TOKEN > /counted; echo counted",
                "RUN --mount=type=cache,target=/kept echo x >> /kept/it; wc -l < /kept/it; exit 0",
            ],
            context_files={"run.sh": str(tmp_path / "run.sh")},
            secrets=[token],
        )
    )
    root = asyncio.run(stage.build(image))
    assert (root.python, root.version, root.workdir) == ("/usr/bin/python3", "3.11", "/srv")
    assert root.env["COLOUR"] == "dark blue"
    assert stage.find(root, "srv/colour").read_text() == "dark blue"
    assert stage.find(root, "root/trace").read_text() == "xxx0"  # root in there, nobody here
    assert stage.find(root, "root/trace").stat().st_uid == root_stage.FIRST_ID
    assert stage.find(root, "copied").stat().st_mode & 0o111
    assert list(stage.find(root, "usr/local/lib/python3.11/dist-packages").glob("six.py"))
    assert stage.said.count("16") == 1  # the secret's characters, as a command of a layer counts them
    assert stage.find(root, "counted").read_text() == "16\n"  # and one of a Dockerfile
    assert "ran as 0 with" in stage.text()
    assert {"counted", "1"} <= set(stage.said)  # the last words of a Dockerfile's commands
    assert not stage.find(root, "run/tidemill").is_dir()
    found = subprocess.run(
        ["grep", "-rlF", "quite 'a' secret", stage.folder], capture_output=True, text=True, check=False
    )
    assert not found.stdout

    # What is there is not made again, and a layer that fails says which it is.
    stage.said.clear()
    with pytest.raises(ImageBuildError, match=r"(?s)layer 4, Image.run_commands\(\) failed.*\nno such luck"):
        asyncio.run(
            stage.build(
                SLIM.env({"COLOUR": "dark blue"})
                .workdir("/srv")
                .run_commands("echo no such luck >&2; exit 3")
            )
        )
    assert stage.said[0] == "building layer 4, Image.run_commands()"


def test_builds_at_the_same_time_share_what_they_have_in_common(stage: RootStage) -> None:
    common = SLIM.run_commands("echo common")

    async def both() -> None:
        await asyncio.gather(*(stage.build(common.run_commands(f"echo {each}")) for each in "ab"))

    asyncio.run(both())
    assert stage.said.count("common") == 1


def test_what_no_image_needs_leaves_the_store_and_what_is_built_on_stays(stage: RootStage) -> None:
    async def build() -> None:
        kept = await stage.build(SLIM.run_commands("echo kept > /mark"))
        await stage.build(SLIM.run_commands("echo gone > /mark").run_commands("echo on top"))
        (record := stage.folder / "kept-image").mkdir()
        (record / roots.RECORD).write_text(json.dumps(dataclasses.asdict(kept), default=str))
        await stage.roots.collect([record])
        assert stage.kept() == set(kept.steps)
        assert stage.find(kept, "mark").read_text() == "kept\n"

    asyncio.run(build())


def test_a_python_is_put_into_an_image_that_has_none(stage: RootStage, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "root.tar", "w", dereference=True) as tree:
        for program in map(shutil.which, ("sh", "ldconfig", "env")):
            assert program is not None
            tree.add(program, f"bin/{Path(program).name}")
            told = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
            for library in re.findall(r"(/\S+) \(0x", told):
                tree.add(library, library.lstrip("/"))
                for other in (
                    Path(library).parent.glob("lib[mdpru]*.so.[0-6]") if "libc.so" in library else ()
                ):
                    if re.match(r"lib(?:m|dl|pthread|rt|util)\.", other.name):  # of the C library as well
                        tree.add(other, str(other).lstrip("/"))
    (tmp_path / "Dockerfile").write_text("FROM scratch\nADD root.tar /\n")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    bare = Image.from_dockerfile(tmp_path / "Dockerfile", ignore=["Dockerfile"])
    with pytest.raises(ImageBuildError, match="the image has no Python"):
        asyncio.run(stage.build(bare))
    helped = Image.from_dockerfile(tmp_path / "Dockerfile", ignore=["Dockerfile"], add_python=version)
    root = asyncio.run(stage.build(helped.run_commands("python3 -c 'import ssl; print(6 * 7)'")))
    assert (root.python, root.version) == ("/usr/local/bin/python3", version)
    assert "42" in stage.said


def test_a_build_that_is_killed_leaves_nothing_behind(folder: Path) -> None:
    command = "touch /half; echo half done; exec sleep 60"
    program = [sys.executable, root_stage.__file__, str(folder), command]
    before = RootStage(folder).kept()
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as builder:
        assert builder.stdout is not None
        for line in builder.stdout:
            if line == "half done\n":
                break
        jail = _children(builder.pid)
        builder.send_signal(signal.SIGKILL)
    waiting.wait_until(lambda: not any(map(_runs, jail)), 60)
    stage = RootStage(folder)
    assert len(stage.kept() - before) <= 1  # the base, at most
    root = asyncio.run(stage.build(SLIM.run_commands("test ! -e /half && touch /whole")))
    assert stage.find(root, "whole").exists()
    assert stage.working() == []
    stage.roots.close()


def test_builds_that_are_killed_at_any_moment_leave_no_broken_layer(folder: Path) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    commands = [f"head -c 3000000 /dev/zero > /kept-{seed}-{number}" for number in range(2)]
    for command in commands:
        program = [sys.executable, root_stage.__file__, str(folder), command]
        with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as builder:
            with suppress(subprocess.TimeoutExpired):
                builder.wait(chance.uniform(0, 6))  # whenever that is, what follows holds
            family = [builder.pid, *_children(builder.pid)]
            with suppress(ProcessLookupError):
                os.kill(chance.choice(family), signal.SIGKILL)
            builder.communicate(timeout=400)  # it may be the first, which makes the Debian tree
        waiting.wait_until(lambda family=family: not any(map(_runs, family)), 60)
    stage = RootStage(folder)
    for number, command in enumerate(commands):
        root = asyncio.run(stage.build(Image.debian_slim().run_commands(command)))
        assert stage.find(root, f"kept-{seed}-{number}").stat().st_size == 3_000_000
    assert stage.working() == []
    assert not list(folder.glob("store-loans/.loan*"))
    stage.roots.close()


def _runs(pid: int) -> bool:
    """Return whether a process runs, and is no zombie of somebody else's."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _children(pid: int) -> list[int]:
    try:
        found = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []  # it ended just now
    return found + [below for child in found for below in _children(child)]


def test_images_of_a_registry_with_a_password(stage: RootStage, tmp_path: Path) -> None:
    (tmp_path / "users").write_text(f"user:{PASSWORD}\n")
    (tmp_path / "config.yml").write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/data}}}}\n"
        "http: {addr: '127.0.0.1:0'}\n"
        f"auth: {{htpasswd: {{realm: test, path: {tmp_path}/users}}}}\n"
    )
    with (tmp_path / "log").open("w") as log:
        registry = subprocess.Popen(
            ["docker-registry", "serve", tmp_path / "config.yml"], stdout=log, stderr=log
        )
    try:
        listening = re.compile(r"listening on 127\.0\.0\.1:(\d+)\D")
        told = waiting.wait_until(lambda: listening.search((tmp_path / "log").read_text()), 60)
        tag = f"127.0.0.1:{told[1]}/tiny:1"
        asyncio.run(_push(stage, tag))
        with pytest.raises(ImageBuildError, match="unauthorized"):
            asyncio.run(stage.build(Image.from_registry(tag)))
        with pytest.raises(ImageBuildError, match="the image has no Python") as caught:
            asyncio.run(stage.build(Image.from_registry(tag, Secret.from_dict(LOGIN))))
        assert "add_python" in caught.value.hint
        (tmp_path / "Dockerfile").write_text(f"FROM {tag}\nCOPY config.yml /\n")
        pulled = Image.from_dockerfile(tmp_path / "Dockerfile", registry_secret=Secret.from_dict(LOGIN))
        with pytest.raises(ImageBuildError, match="the image has no Python"):
            asyncio.run(stage.build(pulled))
        assert "COPY config.yml /" in stage.text()
    finally:
        registry.terminate()
        registry.wait(60)


CODE = """
import os, pathlib, sys

def look():
    import beside
    pathlib.Path("/data/mine").write_text("x")
    return {
        "python": sys.executable, "uid": os.getuid(), "cwd": os.getcwd(), "made": open("/made").read(),
        "data": sorted(os.listdir("/data")), "beside": beside.VALUE, "colour": os.environ["COLOUR"],
        "bash": os.path.exists("/usr/lib/python3.11/os.py"), "host": os.path.exists("/root/.cache"),
    }
"""


@pytest.mark.skipif(
    not os.environ.get("CI") and not all(map(shutil.which, ("bwrap", "nft"))), reason="no sandbox tier here"
)
async def test_a_function_runs_in_the_file_system_of_its_image(
    alone: Stage, launch_worker: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "builds").mkdir()
    await debian.tree(root_stage.TREES, root_stage.MIRROR, Children(), print)
    os.link(root_stage.TREES / "bookworm.tar", tmp_path / "builds" / "bookworm.tar")
    worker = launch_worker(TIDEMILL_DATA_DIR=str(tmp_path), TIDEMILL_RUNTIME="bubblewrap")
    await worker.serving()
    attached = []
    for place, files in (("/data", {"words": b"w"}), ("/root", {"beside.py": b"VALUE = 7\n"})):
        bundle = _source.pack(files)
        digest = hashlib.sha256(bundle).hexdigest()
        await blobs.put_named(alone.bus, WORKSPACE, digest, bundle)
        attached.append((place, digest))
    made = SLIM.env({"COLOUR": "blue"}).run_commands("printf $COLOUR > /made")
    image = replace(made._spec(), attached=tuple(attached))
    pool = await alone.pool(CODE, "look", image=image)
    await alone.ask_to_place(pool, container := ids.new(ids.CONTAINER))
    async with asyncio.timeout(400):
        await alone.until(lambda: [event for event in alone.events if event.container == container], 200)
    event = await alone.event(container)
    assert event.state == "started", event.reason
    assert (await alone.result(await alone.call(pool, ()))).value == {
        "python": "/usr/bin/python3", "uid": 0, "cwd": "/root", "made": "blue", "data": ["mine", "words"],
        "beside": 7, "colour": "blue", "bash": True, "host": False,
    }  # fmt: skip
    await alone.stop(container)
    await alone.event(container, "stopped")
    worker.send(signal.SIGTERM)
    assert await worker.ended() == 0
    await asyncio.to_thread(shutil.rmtree, tmp_path)


async def _push(stage: RootStage, tag: str) -> None:
    """Put an image with one file into a registry."""
    word = base64.b64encode(":".join(LOGIN.values()).encode()).decode()
    auth = json.dumps({"auths": {tag.partition("/")[0]: {"auth": word}}})
    script = f"""
{build_steps.write(f"{build_steps.OWN}/auth.json", auth)}
{build_steps.begin("scratch")}
m=$(buildah mount $c) && echo hello > $m/hello && buildah umount $c
buildah commit -q $c localhost/tiny
buildah push -q -D --authfile {build_steps.OWN}/auth.json --tls-verify=false localhost/tiny docker://{tag}
"""
    stage.jail.prepare()
    ran = await stage.jail.run(script, {}, stage.said.append, timeout=100)
    assert not ran.status, ran.complaints
