"""`FunctionCall`: work that was started and is waited for later, perhaps by another process."""

from collections import deque
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tidemill import _sync, exception
from tidemill._tracebacks import EDGE

if TYPE_CHECKING:
    from tidemill._client import Client
    from tidemill._kept import KeptCall
    from tidemill._logs import Logs
    from tidemill._outcome import Outcome
    from tidemill._single import Later
    from tidemill.call_graph import InputInfo

R = TypeVar("R")
T = TypeVar("T")

READ_AHEAD = 32  # results of `iter` that are waited for at once


class _Gather:
    """`FunctionCall.gather`."""

    def __call__(self, *function_calls: "FunctionCall[T]") -> Sequence[T]:
        """Wait for several calls and return their results in the order of the calls.

        The first failure is raised as soon as it is known; the other calls go on.
        """
        _sync.warn_if_blocking("FunctionCall.gather")
        with EDGE:
            return self._start(function_calls).result()

    async def aio(self, *function_calls: "FunctionCall[T]") -> Sequence[T]:
        """Do the same and await it."""
        with EDGE:
            return await self._start(function_calls).wait()

    def _start(self, function_calls: "Sequence[FunctionCall[T]]") -> "Later[list[Outcome], list[T]]":
        from tidemill import _loop
        from tidemill._single import Later

        return Later(_loop.submit(_all_or_first_failure(function_calls)), _read_all)


async def _all_or_first_failure(calls: "Sequence[FunctionCall[Any]]") -> "list[Outcome]":
    """Return the outputs of all calls, or, as soon as there is one, only the failed one."""
    import asyncio

    results = [asyncio.ensure_future(call._result(None, 0)) for call in calls]
    try:
        for finished in asyncio.as_completed(results):
            outcome = await finished
            if outcome.failed:
                return [outcome]
        return [result.result() for result in results]
    finally:
        for result in results:
            result.cancel()
        await asyncio.gather(*results, return_exceptions=True)


def _read_all(outcomes: "list[Outcome]") -> list[Any]:
    return [outcome.read() for outcome in outcomes]


class FunctionCall(Generic[R]):
    """A call made by `spawn`. Its results can be read by id, from anywhere, for seven days.

    Example:
        call = slow.spawn(3)
        ...
        print(call.get(timeout=60))
    """

    def __init__(self, object_id: str, client: "Client | None" = None) -> None:
        self._id = object_id
        self._client = client
        self._kept: KeptCall | None = None

    @staticmethod
    def from_id(function_call_id: str, client: "Client | None" = None) -> "FunctionCall[Any]":
        """Return the call with this id. Nothing is asked until it is used."""
        from tidemill._wire import ids, subjects

        if not isinstance(function_call_id, str) or not function_call_id.startswith(f"{ids.CALL}-"):
            raise exception.InvalidError(f"not the id of a function call: {function_call_id!r}")
        try:
            subjects.token(function_call_id)
        except ValueError as error:
            raise exception.InvalidError(f"not the id of a function call: {function_call_id!r}") from error
        return FunctionCall(function_call_id, client)

    @property
    def object_id(self) -> str:
        """Return the id (`fc-...`)."""
        return self._id

    @property
    def is_hydrated(self) -> bool:
        """Return whether the server was asked about this call."""
        return self._kept is not None

    @_sync.method
    async def hydrate(self, client: "Client | None" = None) -> "FunctionCall[R]":
        """Ask the server about the call now; `OutputExpiredError` when nothing is stored."""
        self._client = client or self._client
        await (await self._stored()).record()
        return self

    # --- results

    @_sync.pending
    def get(self, timeout: float | None = None, *, index: int = 0) -> "Later[Outcome, R]":
        """Wait for the result and return it, as often as wanted.

        Args:
            timeout: seconds to wait; 0 only looks, None waits without limit.
            index: which input, for calls of several.

        Raises:
            TimeoutError: it is not there yet (Python's own).
            OutputExpiredError: it was kept for seven days and is gone.
            BaseException: what the function raised.
        """
        from tidemill import _loop
        from tidemill._outcome import Outcome
        from tidemill._single import Later

        return Later(_loop.submit(self._result(timeout, index)), Outcome.read)

    async def _result(self, timeout: float | None, index: int) -> "Outcome":
        return await (await self._stored()).result(index, timeout)

    gather = _Gather()

    @_sync.stream
    async def iter(self, *, start: int = 0, end: int | None = None) -> AsyncGenerator[R, None]:
        """Yield the results of a call of several inputs in the order of the inputs, each when it is there.

        Args:
            start: the first index.
            end: the index to stop before; without it all.
        """
        import asyncio

        kept = await self._stored()
        stop = (await kept.record()).num_inputs if end is None else end
        ahead: deque[asyncio.Task[Outcome]] = deque()
        following = start
        try:
            while ahead or following < stop:
                while following < stop and len(ahead) < READ_AHEAD:
                    ahead.append(asyncio.create_task(kept.result(following, None)))
                    following += 1
                yield (await ahead.popleft()).read()
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)

    # --- the call itself

    @_sync.method
    async def num_inputs(self) -> int:
        """Return how many inputs the call has."""
        return (await (await self._stored()).record()).num_inputs

    @_sync.method
    async def cancel(self, terminate_containers: bool = False) -> None:
        """End the call: what waits never starts, what runs is stopped, nothing is tried again.

        Inputs without a result get one that says so: `get` raises `RemoteError`.

        Args:
            terminate_containers: kill the containers that run it; what else they run starts again elsewhere.
        """
        from tidemill import _client, _kept

        client = _client.current(self._client)
        await _kept.cancel(client, await self._stored(), terminate_containers=terminate_containers)

    @_sync.method
    async def get_call_graph(self) -> "list[InputInfo]":
        """Return the tree that this call belongs to: the inputs that began it, with all that they called.

        Of a call the first 500 inputs are shown, and any other that called functions itself. What has
        happened by now is in it: records that are on their way are waited for, a few seconds at most.

        Raises:
            OutputExpiredError: nothing is known of this call (any more).
        """
        from tidemill import _client, _graph

        client = _client.current(self._client)
        return await _graph.read(client, await self._stored())

    @property
    def logs(self) -> "Logs":
        """What was printed while the inputs of this call ran: see `Logs`."""
        from tidemill import _client, _logs

        async def find() -> "_logs.Origin":
            client = _client.current(self._client)
            record = await (await self._stored()).record()
            return await _logs.of_call(client, self._id, record.app_id, record.created)

        return _logs.Logs(find)

    async def _stored(self) -> "KeptCall":
        from tidemill import _client
        from tidemill._kept import KeptCall

        caller = await _client.current(self._client).connect()
        if self._kept is None or self._kept.caller is not caller:
            self._kept = KeptCall(caller, self._id)
        return self._kept

    def __reduce__(self) -> tuple[Any, ...]:
        return FunctionCall.from_id, (self._id,)

    def __repr__(self) -> str:
        return f"FunctionCall({self._id!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FunctionCall) and other._id == self._id

    def __hash__(self) -> int:
        return hash(self._id)
