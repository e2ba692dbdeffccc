"""What the caller does when servers die, connections break and messages get lost."""

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from played_worker import Pause, PlayedWorker
from waiting import wait_until

from tidemill import _caller, _client, _lost, _replies, exception
from tidemill_local.broker import Broker

HERE = Path(__file__).parent


def square(x: int) -> int:
    return x * x


async def slow_square(x: int) -> int:
    await asyncio.sleep(0.002)
    return x * x


def test_a_server_restarted_in_a_map_loses_nothing_and_doubles_nothing(
    worker: PlayedWorker, restart: Any
) -> None:
    f = worker.function(slow_square, slots=8)
    results: list[int] = []
    for value in f.map(range(2_000)):
        results.append(value)
        if len(results) in (200, 900):
            restart()
    assert results == [x * x for x in range(2_000)]
    assert f.remote(3) == 9


def test_a_server_restarted_in_an_unordered_map_yields_each_output_once(
    worker: PlayedWorker, restart: Any
) -> None:
    f = worker.function(slow_square, slots=8)
    seen: Counter[int] = Counter()
    for value in f.map(range(1_000), order_outputs=False):
        seen[value] += 1
        if seen.total() == 300:
            restart()
    assert seen == Counter(x * x for x in range(1_000))


def test_single_and_spawned_calls_survive_a_restart(
    worker: PlayedWorker, restart: Any, eventually: Any
) -> None:
    pool = worker.deploy(square)
    pool.held = asyncio.Event()
    f = worker.caller_of(pool)
    results: list[int] = []
    call = f.spawn(5)
    threads = [
        threading.Thread(target=lambda: results.append(f.remote(4))),
        threading.Thread(target=lambda: results.append(call.get())),
    ]
    for thread in threads:
        thread.start()
    eventually(lambda: len(worker.chunks_of_calls) == 2 and _client.current().caller._listeners)  # type: ignore[union-attr]
    restart()
    worker._loop.call_soon_threadsafe(pool.held.set)
    for thread in threads:
        thread.join(60)
    assert sorted(results) == [16, 25]


def test_a_call_made_while_the_server_is_away_waits_for_it(worker: PlayedWorker, broker: Broker) -> None:
    f = worker.function(square)
    assert f.remote(2) == 4
    broker.kill()
    thread = threading.Timer(0.5, lambda: asyncio.run(broker.start()))
    thread.start()
    assert f.remote(3) == 9
    assert list(f.map(range(10))) == [x * x for x in range(10)]
    thread.join()


