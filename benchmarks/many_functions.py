"""What ten thousand deployed functions cost the scheduler: `python benchmarks/many_functions.py`.

The number of apps and of functions in each may follow (1000 10).

Fills the bucket of pools as the registry does, half of the apps being of earlier versions, and prints the
scheduler's memory before and after, its processor time while nothing happens, and the same for one that
starts with all of them there. Nobody else reads the bucket: an idle worker does not notice.
"""

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path
from subprocess import DEVNULL, Popen

from tidemill._bus.protocol import BusError
from tidemill._wire import coding, ids, subjects
from tidemill._wire.control import FunctionHandle
from tidemill._wire.scheduling import GetSchedulerStatus
from tidemill._wire.specs import FunctionSpec, ImageSpec, Pool, Source
from tidemill_common import streams
from tidemill_common.bus.nats import connect
from tidemill_common.bus.protocol import ServiceBus
from tidemill_local.broker import Broker, BrokerSettings

SETTLE = 5.0  # seconds
IMAGE = ImageSpec(
    (
        ("debian_slim", {"python_version": "3.11"}),
        ("pip_install", {"packages": ["numpy", "pandas", "torch"]}),
    )
)


def pools(app_name: str, count: int, *, superseded: bool) -> list[Pool]:
    """Return the pools of one app; each record has the handles of all."""
    app, names = ids.new(ids.APP), [f"function_{number}" for number in range(count)]
    handles = {}
    for name in names:
        pool = ids.new(ids.POOL)
        prefix = subjects.inputs_prefix("main", "cpu", 0, pool)
        handles[name] = FunctionHandle(ids.new(ids.FUNCTION), name, app, pool, prefix)
    stream = subjects.inputs_stream("cpu", 0)
    return [
        Pool(
            one.pool, app, app_name, one.function_id, "main", "main", "cpu", 0, stream, one.prefix,
            FunctionSpec(name, Source(("a" * 64,), "package.app", name), IMAGE), handles,
            deployed=True, superseded=superseded,
        )
        for name, one in handles.items()
    ]  # fmt: skip


async def fill(bus: ServiceBus, apps: int, each: int) -> float:
    """Write the records; return their size in MB."""
    bucket, size = bus.bucket(streams.POOLS), 0
    for number in range(apps):
        records = [
            (pool.id, coding.encode(pool))
            for pool in pools(f"app-{number}", each, superseded=number % 2 == 1)
        ]
        size += sum(len(record) for _, record in records)
        await asyncio.gather(*(bucket.put(key, record) for key, record in records))
    return size / 1e6


async def scheduler(bus: ServiceBus, environment: dict[str, str]) -> Popen[bytes]:
    """Start a scheduler and return it when it leads."""
    process = Popen(
        [sys.executable, "-m", "tidemill_scheduler"], env=environment, stdout=DEVNULL, stderr=DEVNULL
    )
    request = coding.encode(GetSchedulerStatus())
    while True:
        try:
            await bus.request(subjects.scheduler("main", "status"), request, timeout=1.0)
            return process
        except BusError:
            await asyncio.sleep(0.02)


def memory(process: Popen[bytes]) -> float:
    """Return a process's own memory (PSS) in MB."""
    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e3


def processor(process: Popen[bytes]) -> float:
    """Return the processor time that a process has used in seconds."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def main(apps: int, each: int) -> None:
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as folder:
        broker = Broker(BrokerSettings(Path(folder) / "nats"))
        await broker.start()
        password = broker.settings.passwords["service"]
        bus = await connect(broker.url, "service", password)
        await streams.apply(bus, "main")
        environment = os.environ | {
            "TIDEMILL_NATS_URL": broker.url,
            "TIDEMILL_NATS_USER": "service",
            "TIDEMILL_NATS_PASSWORD": password,
            "TIDEMILL_DATA_DIR": folder,
        }
        process = await scheduler(bus, environment)
        print(f"a scheduler without pools: {memory(process):.0f} MB")
        print(f"{apps * each:,} records of {await fill(bus, apps, each):.0f} MB in all")
        await asyncio.sleep(SETTLE)
        before = processor(process)
        await asyncio.sleep(SETTLE)
        idle = (processor(process) - before) / SETTLE
        print(f"with them: {memory(process):.0f} MB, {100 * idle:.1f} % of a core while idle")
        process.kill()
        process.wait()
        began = time.monotonic()
        process = await scheduler(bus, environment)
        print(f"one that starts with them leads after {time.monotonic() - began:.1f} s", end=": ")
        await asyncio.sleep(SETTLE)
        print(f"{memory(process):.0f} MB")
        process.kill()
        process.wait()
        await bus.close()
        await broker.stop()


if __name__ == "__main__":
    sizes = [int(argument) for argument in sys.argv[1:]] or [1_000, 10]
    asyncio.run(main(*sizes))
