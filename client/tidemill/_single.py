"""One attached input: the shortest way from a call to its result.

The calling thread encodes and packs, hands over with one `call_soon_threadsafe` and waits on a plain
future; the loop publishes, and resolves the future in the callback of the reply. No task is made unless
a payload is large or the function has still to be found.
"""

import asyncio
import concurrent.futures
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tidemill import _client, _loop, _runtime
from tidemill._outcome import End, Failed, Outcome
from tidemill._wire import coding, ids
from tidemill._wire.messages import Blob, Chunk, Payload, Status
from tidemill._wire.payload import INLINE_LIMIT

if TYPE_CHECKING:
    from tidemill._attached import RawOutput
    from tidemill._caller import Caller
    from tidemill._wire.control import FunctionHandle
    from tidemill.functions import Function

T = TypeVar("T")
R = TypeVar("R")


class Later(Generic[T, R]):
    """A result on its way (`_sync.Pending`): a future of the loop's thread, read where it is waited for."""

    __slots__ = ("_future", "_read")

    def __init__(self, future: "concurrent.futures.Future[T]", read: Callable[[T], R]) -> None:
        self._future = future
        self._read = read

    def result(self) -> R:
        """Block until it is there. Ctrl-C gives it up."""
        try:
            arrived = _loop.result(self._future)
        except BaseException:
            self._future.cancel()
            raise
        return self._read(arrived)

    async def wait(self) -> R:
        """Await it. Being cancelled gives it up."""
        return self._read(await asyncio.wrap_future(self._future))


def origin() -> tuple[str, str]:
    """Return the input that is making this call, and the call that it goes back to; empty outside of one."""
    now = _runtime.current_input.get()
    return (now.input_id, now.root or now.call) if now else ("", "")


def read(end: End) -> Any:
    """Return what a call returned, or raise."""
    return end.read()


class SingleCall:
    """An attached call of one input."""

    __slots__ = (
        "_blob",
        "_caller",
        "_loop",
        "_origin",
        "_payload",
        "_preparing",
        "_since",
        "_submission",
        "future",
        "handle",
        "id",
    )

    handle: "FunctionHandle"

    def __init__(self, form: int, data: bytes) -> None:
        self.id = ids.new(ids.CALL)
        self.future: concurrent.futures.Future[End] = concurrent.futures.Future()
        self._payload = Payload(form, data)
        self._origin = origin()
        self._loop = _loop.get()
        self._blob: Blob | None = None
        self._caller: Caller | None = None
        self._submission = 0
        self._since = 0.0
        self._preparing: concurrent.futures.Future[None] | None = None

    # --- in the calling thread

    def start(self, function: "Function[Any, Any, Any]", client: "_client.Client") -> None:
        """Hand the call over to the loop."""
        caller, handle = client.caller, function._present_handle()
        if caller is None or handle is None or len(self._payload.data) > INLINE_LIMIT:
            self._preparing = _loop.submit(self._prepare(function, client))
        else:
            self._loop.call_soon_threadsafe(
                self._begin, caller, handle, self._packed(caller.reply, handle.method)
            )
        self.future.add_done_callback(self._given_up)

    def _packed(self, reply: str, method: str) -> bytes:
        chunk = Chunk.first(self.id, [0], [self._payload], reply=reply, origin=self._origin, method=method)
        return coding.encode(chunk)

    def _given_up(self, future: "concurrent.futures.Future[End]") -> None:
        if future.cancelled():
            with suppress(RuntimeError):  # the loop is closed, and the call with it
                self._loop.call_soon_threadsafe(self._abandon)

    # --- on the loop

    async def _prepare(self, function: "Function[Any, Any, Any]", client: "_client.Client") -> None:
        try:
            caller = await client.connect()
            handle = await function._find(client)
            function._check_callable(handle)
            data = self._payload.data
            if isinstance(data, bytes) and len(data) > INLINE_LIMIT:
                self._blob = await caller.put_blob(data)
                self._payload = Payload(self._payload.format, self._blob)
        except Exception as error:
            self.fail(error)
        else:
            self._begin(caller, handle, self._packed(caller.reply, handle.method))

    def _begin(self, caller: "Caller", handle: "FunctionHandle", data: bytes) -> None:
        self._caller = caller
        self.handle = handle
        if self.future.cancelled():
            self._leave()
            return
        self._since = time.monotonic()
        caller.begin(self)
        self._submission = caller.submit(handle, self.id, 0, data, refused=self.fail, patiently=True)

    def on_outputs(self, items: "list[RawOutput]", seconds: float, container: str) -> None:  # noqa: ARG002
        """Take the one output."""
        for _, status, (form, data), *_ in items:
            if status == Status.YIELD or self._caller is None or self.id not in self._caller.calls:
                continue
            self._leave()
            if isinstance(data, bytes):
                self._resolve(Outcome(status, form, data, self.handle.restrict_output))
            else:
                self._caller.run(self._fetch(status, form, data), name=f"fetch the result of {self.id}")

    async def _fetch(self, status: int, form: int, data: "list[Any]") -> None:
        assert self._caller is not None
        try:
            outcome = await self._caller.outcome(status, form, data)
        except Exception as error:
            self._resolve(Failed(error))
        else:
            self._resolve(outcome._replace(restricted=self.handle.restrict_output))

    def on_tick(self, now: float) -> None:
        """Nothing depends on time."""

    def oldest(self) -> tuple[int, float] | None:
        """See `Attached`."""
        return self._submission, self._since

    def fail(self, error: BaseException) -> None:
        """End it with an error of this side."""
        if self._caller is not None:
            self._leave()
        self._resolve(Failed(error))

    def _leave(self) -> None:
        assert self._caller is not None
        self._caller.end(self)
        if self._blob is not None:
            blob, self._blob = self._blob, None
            self._caller.drop_blob(blob)

    def _resolve(self, end: End) -> None:
        with suppress(concurrent.futures.InvalidStateError):  # given up in this moment
            self.future.set_result(end)

    def _abandon(self) -> None:
        if self._preparing is not None:
            self._preparing.cancel()
        caller = self._caller
        if caller is not None and self.id in caller.calls:
            caller.cancel(self.id, self.handle)
            self._leave()


def call(function: "Function[Any, Any, Any]", form: int, data: bytes) -> "Later[End, Any]":
    """Call a function with encoded arguments."""
    single = SingleCall(form, data)
    single.start(function, _client.current(function._client))
    return Later(single.future, read)
