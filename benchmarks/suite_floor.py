"""The floor: the workload on hand-written nats-py workers. Two processes, no scheduler, no isolation.

A request is an acknowledged publish into a file-backed work queue, a result a core message.
"""

import asyncio
import itertools
import pickle
import sys
from collections.abc import Iterable
from typing import Any

import nats
import uvloop
from measure import RUNS, Report
from nats.aio.client import Client
from nats.aio.msg import Msg
from servers import nats as nats_server
from servers import start
from workload import Peer, measure


async def worker(url: str, batch: int) -> None:
    """Take requests and answer them; sleeps run side by side, eight to a process."""
    connection = await nats.connect(url)
    subscription = await connection.jetstream().pull_subscribe("call", durable="workers", stream="CALLS")
    slots = asyncio.Semaphore(8)
    tasks: set[asyncio.Task[None]] = set()
    await connection.publish("ready")

    async def answer(message: Msg, seconds: float, value: Any) -> None:
        if seconds:
            await asyncio.sleep(seconds)
            slots.release()
        assert message.headers
        await connection.publish(message.headers["Reply"], pickle.dumps(value, 5))
        await message.ack()

    while True:
        try:
            messages = await subscription.fetch(batch, timeout=30)
        except nats.errors.TimeoutError:
            continue
        for message in messages:
            seconds, value = pickle.loads(message.data)
            if seconds:
                await slots.acquire()
                task = asyncio.create_task(answer(message, seconds, value))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            else:
                await answer(message, 0, value)


class Caller:
    """The caller's side: one inbox, a future per request."""

    def __init__(self, connection: Client) -> None:
        self.connection = connection
        self.stream = connection.jetstream(publish_async_max_pending=512)
        self.waiting: dict[str, asyncio.Future[Any]] = {}
        self.numbers = itertools.count()

    async def listen(self) -> None:
        await self.connection.subscribe("results.*", cb=self._receive, pending_bytes_limit=1 << 30)
        await self.connection.flush()

    async def _receive(self, message: Msg) -> None:
        self.waiting.pop(message.subject.partition(".")[2]).set_result(pickle.loads(message.data))

    def _request(self, seconds: float, value: Any) -> tuple[asyncio.Future[Any], bytes, dict[str, str]]:
        key = str(next(self.numbers))
        future = self.waiting[key] = asyncio.get_running_loop().create_future()
        return future, pickle.dumps((seconds, value), 5), {"Reply": f"results.{key}"}

    async def call(self, value: Any) -> Any:
        future, data, headers = self._request(0, value)
        await self.stream.publish("call", data, headers=headers)
        return await future

    async def fan(self, values: Iterable[Any], seconds: float = 0) -> list[Any]:
        futures = []
        for value in values:
            future, data, headers = self._request(seconds, value)
            await self.stream.publish_async("call", data, headers=headers)
            futures.append(future)
        return await asyncio.gather(*futures)


async def connect(url: str) -> Caller:
    connection = await nats.connect(url, pending_size=64 << 20)
    await connection.jetstream().add_stream(
        name="CALLS", subjects=["call"], storage="file", retention="workqueue"
    )
    await connection.jetstream().add_consumer(
        "CALLS", durable_name="workers", ack_policy="explicit", max_ack_pending=20_000
    )
    caller = Caller(connection)
    await caller.listen()
    return caller


async def start_workers(caller: Caller, url: str, batch: int) -> None:
    ready = await caller.connection.subscribe("ready")
    for number in range(2):
        start([sys.executable, __file__, url, str(batch)], f"worker-{batch}-{number}")
    for _ in range(2):
        await ready.next_msg(timeout=20)
    await ready.unsubscribe()


def run(report: Report, batch: int, prefix: str) -> None:
    """Measure with workers that fetch `batch` messages at a time."""
    url = nats_server()
    loop = uvloop.new_event_loop()
    caller = loop.run_until_complete(connect(url))
    loop.run_until_complete(start_workers(caller, url, batch))
    peer = Peer(
        "floor",
        call=lambda value: loop.run_until_complete(caller.call(value)),
        fan=lambda values: loop.run_until_complete(caller.fan(values)),
        sleep16=lambda values: loop.run_until_complete(caller.fan(values, 0.01)),
    )
    measure(report, peer, prefix)
    loop.run_until_complete(caller.connection.close())


def main() -> None:
    if len(sys.argv) > 1:
        uvloop.run(worker(sys.argv[1], int(sys.argv[2])))
        return
    report = Report("floor")
    run(report, 1, "")
    run(report, 32, "batched_")
    report.note(f"{RUNS} runs; workers fetch 1 message at a time, or (batched) up to 32")
    report.write()


if __name__ == "__main__":
    main()
