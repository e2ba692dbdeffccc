"""Requests through the gateway to a FastAPI app in a container, and to the same app directly on uvicorn.

hello         wrk, 64 connections and one; processor time per request of all that takes part
events        100 server-sent events: first byte, whole
bodies        1 GiB each way (BENCH_MEGABYTES), 4 GiB up once (BENCH_LARGEST); what the processes grow by
sockets       one message back and forth; the memory of 1,000 open connections
"""

import asyncio
import contextlib
import http.client
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from measure import RUNS, Report
from servers import free_port, start, wait_for_port
from stacks import TIDEMILL, stack
from websockets.asyncio.client import ClientConnection, connect

from tidemill._stack import StackInfo

SECONDS = int(os.environ.get("BENCH_SECONDS", "10"))
MEGABYTES = int(os.environ.get("BENCH_MEGABYTES", "1024"))
LARGEST = int(os.environ.get("BENCH_LARGEST", "4096"))  # megabytes of the one large body
SOCKETS = int(os.environ.get("BENCH_SOCKETS", "1000"))
EVENTS = 200  # requests for events in a run
ROUND_TRIPS = 1_000
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


class Peer:
    """A way to the app: its address, and the processes that take part."""

    def __init__(self, name: str, port: int, path: str, processes: list[psutil.Process]) -> None:
        self.name = name
        self.port = port
        self.path = path
        self.processes = processes

    def metric(self, what: str) -> str:
        """Return the name of a figure of this peer."""
        return what if self.name == "tidemill" else f"{self.name}_{what}"

    def url(self, rest: str, scheme: str = "http") -> str:
        """Return an address of the app."""
        return f"{scheme}://127.0.0.1:{self.port}{self.path}{rest}"

    def processor_seconds(self) -> float:
        """Return the processor time that its processes have used. Some end: templates that are replaced."""
        used = 0.0
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                used += sum(process.cpu_times()[:2])
        return used

    def memory(self) -> float:
        """Return the resident memory of its processes, in MB."""
        return sum(process.memory_info().rss for process in self.processes if process.is_running()) / 1e6


def hello(report: Report, peer: Peer) -> None:
    wrk(peer, 64, 2)  # warm
    for _ in range(RUNS):
        before = peer.processor_seconds()
        rate, _, requests = wrk(peer, 64, SECONDS)
        report.add(peer.metric("hello_64"), rate, "requests/s")
        used = (peer.processor_seconds() - before) / requests
        report.add(peer.metric("hello_64_processor_time"), used * 1e6, "us")
        _, median, _ = wrk(peer, 1, SECONDS)
        report.add(peer.metric("hello_1_p50"), median, "ms")


