"""Each stage of a call's path on its own: what the next step of speed-up would be worth.

caller   encode, pack, hand over to the loop, decode
broker   store an input, store -> delivered to a worker, store a reply -> at the caller
worker   fork of a template to READY, one input through a container's socket, chunks of 64
"""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import uvloop
from measure import RUNS, Report, percentile
from servers import folder

from tidemill import _loop
from tidemill._bus.protocol import Message
from tidemill._container import bootstrap, sockets
from tidemill._container.configuration import Configuration
from tidemill._container.frames import FromRunner, ToRunner, ToTemplate
from tidemill._wire import coding, ids, payload, subjects
from tidemill._wire.messages import Chunk, Payload
from tidemill_common import streams
from tidemill_common.bus.nats import connect
from tidemill_common.bus.protocol import ConsumerSpec, Delivery, ServiceBus
from tidemill_local.broker import Broker, BrokerSettings

ROUNDS = 2_000
MODULE = "def identity(value):\n    return value\n"


def each(report: Report, metric: str, rounds: int, work: Callable[[], Any]) -> None:
    """Record the mean time of `work` in microseconds."""
    for _ in range(RUNS):
        begun = time.perf_counter()
        for _ in range(rounds):
            work()
        report.add(metric, (time.perf_counter() - begun) / rounds * 1e6, "us")


def caller(report: Report) -> None:
    encoded = payload.encode_call((1,), {})
    each(report, "encode_arguments", 20_000, lambda: payload.encode_call((1,), {}))
    chunk = Chunk(ids.new(ids.CALL), [0], 0, "tm.replies.main.cl-1", [Payload(*encoded)], time.time())
    each(report, "pack_a_message", 20_000, lambda: coding.encode(chunk))
    each(report, "decode_a_result", 20_000, lambda: payload.decode(*payload.encode(1)))
    loop = _loop.get()

    def hand_over() -> None:
        done: Future[None] = Future()
        loop.call_soon_threadsafe(done.set_result, None)
        done.result()

    each(report, "hand_over_to_the_loop_and_back", 5_000, hand_over)


async def broker(report: Report) -> None:
    server = Broker(BrokerSettings(folder() / "broker"))
    await server.start()
    passwords = server.settings.passwords
    bus, other = [
        await connect(server.url, user="service", password=passwords["service"], name=name) for name in "ab"
    ]
    await streams.apply(bus, "main")
    for _ in range(RUNS):
        await stored(report, bus)
        await delivered(report, bus, other)
        await replied(report, bus, other)
    for connection in (bus, other):
        await connection.close()
    await server.stop()


async def stored(report: Report, bus: ServiceBus) -> None:
    latencies = []
    prefix = subjects.inputs_prefix("main", "cpu", 0, ids.new(ids.POOL))
    for number in range(ROUNDS):
        begun = time.perf_counter()
        await bus.store(subjects.inputs(prefix, "fc-1", number, 0), b"x" * 100, msg_id=f"{prefix}.{number}")
        latencies.append(time.perf_counter() - begun)
    report.latency("store_an_input", latencies)
    await bus.purge("INPUTS_cpu_0", f"{prefix}.>")


async def delivered(report: Report, bus: ServiceBus, worker: ServiceBus) -> None:
    """Measure from the publish to the delivery on another connection that has a pull waiting."""
    pool = ids.new(ids.POOL)
    prefix = subjects.inputs_prefix("main", "cpu", 0, pool)
    arrived: asyncio.Queue[Delivery] = asyncio.Queue()
    spec = ConsumerSpec("INPUTS_cpu_0", pool, f"{prefix}.>")
    await worker.ensure_consumer(spec)
    puller = worker.pull(spec, arrived.put_nowait)
    latencies = []
    for number in range(ROUNDS):
        puller.want(1)
        await worker.flush()
        begun = time.perf_counter()
        answer = bus.store(subjects.inputs(prefix, "fc-1", number, 0), b"x" * 100, msg_id=f"{pool}.{number}")
        delivery = await arrived.get()
        latencies.append(time.perf_counter() - begun)
        await answer
        await delivery.ack()
    report.latency("store_to_delivery", latencies)
    await puller.close()


async def replied(report: Report, bus: ServiceBus, worker: ServiceBus) -> None:
    """Measure from the store of an output to its arrival at the caller's subscription."""
    reply = subjects.replies("main", ids.new(ids.CALLER))
    arrived: asyncio.Queue[Message] = asyncio.Queue()
    subscription = await bus.subscribe(reply, arrived.put_nowait)
    latencies = []
    for number in range(ROUNDS):
        begun = time.perf_counter()
        answer = worker.store(reply, b"x" * 100, msg_id=f"{reply}.{number}")
        await arrived.get()
        latencies.append(time.perf_counter() - begun)
        await answer
    report.latency("store_to_reply", latencies)
    await subscription.close()


class Container:
    """A real container, played the worker to with blocking sockets."""

    def __init__(self, template: socket.socket) -> None:
        (self.runner, theirs), (self.control, init) = socket.socketpair(), socket.socketpair()
        order = sockets.pack((ToTemplate.FORK, ids.new(ids.CONTAINER), False))
        socket.send_fds(template, [order], [theirs.fileno(), init.fileno()])
        theirs.close()
        init.close()
        self.frames = sockets.read(self.runner)
        settings = Configuration("co-1", sources=(str(folder()),), module="measured", qualname="identity")
        self.send(ToRunner.START, settings._asdict())
        assert next(self.frames)[0] == FromRunner.READY

    def send(self, kind: ToRunner, *arguments: Any) -> None:
        self.runner.sendall(sockets.pack((kind, *arguments)))

    def run(self, number: int, inputs: list[tuple[int, bytes]]) -> None:
        """Send a chunk and wait until all of its outputs came."""
        self.send(ToRunner.CHUNK, number, "fc-1", list(range(len(inputs))), 0, inputs, "", "", False, "")
        left = len(inputs)
        while left:
            frame = next(self.frames)
            if frame[0] == FromRunner.OUTPUTS:
                left -= len(frame[2])

    def close(self) -> None:
        self.runner.close()
        self.control.close()


@contextmanager
def template() -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-s", "-P", bootstrap.__file__, str(theirs.fileno())]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    theirs.close()
    ours.recv(4096)  # READY
    yield ours
    ours.close()
    process.wait(10)


def container(report: Report) -> None:
    (folder() / "measured.py").write_text(MODULE)
    one = payload.encode_call((1,), {})
    with template() as parent:
        for _ in range(RUNS):
            starts, trips = [], []
            for _ in range(20):
                begun = time.perf_counter()
                started = Container(parent)
                starts.append(time.perf_counter() - begun)
                started.close()
            started = Container(parent)
            for number in range(ROUNDS):
                begun = time.perf_counter()
                started.run(number, [one])
                trips.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            for number in range(200):
                started.run(ROUNDS + number, [one] * 64)
            report.add("container_chunks_of_64", 200 * 64 / (time.perf_counter() - begun), "inputs/s")
            started.close()
            report.add("fork_to_ready", percentile(starts, 0.5) * 1e3, "ms")
            report.add("input_through_a_container", percentile(trips, 0.5) * 1e6, "us")


def main() -> None:
    report = Report("stages")
    caller(report)
    container(report)
    uvloop.run(broker(report))
    report.note("each stage alone; in a call some of them overlap")
    report.write()


if __name__ == "__main__":
    main()
