"""A function by its handle: published by an app of this process, found by name, or known to a container."""

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

from tidemill import _runtime, exception
from tidemill._dataclass import dataclass

if TYPE_CHECKING:
    from tidemill._client import Client
    from tidemill._wire.control import FunctionHandle
    from tidemill.app import App


@dataclass(frozen=True, slots=True)
class Lookup:
    """How a function that was not declared here is found.

    `like` is a pool of it: a variant with the same options and parameters is meant.
    """

    app_name: str = ""
    name: str = ""
    environment: str = ""
    version: int | None = None
    function_id: str = ""
    like: str = ""


class Published(NamedTuple):
    """What an app that runs or is deployed gave a function: how it is called, and how others find it."""

    handle: "FunctionHandle"
    client: "Client | None"
    lookup: Lookup | None


class Handled:
    """What is called through a handle; what calls it is `Function`."""

    def __init__(
        self, name: str, app: "App | None", client: "Client | None", *, is_generator: bool | None
    ) -> None:
        self._name = name
        self._app = app
        self._is_generator = is_generator
        self._client = client
        self._handle: FunctionHandle | None = None
        self._lookup: Lookup | None = None
        self._known_id = ""  # while there is no handle
        self._published: dict[str, Published] = {}  # by app; it is called through the last one

    @property
    def name(self) -> str:
        """Return its name in its app."""
        return self._name

    @property
    def app(self) -> "App":
        """Return the app that it was declared in."""
        if self._app is None:
            raise exception.ExecutionError(f"{self._name} was not declared in this process")
        return self._app

    @property
    def is_generator(self) -> bool:
        """Return whether it yields."""
        handle = self._present_handle()
        if handle is not None:
            return handle.is_generator
        return bool(self._is_generator)

    @property
    def is_hydrated(self) -> bool:
        """Return whether the server knows it and it can be called."""
        return self._present_handle() is not None

    @property
    def object_id(self) -> str:
        """Return its id (`fu-...`)."""
        handle = self._present_handle()
        if handle is None and not self._known_id:
            raise self._not_hydrated()
        return self._known_id if handle is None else handle.function_id

    # --- from an app of this process

    def _hydrate(
        self, handle: "FunctionHandle", client: "Client | None", lookup: Lookup | None = None
    ) -> None:
        """Take the handle that the server gave for this function (called by the app that publishes it).

        With `lookup` it stays there, and other processes find it so.
        """
        self._published.pop(handle.app_id, None)
        self._published[handle.app_id] = Published(handle, client, lookup)
        self._handle, self._client = handle, client

    def _unhydrate(self, app_id: str) -> None:
        """Forget what an app gave: it ends. Another that has the function too goes on being called."""
        if self._published.pop(app_id, None) is not None:
            last = next(reversed(self._published.values()), None)
            self._handle, self._client = (last.handle, last.client) if last else (None, None)

    # --- found

    def _present_handle(self) -> "FunctionHandle | None":
        """Return the handle if it is here: published, found before, or known to this container."""
        if self._handle is None and self._lookup is None and _runtime.container is not None:
            self._handle = _runtime.container.handles.get(self._name)
        return self._handle

    async def _find(self, client: "Client", *, refresh: bool = False) -> "FunctionHandle":
        """Return the handle, asking the registry if need be."""
        handle = self._present_handle()
        if handle is not None and not (refresh and self._lookup):
            return handle
        if self._lookup is None:
            raise self._not_hydrated()
        from tidemill import _following

        self._handle = handle = await _following.find(client, self, self._lookup, refresh=refresh)
        self._name = handle.name
        return handle

    def _travelling_lookup(self) -> Lookup | None:
        """Return what finds this function from elsewhere; the environment may be another one there."""
        handle, lookup = self._present_handle(), self._lookup
        if lookup is None and handle is not None:
            if handle.app_id in self._published:
                return self._published[handle.app_id].lookup
            if _runtime.container is not None:
                return Lookup(function_id=handle.function_id)
        if lookup is None or lookup.function_id:
            return lookup
        from tidemill import config

        return dataclasses.replace(lookup, environment=config.environment(lookup.environment))

    # --- refused

    def _check_present(self, method: str) -> None:
        """Refuse, as early as it can be known, what cannot be called in this way."""
        handle = self._present_handle()
        if handle is not None:
            self._check_callable(handle, method)
        elif not self._can_be_found:
            raise self._not_hydrated()
        else:
            self._check_reachable()

    @property
    def _can_be_found(self) -> bool:
        """Whether the server can be asked for it."""
        return self._lookup is not None

    def _check_reachable(self) -> None:
        from tidemill import _client

        _client.current(self._client).check_lasting()  # a stack that starts for this knows no app

    def _check_callable(self, handle: "FunctionHandle", method: str = "remote") -> None:
        if handle.methods is not None:
            raise exception.InvalidError(
                f"{self._name} is a class, which .{method} cannot call",
                hint=f"find it with Cls.from_name, make an object, and call .{method} of a method",
            )
        if handle.is_generator and method == "remote":
            raise exception.InvalidError(
                f"{self._name} is a generator, which .remote cannot call",
                hint="use .remote_gen() to iterate what it yields, .map or .spawn to get it as a list",
            )
        if handle.web_label:
            raise exception.InvalidError(
                f"{self._name} is a web function, which .{method} cannot call",
                hint=f"send requests to {handle.web_url or 'its URL, which .get_web_url() tells'}",
            )

    def _not_hydrated(self) -> exception.ExecutionError:
        return exception.ExecutionError(
            f"{self._name} is called outside of a running app",
            hint="call it inside `with app.run():`, or run the file with `tidemill run`",
        )
