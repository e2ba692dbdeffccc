"""`Function`: what `@app.function()` makes of a Python function, and what calls go through."""

import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast

from tidemill import _sync, exception
from tidemill._dataclass import dataclass
from tidemill._handled import Handled, Lookup
from tidemill._tracebacks import EDGE
from tidemill.function_call import FunctionCall

if TYPE_CHECKING:
    from tidemill._autoscaler import Autoscaler
    from tidemill._client import Client
    from tidemill._logs import Logs
    from tidemill._map import ForEach, Map, StarMap
    from tidemill._outcome import End
    from tidemill._remote_gen import RemoteGen
    from tidemill._single import Later
    from tidemill._spawn_map import SpawnMap, SpawnMapForEffect
    from tidemill._variants import Found, Given
    from tidemill._wire.control import FunctionHandle
    from tidemill.app import App
    from tidemill.retries import Retries
    from tidemill.secret import Secret
    from tidemill.types import FunctionAutoscalerSettings, FunctionCurrentStats
    from tidemill.volume import Volume

P = ParamSpec("P")
R = TypeVar("R")  # what `remote` returns; of a generator: what each piece is
O = TypeVar("O")  # noqa: E741 - what the function itself returns, a coroutine for instance

__all__ = ["Function", "FunctionCall", "FunctionInfo"]


@dataclass(frozen=True, slots=True)
class FunctionInfo:
    """What is known about a function that exists on the server."""

    function_id: str
    name: str
    app_id: str
    is_generator: bool
    timeout: float
    web_url: str | None


