"""A worker on real NATS, with nobody else around: one for many tests, or one of a test's own."""

import asyncio
import io
import signal
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sandbox_stage import FIRST_ID
from small_wheels import write_wheel
from waiting import PATIENCE
from worker_stage import Stage

from tidemill._bus.protocol import BusError
from tidemill._wire.scheduling import WorkerState
from tidemill_common.bus.nats import NatsServiceBus, connect
from tidemill_local.broker import Broker, BrokerSettings

SETTINGS = {
    "TIDEMILL_WORKER_CPU": "2",
    "TIDEMILL_WORKER_MEMORY": "4096",
    "TIDEMILL_RUNTIME": "process",
    "TIDEMILL_ALLOW_UNISOLATED": "1",
}


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of all workers of this run: images and the runtime layer are made once."""
    return tmp_path_factory.mktemp("worker")


@pytest.fixture
def launch_worker(launch: Any, data: Path) -> Iterator[Callable[..., Any]]:
    """Start a worker with these settings beside the usual ones."""

    running: list[Any] = []
    tidying: list[Any] = []

    def start(**settings: str) -> Any:
        usual = {"TIDEMILL_DATA_DIR": str(data), **SETTINGS}
        worker = launch("-m", "tidemill_worker", **{**usual, **settings})
        running.append(worker)
        if settings.get("TIDEMILL_RUNTIME") == "bubblewrap":
            tidying.append(worker)
        return worker

    yield start
    for worker in tidying:  # what a killed one has on the machine stays until the next one comes
        if worker.process.poll() is None:
            worker.send(signal.SIGTERM)
            worker.process.wait(60)
    for worker in running:  # shown when the test fails
        print(worker.log.read_text())


@pytest.fixture
def sandboxing(launch_worker: Callable[..., Any]) -> Callable[..., Any]:
    """Start a worker of root's that makes sandboxes. At the end it goes in order: nothing is left.

    For that it needs the usual time: one that gives up draining leaves what it has not removed by then.
    """
    usual = {"TIDEMILL_RUNTIME": "bubblewrap", "TIDEMILL_WORKER_IDS": str(FIRST_ID)}
    return lambda **settings: launch_worker(**{**usual, **settings})


async def connected(broker: Broker) -> NatsServiceBus:
    return await connect(broker.url, "service", broker.settings.passwords["service"], timeout=PATIENCE)


@pytest.fixture
async def alone(broker: Broker) -> AsyncIterator[Stage]:
    """A stage without a worker."""
    bus = await connected(broker)
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
async def own_stage(alone: Stage, process: Any) -> Stage:
    """A stage with a worker of its own, which the test may end as it likes."""
    await alone.until(lambda: alone.states)
    return alone


class Standing:
    """A worker that many tests use one after another: each finds it without containers."""

    def __init__(self, broker: Broker, launch: Any, data: Path) -> None:
        self.broker = broker
        self._launch = launch
        self._data = data
        self._worker: Any = None
        self._states: dict[str, WorkerState] = {}

    async def stage(self) -> Stage:
        """Return a stage with the worker and nothing else."""
        bus = await connected(self.broker)
        stage = Stage(bus)
        await stage.open()
        if self._worker is None:
            settings = SETTINGS | {"TIDEMILL_DATA_DIR": str(self._data)}
            self._worker, self._states = self._launch("-m", "tidemill_worker", **settings), {}
            await self._worker.serving()
        stage.states |= self._states
        await stage.until(lambda: stage.states)
        return stage

    async def leave(self, stage: Stage) -> None:
        """End what a test has left, and the worker where that does not end."""
        try:
            await stage.clear()
            self._states = stage.states
        except (TimeoutError, BusError):
            self._worker.close()
            print(self._worker.log.read_text())
            self._worker = None
        await stage.bus.close()


@pytest.fixture(scope="session")
def standing(launcher: Any, data: Path) -> Iterator[Standing]:
    with tempfile.TemporaryDirectory(prefix="tm-") as folder:
        broker = Broker(BrokerSettings(Path(folder) / "nats"))
        asyncio.run(broker.start())
        launch = launcher(Path(folder), broker)
        yield Standing(broker, launch, data)
        launch.close()
        broker.kill()


@pytest.fixture
async def stage(standing: Standing) -> AsyncIterator[Stage]:
    """A stage with a worker, which the test leaves as it found it."""
    stage = await standing.stage()
    yield stage
    await standing.leave(stage)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel, `tidemill-probe`, and a source distribution, `tidemill-source-probe`."""
    folder = tmp_path_factory.mktemp("wheels")
    write_wheel(folder, "tidemill-probe", "ANSWER = 42\n")
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