def wrk(peer: Peer, connections: int, seconds: int) -> tuple[float, float, int]:
    """Return requests per second, their median in ms, and how many there were."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--latency", peer.url("/")]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if failed := re.search(r"Non-2xx.*|Socket errors.*", said):
        sys.exit(f"{peer.name}: {failed[0]}")
    return figures(said)


def figures(said: str) -> tuple[float, float, int]:
    """Return what wrk says: requests per second, their median in ms, and how many there were."""
    rate, requests = re.search(r"Requests/sec:\s+([\d.]+)", said), re.search(r"(\d+) requests in", said)
    median = re.search(r"50%\s+([\d.]+)(us|ms|s)", said)
    assert rate
    assert requests
    assert median
    return float(rate[1]), float(median[1]) * UNITS[median[2]], int(requests[1])


def events(report: Report, peer: Peer) -> None:
    for _ in range(RUNS):
        first, whole = [], []
        connection = http.client.HTTPConnection("127.0.0.1", peer.port)
        for _ in range(EVENTS):
            begun = time.perf_counter()
            connection.request("GET", f"{peer.path}/events")
            answer = connection.getresponse()
            answer.read(1)
            first.append(time.perf_counter() - begun)
            answer.read()
            whole.append(time.perf_counter() - begun)
        connection.close()
        report.latency(peer.metric("events_first"), first)
        report.latency(peer.metric("events_whole"), whole)


def bodies(report: Report, peer: Peer) -> None:
    before = peer.memory()
    for _ in range(RUNS):
        report.add(peer.metric("download"), download(peer, MEGABYTES), "MB/s")
        report.add(peer.metric("upload"), upload(peer, MEGABYTES), "MB/s")
    report.add(peer.metric("bodies_memory_growth"), peer.memory() - before, "MB")
    if peer.name == "tidemill" and LARGEST:
        report.add("upload_largest", upload(peer, LARGEST), "MB/s")


def download(peer: Peer, megabytes: int) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", peer.port, blocksize=1 << 18)
    begun = time.perf_counter()
    connection.request("GET", f"{peer.path}/down?megabytes={megabytes}")
    answer, size = connection.getresponse(), 0
    while piece := answer.read(1 << 18):
        size += len(piece)
    assert size == megabytes << 20, f"{size} bytes came"
    return size / 1e6 / (time.perf_counter() - begun)


def upload(peer: Peer, megabytes: int) -> float:
    def content() -> Iterator[bytes]:
        piece = bytes(1 << 18)
        for _ in range(megabytes * 4):
            yield piece

    connection = http.client.HTTPConnection("127.0.0.1", peer.port)
    begun = time.perf_counter()
    headers = {"content-length": str(megabytes << 20)}
    connection.request("POST", f"{peer.path}/up", body=content(), headers=headers)
    assert int(connection.getresponse().read()) == megabytes << 20
    return (megabytes << 20) / 1e6 / (time.perf_counter() - begun)


async def sockets(report: Report, peer: Peer) -> None:
    url = peer.url("/echo", "ws")
    for _ in range(RUNS):
        seconds = []
        async with connect(url, compression=None) as socket:
            for _ in range(ROUND_TRIPS):
                begun = time.perf_counter()
                await socket.send("hello")
                await socket.recv()
                seconds.append(time.perf_counter() - begun)
        report.latency(peer.metric("socket_round_trip"), seconds)
    before = peer.memory()
    opened: list[ClientConnection] = []
    for start_at in range(0, SOCKETS - 10, 50):
        opening = (connect(url, ping_interval=None) for _ in range(min(50, SOCKETS - 10 - start_at)))
        opened += await asyncio.gather(*opening)
    report.add(peer.metric("open_sockets_memory"), peer.memory() - before, "MB")
    await asyncio.gather(*(socket.close() for socket in opened))


def run(*words: str) -> None:
    subprocess.run([TIDEMILL, *words], check=True, stdout=subprocess.DEVNULL)


def tidemill(home: Path) -> Peer:
    """Deploy the app on a stack, and wait for its container."""
    run("deploy", str(Path(__file__).with_name("web_functions.py")))
    run("workspace", "rate-limit", "set", "--rate", "1000000", "--burst", "1000000")
    info = StackInfo.from_json((home / "stack.json").read_bytes())
    parts = {part.name: psutil.Process(part.pid) for part in info.parts}
    port = int(info.gateway_url.rpartition(":")[2])
    peer = Peer("tidemill", port, "/f/local--web-bench-web", [])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", f"{peer.path}/")
    assert connection.getresponse().status == 200
    busy = [parts["gateway"], parts["nats"], parts["worker"]]
    peer.processes = [*busy, *parts["worker"].children(recursive=True)]
    return peer


def uvicorn() -> Peer:
    """Start the app on uvicorn alone."""
    port = free_port()
    command = ["uvicorn", "web_functions:site", "--port", str(port), "--log-level", "critical"]
    process = start([sys.executable, "-m", *command], "uvicorn")
    wait_for_port(port, process)
    return Peer("uvicorn", port, "", [psutil.Process(process.pid)])


def main() -> None:
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: install the package wrk")
    report = Report("web")
    with stack() as home:
        for peer in (uvicorn(), tidemill(home)):
            hello(report, peer)
            events(report, peer)
            bodies(report, peer)
            asyncio.run(sockets(report, peer))
    report.note("one container of up to 1,000 requests at once; wrk and the clients on the same processors")
    report.write()


if __name__ == "__main__":
    main()