class Function(Handled, Generic[P, R, O]):
    """A function that runs elsewhere.

    Made by `@app.function()`, or found by `Function.from_name`. Every method that waits has an awaitable
    form under `.aio`.

    Example:
        @app.function()
        def square(x: int) -> int:
            return x * x

        square.remote(3)                 # 9
        list(square.map([1, 2, 3]))      # [1, 4, 9]
        square.spawn(4).get()            # 16
        square.local(5)                  # 25, in this process
    """

    def __init__(
        self,
        raw: Callable[P, O] | None,
        *,
        name: str,
        app: "App | None" = None,
        is_generator: bool | None = None,
        client: "Client | None" = None,
    ) -> None:
        """Make it.

        Args:
            raw: the Python function; None where it is not in this process.
            name: its name in the app.
            app: the app that it was declared in.
            is_generator: whether it yields; None where that is still to be found out.
            client: the client for all calls; without it the one that calls are made with by default.
        """
        super().__init__(name, app, client, is_generator=is_generator)
        self._raw = raw
        self._variants: dict[Hashable, Found] = {}
        self.__name__ = name
        if raw is not None:
            self.__doc__ = raw.__doc__
            self.__module__ = raw.__module__
            self.__wrapped__ = raw

    # --- found by name or id

    @classmethod
    def from_name(
        cls,
        app_name: str,
        name: str,
        *,
        version: int | None = None,
        environment_name: str | None = None,
        client: "Client | None" = None,
    ) -> "Function[..., Any, Any]":
        """Return a function of a deployed app. Nothing is asked until it is used.

        Args:
            app_name: the app.
            name: the function's name in it.
            version: one deployment, for good; without it always the newest: new calls go to a version as
                soon as it is deployed, calls under way finish where they are.
            environment_name: the environment; without it the configured one.
            client: the client to use.
        """
        if "." in name:
            raise exception.InvalidError(
                f"{name!r} is a method", hint=f"use Cls.from_name({app_name!r}, {name.partition('.')[0]!r})"
            )
        function: Function[..., Any, Any] = Function(None, name=name, client=client)
        function._lookup = Lookup(app_name, name, environment_name or "", version)
        return function

    @classmethod
    def from_id(cls, function_id: str, *, client: "Client | None" = None) -> "Function[..., Any, Any]":
        """Return the function with this id. Nothing is asked until it is used."""
        function: Function[..., Any, Any] = Function(None, name=function_id, client=client)
        function._lookup = Lookup(function_id=function_id)
        return function

    @_sync.method
    async def hydrate(self, client: "Client | None" = None) -> "Function[P, R, O]":
        """Ask the server for this function now.

        Raises:
            NotFoundError: there is none.
        """
        from tidemill import _client

        self._client = client or self._client
        await self._find(_client.current(self._client), refresh=True)
        return self

    # --- calls

    @_sync.pending
    def remote(self, /, *args: P.args, **kwargs: P.kwargs) -> "Later[End, R]":
        """Call the function elsewhere and wait for its result.

        Giving the wait up (Ctrl-C, a cancelled task) cancels the call.

        Raises:
            BaseException: what the function raised, with its remote traceback.
            FunctionTimeoutError: it ran for longer than its `timeout`.
            RemoteError: it was cancelled, or raised what cannot be raised here.
            ResourceExhaustedError: its queue is full.
            InvalidError: it is a generator.
            ExecutionError: its app does not run.
        """
        return self._call_remotely(args, kwargs)

    @_sync.pending
    def call(self, /, *args: P.args, **kwargs: P.kwargs) -> "Later[End, R]":
        """Do as `remote`, under the name that it had long ago."""
        warnings.warn(
            f"{self._name}.call is deprecated, use {self._name}.remote",
            exception.DeprecationError,
            stacklevel=3,
        )
        return self._call_remotely(args, kwargs)

    @_sync.pending
    def spawn(self, /, *args: P.args, **kwargs: P.kwargs) -> "Later[FunctionCall[R], FunctionCall[R]]":
        """Start the function elsewhere and return its call; the result is kept for seven days.

        The result of a generator is the list of what it yields.

        Raises:
            ResourceExhaustedError: its queue is full.
            InvalidError: it is a web function.
            ExecutionError: its app does not run.
        """
        from tidemill import _loop, _spawning
        from tidemill._single import Later, origin
        from tidemill._wire.payload import encode_call

        self._check_present("spawn")
        form, data = encode_call(args, kwargs)
        return Later(_loop.submit(_spawning.spawn(self, form, data, origin())), _itself)

    @property
    def remote_gen(self) -> "RemoteGen[P, R]":
        """Call a generator elsewhere and iterate what it yields: see `RemoteGen`."""
        from tidemill._remote_gen import RemoteGen

        return RemoteGen(self)

    @property
    def map(self) -> "Map[R]":
        """Call the function for many inputs and iterate the results: see `Map`."""
        from tidemill._map import Map

        return Map(self, "map")

    @property
    def starmap(self) -> "StarMap[R]":
        """Do as `map` with tuples of arguments: see `StarMap`."""
        from tidemill._map import StarMap

        return StarMap(self, "starmap")

    @property
    def for_each(self) -> "ForEach":
        """Call the function for many inputs for its effect: see `ForEach`."""
        from tidemill._map import ForEach

        return ForEach(self, "for_each")

    @property
    def spawn_map(self) -> "SpawnMapForEffect":
        """Start the function for many inputs for its effect: see `SpawnMapForEffect`."""
        from tidemill._spawn_map import SpawnMapForEffect

        return SpawnMapForEffect(self, "spawn_map")

    @property
    def experimental_spawn_map(self) -> "SpawnMap[R]":
        """Start the function for many inputs and get one `FunctionCall` for all: see `SpawnMap`."""
        from tidemill._spawn_map import SpawnMap

        return SpawnMap(self, "experimental_spawn_map")

    def _call_remotely(self, args: Any, kwargs: Any) -> "Later[End, R]":
        from tidemill import _single
        from tidemill._wire.payload import encode_call

        self._check_present("remote")
        return _single.call(self, *encode_call(args, kwargs))

    def local(self, /, *args: P.args, **kwargs: P.kwargs) -> O:
        """Call the Python function itself, in this process."""
        return self.get_raw_f()(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """Refuse: it would not be clear where it runs."""
        with EDGE:
            raise exception.InvalidError(
                f"{self._name} cannot be called like this",
                hint=f"{self._name}.remote(...) runs it elsewhere, {self._name}.local(...) in this process",
            )

    # --- variants

    def with_options(
        self,
        *,
        cpu: float | tuple[float, float] | None = None,
        memory: int | tuple[int, int] | None = None,
        gpu: str | Sequence[str] | None = None,
        env: Mapping[str, str | None] | None = None,
        secrets: "Sequence[Secret] | None" = None,
        volumes: "Mapping[str | PurePosixPath, Volume]" = {},  # noqa: B006 - never changed
        retries: "int | Retries | None" = None,
        max_containers: int | None = None,
        buffer_containers: int | None = None,
        scaledown_window: int | None = None,
        timeout: int | None = None,
        region: str | Sequence[str] | None = None,
        cloud: str | None = None,
        routing_region: str | None = None,
    ) -> "Function[P, R, O]":
        """Return this function with other options, and containers of its own.

        May be called again on what it returns. What is not given, or is empty, stays as it was; `env` and
        `secrets` take the place of earlier ones. The parameters are those of `App.function`.

        Raises:
            InvalidError: a parameter cannot be what it is.
        """
        options = {name: value for name, value in locals().items() if name != "self"}
        return self._variant(lambda given: given.with_options(options))

    def with_concurrency(self, *, max_inputs: int, target_inputs: int | None = None) -> "Function[P, R, O]":
        """Return this function with other numbers of inputs at once: see `concurrent`."""
        from tidemill import _partial
        from tidemill._wire.variants import Changes

        changes = Changes(concurrency=_partial.concurrency(max_inputs, target_inputs))
        return self._variant(lambda given: given.with_changes(changes))

    def with_batching(self, *, max_batch_size: int, wait_ms: int) -> "Function[P, R, O]":
        """Return this function with other batches: see `batched`."""
        from tidemill import _partial
        from tidemill._wire.variants import Changes

        if self._raw is not None:
            _partial.check_batched(self._raw)
        changes = Changes(batching=_partial.batching(max_batch_size, wait_ms))
        return self._variant(lambda given: given.with_changes(changes))

    def _variant(self, change: "Callable[[Given], Given]") -> "Function[P, R, O]":
        """Return this function with something else given."""
        from tidemill._variants import Bound, Given, Variant

        made = Bound(Variant(self, change(Given())), raw=self._raw, is_generator=self._is_generator)
        return cast("Function[P, R, O]", made)

    # --- what it does and did

    @property
    def autoscaler(self) -> "Autoscaler":
        """The settings that its containers are started and stopped by: see `Autoscaler`."""
        from tidemill._autoscaler import Autoscaler

        return Autoscaler(self)

    @_sync.method
    async def update_autoscaler(
        self,
        *,
        min_containers: int | None = None,
        max_containers: int | None = None,
        buffer_containers: int | None = None,
        scaledown_window: int | None = None,
    ) -> "FunctionAutoscalerSettings":
        """Change how many containers it has, until its app is deployed again. Return all settings.

        Args:
            min_containers: kept warm, 0 or more.
            max_containers: at most, 1 or more; calls beyond wait.
            buffer_containers: idle ones kept beside those that work, while it is called.
            scaledown_window: seconds after which an idle one ends, 2 to 3,600.

        What is None stays as it is.

        Raises:
            InvalidError: a number out of range, or a minimum above the maximum.
            ConflictError: it is pinned to a version that is no longer the newest.
        """
        from tidemill import _autoscaler

        return await _autoscaler.update(
            self,
            min_containers=min_containers,
            max_containers=max_containers,
            buffer_containers=buffer_containers,
            scaledown_window=scaledown_window,
        )

    @_sync.method
    async def get_current_stats(self) -> "FunctionCurrentStats":
        """Return how much waits and runs at this moment."""
        from tidemill import _autoscaler

        return await _autoscaler.stats(self)

    @property
    def logs(self) -> "Logs":
        """What the function's containers printed: see `Logs`."""
        from tidemill import _client, _logs

        async def find() -> "_logs.Origin":
            client = _client.current(self._client)
            handle = await self._find(client)
            return await _logs.of_function(client, handle.app_id, handle.name, handle.function_id)

        return _logs.Logs(find)

    @_sync.method
    async def info(self, *, refresh: bool = False) -> FunctionInfo:
        """Return what the server knows about it."""
        from tidemill import _client

        handle = await self._find(_client.current(self._client), refresh=refresh)
        return FunctionInfo(
            function_id=handle.function_id,
            name=handle.name,
            app_id=handle.app_id,
            is_generator=handle.is_generator,
            timeout=handle.timeout,
            web_url=handle.web_url,
        )

    @_sync.method
    async def get_web_url(self) -> str | None:
        """Return its URL, or None if it is not a web function."""
        from tidemill import _client

        client = _client.current(self._client)
        handle = await self._find(client)
        url = handle.web_url
        if handle.web_label and url is None:  # a container is not told where the gateway is
            from tidemill import _following

            found = await _following.look_up(client, Lookup(function_id=handle.function_id))
            url = found.web_urls().get(handle.method) if handle.method else found.web_url
        return url and url + self._web_query()

    def _web_query(self) -> str:
        """Return what its URL says beside the address: the parameters of the object whose method it is."""
        return ""

    def get_raw_f(self) -> Callable[P, O]:
        """Return the Python function."""
        if self._raw is None:
            raise exception.ExecutionError(f"the code of {self._name} is not in this process")
        return self._raw

    def __repr__(self) -> str:
        return f"Function({self._name!r})"

    # --- travelling

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel without the code: as what finds the function, or, if it is not deployed, as its handle.

        What is looked up where it arrives goes along with deployments there.
        """
        is_generator = self.is_generator if self._present_handle() else self._is_generator
        return _arrive, (self._name, self._present_handle(), self._travelling_lookup(), is_generator)


def _itself(value: Any) -> Any:
    return value


def _arrive(
    name: str, handle: "FunctionHandle | None", lookup: Lookup | None, is_generator: bool | None
) -> Function[..., Any, Any]:
    """Rebuild a function that travelled."""
    function: Function[..., Any, Any] = Function(None, name=name, is_generator=is_generator)
    function._lookup = lookup
    if lookup is None or lookup.version is not None:
        function._handle = handle
    elif handle is not None:  # there may be another version by now: it is looked up when it is used
        function._known_id = handle.function_id
    return function
