"""Builds of environments that end in the middle, wherever that is, or go on side by side."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import package_stage
import pytest
import waiting
from small_wheels import write_wheel

from tidemill_worker import debian
from tidemill_worker.benches import Benches
from tidemill_worker.children import children_of

POINTS = 4
MODULES = 100  # of a package: it takes a while to unpack, to link and to compile


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels of many modules each."""
    folder = tmp_path_factory.mktemp("parts")
    for number in range(POINTS + 1):
        more = {f"part{number}_{each}.py": "VALUE = 1\n" * 200 for each in range(MODULES)}
        write_wheel(folder, f"part{number}", "VALUE = 1\n", more)
    return folder


def builder(folder: Path, wheels: Path, *packages: str) -> subprocess.Popen[str]:
    program = [sys.executable, package_stage.__file__, str(folder), str(wheels), *packages]
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def contents(image: Path) -> dict[str, int]:
    """Return the size of every module of an image."""
    (packages,) = image.glob("lib/python*/site-packages")
    return {path.name: path.stat().st_size for path in packages.glob("part*.py")}


def victims(process: subprocess.Popen[str], whom: str) -> list[int]:
    programs = [child for child in children_of(process.pid) if child != process.pid]
    return {"program": programs, "builder": [process.pid], "all": [process.pid, *programs]}[whom]


def stop(process: subprocess.Popen[str], whom: str) -> str:
    """Kill a build or what it has started, and return what it said."""
    for pid in victims(process, whom):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return process.communicate(timeout=60)[0]


@pytest.mark.timeout(300)
def test_builds_that_are_killed_at_any_moment_leave_no_broken_image(parts: Path, tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    began = time.monotonic()
    with builder(tmp_path / "whole", parts, "part0") as whole:
        assert "built part0" in whole.communicate(timeout=60)[0]
    duration = time.monotonic() - began
    expected = {"part0.py": 10} | {f"part0_{each}.py": 2_000 for each in range(MODULES)}
    assert [contents(image) for image in made(tmp_path / "whole")] == [expected]

    folder = tmp_path / "worker"
    packages = [f"part{number}" for number in range(1, POINTS + 1)]
    for package in packages:
        whom = chance.choice(("program", "builder", "all"))
        with builder(folder, parts, package) as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0, duration))  # whenever that is, what follows holds
            said = stop(process, whom)
        assert "Traceback" not in said or whom != "program", said
        for image in made(folder):
            assert len(contents(image)) == len(expected), (whom, image)

    waiting.wait_until(lambda: package_stage.all_free(folder / "images" / ".benches"), 60)
    with builder(folder, parts, *packages) as last:
        said = last.communicate(timeout=120)[0]
    assert [f"built {package}" for package in packages] == [
        line for line in said.splitlines() if line.startswith(("built", "failed"))
    ]
    for image in made(folder):
        assert sorted(contents(image).values()) == sorted(expected.values())
        assert len(list(image.glob("lib/python*/site-packages/__pycache__/part*.pyc"))) == len(expected)
    assert left_in(folder) == []


def test_two_workers_that_want_one_image_at_the_same_time_build_it_once(parts: Path, tmp_path: Path) -> None:
    with builder(tmp_path, parts, "part0") as one, builder(tmp_path, parts, "part0") as other:
        said = [process.communicate(timeout=60)[0] for process in (one, other)]
    assert ["built part0" in each for each in said] == [True, True]
    assert ["Installed 1 package" in each for each in said].count(True) == 1
    assert len(list(made(tmp_path))) == 1


def made(folder: Path) -> Iterator[Path]:
    images = folder / "images"
    return (path for path in images.glob("*") if not path.name.startswith("."))


def left_in(folder: Path) -> list[Path]:
    """Return what should be gone after a build: benches, half made folders, marks."""
    images = folder / "images"
    marks = [path for path in (images / ".unsettled").iterdir() if path.is_symlink()]
    return [*images.glob(".*.*"), *images.glob(".benches/[!.]*/[0-9]*"), *marks]


@pytest.mark.skipif(
    os.geteuid() != 0 and not os.environ.get("CI"), reason="only root can make a small file system"
)
def test_a_full_disk_leaves_no_broken_image(parts: Path, tmp_path: Path) -> None:
    program = [sys.executable, package_stage.__file__, "--full", str(tmp_path), str(parts), "part0"]
    mount = 'mount -t tmpfs -o size=24m none "$0" && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mount, str(tmp_path), *program]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    said = [line for line in ran.stdout.splitlines() if line.startswith(("failed", "there", "built"))]
    assert [line.split()[0] for line in said] == ["failed", "there", "built"], ran
    assert "No space left" in said[0]
    assert said[1] == "there []"


async def test_a_program_that_outlives_its_worker_keeps_its_bench(tmp_path: Path) -> None:
    async with Benches(tmp_path).one("python") as bench:
        with subprocess.Popen(["sleep", "60"], pass_fds=(bench.lock,)) as survivor:
            os.dup2(os.open("/dev/null", os.O_RDONLY), bench.lock)  # as when the worker is killed
            (bench.folder / "written").touch()
            Benches(tmp_path)  # sweeps
            assert (bench.folder / "written").exists()
            async with Benches(tmp_path).one("python") as other:
                assert other.folder != bench.folder
            survivor.kill()
        Benches(tmp_path)
        assert not bench.folder.exists()
    shutil.rmtree(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="only root can mount")
def test_what_an_interrupted_base_left_mounted_is_not_emptied(tmp_path: Path) -> None:
    outside, place = tmp_path / "outside", tmp_path / "place"
    outside.mkdir()
    (outside / "device").touch()
    (place / "dev").mkdir(parents=True)
    (place / "null").touch()
    for source, target in ((outside, place / "dev"), (outside / "device", place / "null")):
        subprocess.run(["mount", "--bind", source, target], check=True)
    debian._clear(place)
    assert (outside / "device").exists()
    assert str(place) not in Path("/proc/self/mounts").read_text()
    assert list(place.iterdir()) == []