def test_a_broken_connection_of_the_caller_alone_loses_no_output(
    worker: PlayedWorker, connected: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cable(connected.port) as cable:
        monkeypatch.setenv("TIDEMILL_SERVER_URL", f"nats://127.0.0.1:{cable.port}")
        f = worker.function(slow_square, slots=8)
        results: list[int] = []
        for value in f.map(range(1_500)):
            results.append(value)
            if len(results) in (100, 500, 900):
                cable.cut(0.2)
        assert results == [x * x for x in range(1_500)]
        assert _client.current().caller.replies.rereads  # type: ignore[union-attr]
        _client.current().close()


def test_a_generator_goes_on_over_a_broken_connection(
    worker: PlayedWorker, connected: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pieces() -> Iterator[Any]:
        for number in range(1_200):
            yield number
            if number % 50 == 0:
                yield Pause(0.02)

    with Cable(connected.port) as cable:
        monkeypatch.setenv("TIDEMILL_SERVER_URL", f"nats://127.0.0.1:{cable.port}")
        taken: list[int] = []
        for piece in worker.function(pieces).remote_gen():
            taken.append(piece)
            if len(taken) in (100, 600):
                cable.cut(0.2)
        assert taken == list(range(1_200))
        _client.current().close()


def test_an_output_that_was_never_heard_is_found_in_the_stream(worker: PlayedWorker) -> None:
    """As when a route between two servers breaks: no reconnect, no error, only silence."""
    f = worker.function(square)
    assert f.remote(1) == 1
    caller = _client.current().caller
    assert caller is not None
    for subscription in caller.replies._subscriptions:
        asyncio.run_coroutine_threadsafe(subscription.close(), caller.loop).result(60)
    begun = time.monotonic()
    assert f.remote(3) == 9
    assert time.monotonic() - begun > 4


def test_a_call_whose_output_has_expired_does_not_wait_for_ever(
    worker: PlayedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((_caller, "SILENT"), (_caller, "SILENT_MAX"), (_lost, "SILENT_MAX")):
        monkeypatch.setattr(module, name, 0.5)
    pool = worker.deploy(square)
    held = worker.deploy(square, name="held")
    held.held = asyncio.Event()
    waits = worker.caller_of(held)
    thread = threading.Thread(target=lambda: results.append(waits.remote(5)))
    results: list[int] = []
    thread.start()
    pool.loses_outputs = True
    with pytest.raises(exception.OutputExpiredError):
        worker.caller_of(pool).remote(1)
    worker._loop.call_soon_threadsafe(held.held.set)
    thread.join(60)
    assert results == [25]


def test_waiting_for_a_spawned_call_ends_with_the_client(worker: PlayedWorker, eventually: Any) -> None:
    pool = worker.deploy(square)
    pool.held = asyncio.Event()
    call = worker.caller_of(pool).spawn(5)
    errors: list[BaseException] = []

    def get() -> None:
        try:
            call.get(timeout=60)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=get)
    thread.start()
    eventually(lambda: _client.current().caller._listeners)  # type: ignore[union-attr]
    _client.current().close()
    thread.join(60)
    assert [type(error) for error in errors] == [exception.ClientClosed]


def test_a_call_made_while_the_server_was_away_hears_of_trouble_too(
    worker: PlayedWorker, broker: Broker, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert worker.function(square).remote(2) == 4
    pool = worker.deploy(square, name="held")
    pool.held = asyncio.Event()
    errors: list[BaseException] = []

    def call() -> None:
        try:
            worker.caller_of(pool).remote(3)
        except exception.Error as error:
            errors.append(error)

    caller = _client.current().caller
    assert caller is not None
    broker.kill()
    eventually(lambda: not caller.bus._connected)  # type: ignore[attr-defined]
    thread = threading.Thread(target=call)
    thread.start()
    eventually(lambda: caller.calls)
    eventually(lambda: "the connection to the server is lost" in caplog.text)
    asyncio.run(broker.start())
    eventually(lambda: worker.chunks_of_calls[-1].call in caller.calls)
    eventually(lambda: (line := caller.pools._lines.get(pool.handle.pool)) and line.subscription)
    worker.tell_trouble(pool, "no image", exception.ImageBuildError("no such package"))
    thread.join(60)
    assert [type(error) for error in errors] == [exception.ImageBuildError]


def test_replies_are_purged_as_they_come(
    worker: PlayedWorker, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    monkeypatch.setattr(_replies, "PURGE_BYTES", 1 << 20)
    f = worker.function(lambda x: "x" * 20_000, slots=4)
    assert sum(1 for _ in f.map(range(600))) == 600
    eventually(lambda: _stored_replies(worker) < 600 * 20_000 // 2)
    assert f.remote(1) == "x" * 20_000
    assert sum(1 for _ in f.map(range(200))) == 200


def test_replies_are_purged_while_a_slow_call_waits(
    worker: PlayedWorker, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    monkeypatch.setattr(_replies, "PURGE_BYTES", 1 << 20)
    slow = worker.deploy(square)
    slow.held = asyncio.Event()
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(worker.caller_of(slow).remote(7)))
    thread.start()
    f = worker.function(lambda x: "x" * 20_000, slots=4)
    assert sum(1 for _ in f.map(range(600))) == 600
    eventually(lambda: _stored_replies(worker) < 600 * 20_000 // 2)
    worker._loop.call_soon_threadsafe(slow.held.set)
    thread.join(60)
    assert results == [49]


def _stored_replies(worker: PlayedWorker) -> int:
    async def stored() -> int:
        return sum(
            [len(stored.data) async for stored in worker.bus.read("REPLIES_local", "tm.replies.local.*")]
        )

    return int(worker.do(stored()))


def test_a_forked_child_calls_over_a_connection_of_its_own(worker: PlayedWorker) -> None:
    f = worker.function(square)
    assert f.remote(2) == 4
    running = iter(f.map(itertools.count()))
    next(running)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with pytest.raises(exception.ExecutionError, match="forked"):
                for _ in running:
                    pass
            status = 0 if f.remote(5) == 25 and list(f.map([1, 2])) == [1, 4] else 2
        finally:
            os._exit(status)
    try:
        _, status = wait_until(lambda: ended if (ended := os.waitpid(pid, os.WNOHANG))[0] else None)
    except AssertionError:
        os.kill(pid, signal.SIGKILL)
        raise
    assert os.waitstatus_to_exitcode(status) == 0
    assert next(running) == 1
    running.close()  # type: ignore[attr-defined]
    assert f.remote(6) == 36


SCRIPT = """
import sys
from tidemill.functions import Function
from tidemill._wire import coding
from tidemill._wire.control import FunctionHandle
f = Function(None, name="f", is_generator=False)
f._hydrate(coding.decode(FunctionHandle, bytes.fromhex(sys.argv[1])), None)
"""


def _script(worker: PlayedWorker, function: Any, body: str) -> "subprocess.Popen[str]":
    from tidemill._wire import coding

    handle = coding.encode(worker.deploy(function).handle).hex()
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT + body, handle],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    "body",
    [
        "print(f.remote(3), list(f.map([1])))",
        "from itertools import count\ndone = iter(f.map(count()))\nprint(next(done) or 9, [next(done)])",
        "import threading as t\nt.Thread(target=f.remote, args=(1,), daemon=True).start()\nprint(9, [1])",
    ],
)
def test_a_program_ends_cleanly_whatever_is_open(worker: PlayedWorker, body: str) -> None:
    out, err = _script(worker, square, body).communicate(timeout=60)
    assert out == "9 [1]\n"
    assert err == ""


# Tells when the main thread stands still in a wait, once it is asked: a signal that comes while it is only on
# its way there finds nothing yet that could be given up, or is noticed when the wait is over.
WATCH = """
import threading, time
main = threading.get_ident()
def watch():
    sys.stdin.readline()
    same, before = 0, None
    while same < 5:
        time.sleep(0.04)
        frame = sys._current_frames()[main]
        seen = (frame, frame.f_lasti)
        same = same + 1 if seen == before and frame.f_code.co_name == "wait" else 0
        before = seen
    print("waiting", flush=True)
threading.Thread(target=watch, daemon=True).start()
"""


async def forever(x: int) -> None:
    await asyncio.Event().wait()


DAEMONS = """
import threading, time
from tidemill import _client
for call in (f.remote, f.remote, lambda x: list(f.map([x])), lambda x: f.spawn(x).get()):
    threading.Thread(target=call, args=(1,), daemon=True).start()
def under_way():
    caller = getattr(_client._shared.client, "caller", None)
    return caller is not None and len(caller.calls) == 3 and caller._listeners
while not under_way():
    time.sleep(0.01)
print("over")
"""


def test_daemon_threads_end_with_their_program_and_say_nothing(worker: PlayedWorker) -> None:
    out, err = _script(worker, forever, DAEMONS).communicate(timeout=60)
    assert (out, err) == ("over\n", "")


@pytest.mark.parametrize(
    "call",
    ["f.remote(1)", "list(f.map([1]))", "f.for_each([1])", "f.spawn(1).get()", "f.spawn(1).get(timeout=50)"],
)
def test_ctrl_c_gives_up_at_once(worker: PlayedWorker, eventually: Any, call: str) -> None:
    process = _script(worker, forever, f"{WATCH}\n{call}")
    assert process.stdout is not None
    assert process.stdin is not None
    eventually(lambda: worker.chunks_of_calls)
    process.stdin.write("it is on its way\n")
    process.stdin.flush()
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    try:
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "KeyboardInterrupt" in err
    assert "Exception ignored" not in err
    if "spawn" not in call:
        eventually(lambda: worker.cancelled)


class Cable:
    """A connection to the server that can be cut: bytes of TCP, nothing understood."""

    def __init__(self, port: int) -> None:
        self._server = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._pairs: list[socket.socket] = []
        self._cut_until = 0.0
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._close_pairs()
        for thread in self._threads:
            thread.join(60)

    def cut(self, seconds: float) -> None:
        """Break every connection, and refuse new ones for some seconds."""
        self._cut_until = time.monotonic() + seconds
        self._close_pairs()

    def _close_pairs(self) -> None:
        pairs, self._pairs = self._pairs, []
        for end in pairs:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _start(self, target: Any, *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if time.monotonic() < self._cut_until:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._server))
            self._pairs += [near, far]
            self._start(self._pump, near, far)
            self._start(self._pump, far, near)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65_536):
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()
