"""One worker in a process of its own, on real NATS, with nobody else around."""

import io
import tarfile
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from worker_stage import Stage

from tidemill_common.bus.nats import connect
from tidemill_local.broker import Broker


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of all workers of this run: images and the runtime layer are made once."""
    return tmp_path_factory.mktemp("worker")


@pytest.fixture
def launch_worker(launch: Any, data: Path) -> Iterator[Callable[..., Any]]:
    """Start a worker with these settings beside the usual ones."""

    running: list[Any] = []

    def start(**settings: str) -> Any:
        usual = {
            "TIDEMILL_DATA_DIR": str(data),
            "TIDEMILL_WORKER_CPU": "2",
            "TIDEMILL_WORKER_MEMORY": "4096",
            "TIDEMILL_RUNTIME": "process",
        }
        running.append(launch("-m", "tidemill_worker", **{**usual, **settings}))
        return running[-1]

    yield start
    for worker in running:  # shown when the test fails
        print(worker.log.read_text())


@pytest.fixture
async def alone(broker: Broker) -> AsyncIterator[Stage]:
    """A stage without a worker."""
    bus = await connect(broker.url, "service", broker.settings.passwords["service"])
    stage = Stage(bus)
    await stage.open()
    yield stage
    await bus.close()


@pytest.fixture
async def process(alone: Stage, launch_worker: Callable[..., Any]) -> Any:
    """The worker's process."""
    worker = launch_worker()
    await worker.serving()
    return worker


@pytest.fixture
async def stage(alone: Stage, process: Any) -> Stage:
    """A stage with one worker."""
    await alone.until(lambda: alone.states)
    return alone


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel, `tidemill-probe`, and a source distribution, `tidemill-source-probe`."""
    folder = tmp_path_factory.mktemp("wheels")
    info = "tidemill_probe-1.0.dist-info"
    files = {
        "tidemill_probe.py": "ANSWER = 42\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tidemill-probe\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / "tidemill_probe-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in (*files.items(), (f"{info}/RECORD", record)):
            wheel.writestr(name, text)
    _write_source_distribution(folder)
    return folder


BACKEND = """
import os, zipfile

NAME = "tidemill_source_probe"
METADATA = "Metadata-Version: 2.1\\nName: tidemill-source-probe\\nVersion: 1.0\\n"


def build_wheel(folder, config_settings=None, metadata_directory=None):
    wheel, info = f"{NAME}-1.0-py3-none-any.whl", f"{NAME}-1.0.dist-info"
    with zipfile.ZipFile(os.path.join(folder, wheel), "w") as file:
        file.writestr(f"{NAME}.py", "ANSWER = 43\\n")
        file.writestr(f"{info}/METADATA", METADATA)
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        file.writestr(f"{info}/RECORD", "")
    return wheel
"""


def _write_source_distribution(folder: Path) -> None:
    name = "tidemill_source_probe-1.0"
    files = {
        "PKG-INFO": "Metadata-Version: 2.1\nName: tidemill-source-probe\nVersion: 1.0\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "tidemill-source-probe"\nversion = "1.0"\n',
        "backend.py": BACKEND,
    }
    with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as archive:
        for file, text in files.items():
            entry = tarfile.TarInfo(f"{name}/{file}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
