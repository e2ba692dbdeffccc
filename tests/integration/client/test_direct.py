"""Outputs that come past the stream."""

import asyncio
import threading

import msgpack
from played_worker import PlayedWorker
from waiting import wait_until

from tidemill import _client
from tidemill._wire import coding, ids, payload, subjects
from tidemill._wire.messages import Output, Outputs, Payload, Status


def test_an_output_past_the_stream_ends_its_call_and_its_worker_hears_so_each_time(
    worker: PlayedWorker,
) -> None:
    pool = worker.deploy(lambda x: x)
    pool.held = asyncio.Event()  # it never answers
    results: list[int] = []
    calling = threading.Thread(target=lambda: results.append(worker.caller_of(pool).remote(7)))
    calling.start()
    wait_until(lambda: worker.chunks_of_calls)
    (chunk,) = worker.chunks_of_calls
    me, told = ids.new(ids.WORKER), []

    async def send_twice() -> None:
        everyone = subjects.taken(subjects.EVERY, me)
        await worker.bus.subscribe(everyone, lambda message: told.extend(msgpack.unpackb(message.data)))
        output = Output(0, Status.SUCCESS, Payload(*payload.encode(49)))
        fields = Outputs(chunk.call, 0, [output], 0.0, "co-1", me, 3)
        for data in (coding.encode((*fields, "of a later version")), coding.encode(fields)):
            worker.bus.publish(subjects.outputs(chunk.reply), data)

    assert chunk.direct
    worker.do(send_twice())
    calling.join(60)
    wait_until(lambda: len(told) == 2)
    assert (results, told) == ([49], [3, 3])
    caller = _client.current().caller
    assert caller is not None
    assert caller.dropped == 1
