"""`App`: functions that belong together, run together, and whose output is collected together."""

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import (
    TYPE_CHECKING,
    Any,
    NoReturn,
    ParamSpec,
    Self,
    TypeVar,
    dataclass_transform,
)

from tidemill import (
    _entrypoint,
    _later,
    _names,
    _parameters,
    _sync,
    secret,
    volume,
)
from tidemill import image as images
from tidemill._declaring import Declaring, check_parentheses, is_rerun
from tidemill._decorators import ClassDecorator, EntrypointDecorator, FunctionDecorator
from tidemill._entrypoint import LocalEntrypoint
from tidemill._options import Defaults
from tidemill.exception import InvalidError
from tidemill.functions import Function

if TYPE_CHECKING:
    from tidemill._client import Client
    from tidemill._logs import Logs
    from tidemill._running import Running
    from tidemill.image import Image
    from tidemill.retries import Retries
    from tidemill.schedule import Schedule
    from tidemill.secret import Secret
    from tidemill.volume import Volume

P = ParamSpec("P")
R = TypeVar("R")


class App(Declaring, metaclass=_later.Listed):
    """A group of functions that run, and are deployed, together.

    Args:
        name: letters, digits, `-`, `_` and `.`, at most 64.
        tags: up to 10 pairs of short texts.
        image: the image of functions that name none. Default `Image.debian_slim()`.
        secrets: given to all functions.
        volumes: mounted by all functions, by path.
        include_source: whether functions take their own code along. Default True.

    Example:
        app = tidemill.App("hello")

        @app.function()
        def square(x: int) -> int:
            return x * x

        with app.run():
            print(square.remote(7))
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        tags: Mapping[str, str] | None = None,
        image: "Image | None" = None,
        secrets: "Sequence[Secret]" = (),
        volumes: "Mapping[str | PurePosixPath, Volume]" = {},  # noqa: B006 - never changed
        include_source: bool = True,
    ) -> None:
        if not isinstance(include_source, bool):
            raise InvalidError(f"include_source has to be True or False, not {include_source!r}")
        defaults = Defaults(
            image=images.check(image),
            secrets=secret.check(secrets),
            volumes=volume.check(volumes),
            include_source=include_source,
        )
        super().__init__(name, tags, defaults)
        self._running: Running | None = None
        self._is_starting = False

    # --- what it is

    @property
    def logs(self) -> "Logs":
        """What the app's containers printed: see `Logs`. The app has to run, to be deployed or stopped."""
        from tidemill import _client, _logs

        async def find() -> "_logs.Origin":
            named = self.app_id or self._name
            if not named:
                raise InvalidError("an app without a name that has never run has no logs")
            record = self._reached()
            client = _client.current(record.client if record is not None else None)
            return await _logs.of_app(client, named)

        return _logs.Logs(find)

    @property
    def is_running(self) -> bool:
        """Whether it runs now, started by this process."""
        return self._running is not None

    def __repr__(self) -> str:
        return f"App({self._name!r})" if self._name else "App()"

    def __reduce__(self) -> tuple[type["App"], tuple[str | None]]:
        # What a pickled function refers to. Its functions travel by themselves.
        return App, (self._name,)

    # --- declaring

    def function(
        self,
        _warn_parentheses_missing: None = None,
        *,
        image: "Image | None" = None,
        schedule: "Schedule | None" = None,
        env: Mapping[str, str | None] | None = None,
        secrets: "Sequence[Secret] | None" = None,
        gpu: str | Sequence[str] | None = None,
        serialized: bool = False,
        network_file_systems: Mapping[str | PurePosixPath, Any] = {},
        volumes: "Mapping[str | PurePosixPath, Volume]" = {},  # noqa: B006 - never changed
        cpu: float | tuple[float, float] | None = None,
        memory: int | tuple[int, int] | None = None,
        ephemeral_disk: int | None = None,
        min_containers: int | None = None,
        max_containers: int | None = None,
        buffer_containers: int | None = None,
        scaledown_window: int | None = None,
        proxy: None = None,
        retries: "int | Retries | None" = None,
        timeout: int = 300,
        startup_timeout: int | None = None,
        name: str | None = None,
        is_generator: bool | None = None,
        cloud: str | None = None,
        region: str | Sequence[str] | None = None,
        routing_region: str | None = None,
        nonpreemptible: bool = False,
        enable_memory_snapshot: bool = False,
        block_network: bool = False,
        restrict_modal_access: bool = False,
        single_use_containers: bool = False,
        i6pn: bool | None = None,
        include_source: bool | None = None,
        experimental_options: Mapping[str, Any] | None = None,
        _experimental_restrict_output: bool = False,
        max_inputs: int | None = None,
    ) -> FunctionDecorator:
        """Return a decorator that makes a Python function run in containers of this app.

        Args:
            image: the environment it runs in; the app's by default.
            schedule: a `Cron` or a `Period` at which it runs by itself, while the app is deployed or running.
            env: environment variables; None leaves one out.
            secrets: further environment variables.
            gpu: a type with an optional count (`"H100:2"`), a list in order of preference, or `"any"`.
            serialized: send the function itself, pickled, instead of having containers import its module.
            network_file_systems, proxy: not in this version.
            volumes: mounts by path.
            cpu: cores, or (request, limit). Default 0.125.
            memory: MiB, or (request, limit). Default 128.
            ephemeral_disk: MiB.
            min_containers: containers that always wait. Default 0.
            max_containers: the most containers at once; the rest of the inputs wait.
            buffer_containers: idle containers to keep beyond the busy ones.
            scaledown_window: seconds that an idle container stays, 2 to 3,600. Default 60.
            retries: how often a failed input is tried again: a number, one second apart, or `Retries`.
            timeout: seconds that one input may run, 1 to 86,400.
            startup_timeout: seconds for import and set-up. Default: the same as `timeout`.
            name: its name within the app. Default: the function's own.
            is_generator: say so if it returns a generator without being one.
            cloud, region: labels that its workers must carry.
            routing_region, nonpreemptible, i6pn, experimental_options: kept with the function.
            enable_memory_snapshot: fork containers from a process in which the module is imported and the
                hooks under `@enter(snap=True)` have run. Where that cannot be, they start as usual.
            block_network: no network in its containers.
            restrict_modal_access: no calls to other functions from its containers.
            single_use_containers: a new container for every input.
            include_source: whether its own code goes along. Default: as the app says.
            max_inputs: the older name of `single_use_containers`, for the value 1.

        Raises:
            InvalidError: a parameter cannot be what it is.
            UnimplementedError: one asks for what this version does not have.
        """
        given = {
            key: value for key, value in locals().items() if key not in ("self", "_warn_parentheses_missing")
        }
        check_parentheses("@app.function", _warn_parentheses_missing)

        def decorate(function: Callable[..., Any]) -> Function[..., Any, Any]:
            return self._declare(function, given)

        return decorate  # type: ignore[return-value]  # its exact type is the protocol's

    @dataclass_transform(kw_only_default=True, field_specifiers=(_parameters.parameter,))
    def cls(
        self,
        _warn_parentheses_missing: None = None,
        *,
        image: "Image | None" = None,
        env: Mapping[str, str | None] | None = None,
        secrets: "Sequence[Secret] | None" = None,
        gpu: str | Sequence[str] | None = None,
        serialized: bool = False,
        network_file_systems: Mapping[str | PurePosixPath, Any] = {},
        volumes: "Mapping[str | PurePosixPath, Volume]" = {},  # noqa: B006 - never changed
        cpu: float | tuple[float, float] | None = None,
        memory: int | tuple[int, int] | None = None,
        ephemeral_disk: int | None = None,
        min_containers: int | None = None,
        max_containers: int | None = None,
        buffer_containers: int | None = None,
        scaledown_window: int | None = None,
        proxy: None = None,
        retries: "int | Retries | None" = None,
        timeout: int = 300,
        startup_timeout: int | None = None,
        cloud: str | None = None,
        region: str | Sequence[str] | None = None,
        routing_region: str | None = None,
        nonpreemptible: bool = False,
        enable_memory_snapshot: bool = False,
        block_network: bool = False,
        restrict_modal_access: bool = False,
        single_use_containers: bool = False,
        i6pn: bool | None = None,
        include_source: bool | None = None,
        experimental_options: Mapping[str, Any] | None = None,
        _experimental_restrict_output: bool = False,
        max_inputs: int | None = None,
    ) -> ClassDecorator:
        """Return a decorator for a class whose objects live in containers of this app: see `Cls`.

        The parameters are those of `App.function`, for all methods; numbers of containers are for each set
        of the class's parameters.

        Raises:
            InvalidError: a parameter cannot be what it is, or the class cannot be one of these.
            UnimplementedError: one asks for what this version does not have.
        """
        given = {
            key: value for key, value in locals().items() if key not in ("self", "_warn_parentheses_missing")
        }
        check_parentheses("@app.cls", _warn_parentheses_missing)
        return self._class_decorator(given)

    def local_entrypoint(
        self, _warn_parentheses_missing: None = None, *, name: str | None = None
    ) -> EntrypointDecorator:
        """Return a decorator for a function that `tidemill run` runs here, while the app runs.

        Its parameters become options of the command line: `str`, `int`, `float`, `bool`,
        `datetime.datetime`, `Optional` and `Literal` of them.

        Args:
            name: the name that the command line knows it by. Default: the function's own.

        Raises:
            InvalidError: parentheses are missing, or the name is taken.
        """
        check_parentheses("@app.local_entrypoint", _warn_parentheses_missing)
        if name is not None and not isinstance(name, str):
            raise InvalidError(f"the name of an entrypoint has to be a string, not {name!r}")

        def decorate(function: Callable[P, R]) -> LocalEntrypoint[P, R]:
            if not callable(function) or isinstance(function, Function):
                raise InvalidError(f"@app.local_entrypoint() is for plain functions, not {function!r}")
            key = name or function.__qualname__
            before = self._entrypoints.get(key)
            if before is not None and not is_rerun(before, function):
                raise InvalidError(f"two local entrypoints are named {key!r}")
            entrypoint = LocalEntrypoint(function, self, key)
            self._entrypoints[key] = entrypoint
            return entrypoint

        return decorate

    def include(self, /, other_app: "App", inherit_tags: bool = True) -> Self:
        """Add the functions of another app to this one, which runs them from then on; return this app.

        Args:
            other_app: the app whose functions are added.
            inherit_tags: take its tags too; where both have one, this app's stays.
        """
        if not isinstance(other_app, App):
            raise InvalidError(f"App.include takes an App, not {other_app!r}")
        for name, function in other_app._functions.items():
            self._add(function, *other_app._declared[name])
            if name in other_app._classes:
                self._classes[name] = other_app._classes[name]
        if inherit_tags:
            self._tags = {**other_app._tags, **self._tags}
        return self

    # --- running

    @_sync.context
    @contextlib.asynccontextmanager
    async def run(
        self,
        *,
        name: str | None = None,
        client: "Client | None" = None,
        detach: bool = False,
        interactive: bool = False,
        environment_name: str | None = None,
    ) -> AsyncGenerator["App", None]:
        """Run the app while this block runs: `with app.run():` or `async with app.run():`.

        Leaving the block stops all its containers.

        Args:
            name: the name of this run, instead of the app's.
            client: the connection to use; the process's own by default.
            detach: let the app go on after the block.
            interactive: lend this process's terminal to functions that ask for it, by `interact()`,
                `breakpoint()` or `input()`, one at a time.
            environment_name: the environment to run in; the configured one by default.

        Raises:
            InvalidError: it runs already, or a module is being imported by a container or command line, or
                there is no terminal for an interactive run.
            ConnectionError: no server can be reached, and none can be started.
        """
        from tidemill import _client, _deploying, _output, _plan, _running, config

        self._check_can_run(name, interactive=interactive)
        self._is_starting = True
        before, record = self._record, None
        try:
            plan = await _plan.make(self, name, config.environment(environment_name))
            connection = _client.current(client)
            run = _running.run(plan, connection, _output.current(), detach=detach, interactive=interactive)
            async with run as running:
                self._running = running
                record = _deploying.Record(running.app_id, running.url, connection)
                self._stand(record, running.handles)
                yield self
        finally:
            self._running, self._is_starting = None, False
            if self._record is record:  # it was not deployed meanwhile
                self._record = before
            if record is not None:
                self._fall(record)

    def _check_can_run(self, name: str | None, *, interactive: bool) -> None:
        from tidemill import _console

        if name is not None:
            _names.check_object("an app", name)
        if interactive and not _console.is_terminal():
            raise InvalidError(
                "an interactive run needs a terminal at standard input and output",
                hint="start it in a terminal, without a pipe",
            )
        if self._running is not None or self._is_starting:
            raise InvalidError("App is already running", hint="call the functions, inside of what runs it")
        _entrypoint.check_place("run")

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            raise _later.missing(self, name)
