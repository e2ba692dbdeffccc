"""An app as the server has it: its name, its record there, and what can be done with it once it stands."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tidemill import _names, _runtime, _sync
from tidemill.exception import InvalidError

if TYPE_CHECKING:
    from tidemill._client import Client
    from tidemill._deploying import AppInfo, Record
    from tidemill._options import Declaration, Defaults
    from tidemill._wire.control import FunctionHandle
    from tidemill.app import App
    from tidemill.functions import Function


class Standing:
    """What an app can do when it runs or is deployed. `_record` is there as long as it does."""

    def __init__(self, name: str | None, tags: Mapping[str, str] | None) -> None:
        self._name = None if name is None else _names.check_object("an app", name)
        self._tags = _names.check_tags(tags or {})
        self._functions: dict[str, Function[..., Any, Any]] = {}
        self._declared: dict[str, tuple[Declaration, Defaults]] = {}
        self._app_id: str | None = None
        self._record: Record | None = None

    @property
    def name(self) -> str | None:
        """The name that was given, or None."""
        return self._name

    @property
    def app_id(self) -> str | None:
        """The id (`ap-...`) of an app that was run, deployed or looked up here, else None."""
        if self._app_id is None and _runtime.container is not None and self._is_containers():
            return _runtime.container.app_id
        return self._app_id

    @property
    def description(self) -> str | None:
        """The name, or what else tells which program this is."""
        return self._name or " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200]

    # --- deploying

    @_sync.method
    async def deploy(
        self,
        *,
        name: str | None = None,
        environment_name: str | None = None,
        tag: str = "",
        client: "Client | None" = None,
        strategy: str = "rolling",
    ) -> "App":
        """Make the app stay on the server: callable by name until it is stopped. Returns this app.

        Every deployment is a numbered version. One that changes nothing is skipped; functions that are
        not declared any more disappear.

        Args:
            name: its name there, instead of the app's.
            environment_name: the environment to deploy to; the configured one by default.
            tag: what this version is called in its history, for instance a commit. Up to 50 characters.
            client: the connection to use; the process's own by default.
            strategy: `rolling` lets containers of the version before finish what they do, `recreate`
                stops them at once.

        Raises:
            InvalidError: it has no name, something cannot be sent, or a module is being imported by a
                container or command line.
            NotFoundError: there is no such environment, or a secret is not there.
            ConnectionError: no server runs that it could stay on.
        """
        from tidemill import _client, _deploying, _output, config

        wanted = _deploying.Wanted(name, config.environment(environment_name), tag, strategy)
        record, handles = await _deploying.deploy(self, wanted, _client.current(client), _output.current())
        self._stand(record, handles, wanted.name or self._name or "", wanted.environment)
        return cast("App", self)

    @_sync.class_method
    async def lookup(
        cls: "type[App]",  # noqa: N805
        name: str,
        *,
        client: "Client | None" = None,
        environment_name: str | None = None,
        create_if_missing: bool = False,
    ) -> "App":
        """Return a deployed app by its name. It has no functions here: see `Function.from_name`.

        Args:
            name: its name.
            client: the connection to use; the process's own by default.
            environment_name: the environment; the configured one by default.
            create_if_missing: make an app without functions if there is none.

        Raises:
            NotFoundError: there is no such app.
        """
        from tidemill import _client, _deploying, config

        app = cls(name)
        app._record = await _deploying.lookup(
            name,
            _client.current(client),
            config.environment(environment_name),
            create_if_missing=create_if_missing,
        )
        app._app_id = app._record.app_id
        return app

    @_sync.method
    async def stop(self, *, client: "Client | None" = None) -> None:
        """End the app, running or deployed: its containers stop, its name is free.

        Raises:
            InvalidError: it neither runs nor was deployed or looked up here.
        """
        from tidemill import _deploying

        record = self._reach(client)
        await _deploying.stop(record)
        self._record = None
        self._fall(record)

    @_sync.method
    async def info(self, refresh: bool = False) -> "AppInfo":  # noqa: ARG002 - it is always asked for
        """Return what the server knows about the app.

        Raises:
            InvalidError: it neither runs nor was deployed or looked up here.
        """
        from tidemill import _deploying

        return await _deploying.info(self._reach())

    @_sync.method
    async def get_dashboard_url(self) -> str:
        """Return where the running or deployed app can be looked at.

        Raises:
            InvalidError: it neither runs nor was deployed or looked up here.
        """
        from tidemill import _deploying

        record = self._reach()
        return record.url or _deploying.page(record.app_id)

    @_sync.method
    async def set_tags(self, tags: Mapping[str, str], *, client: "Client | None" = None) -> None:
        """Replace all tags, of the running or deployed app at once, else for when it starts.

        Raises:
            InvalidError: a tag cannot be one.
        """
        from tidemill import _deploying

        checked = _names.check_tags(tags)
        if (record := self._reached(client)) is not None:
            await _deploying.set_tags(record, checked)
        self._tags = checked

    @_sync.method
    async def get_tags(self, *, client: "Client | None" = None) -> dict[str, str]:
        """Return the tags: of the running or deployed app those that the server has."""
        from tidemill import _deploying

        record = self._reached(client)
        return dict(self._tags) if record is None else await _deploying.get_tags(record)

    # --- what it is on the server

    def _stand(
        self, record: "Record", handles: "Mapping[str, FunctionHandle]", name: str = "", environment: str = ""
    ) -> None:
        """Take the record of a run or a deployment, and what the functions are called through.

        A deployment is found by its `name` and `environment` from elsewhere.
        """
        from tidemill._handled import Lookup

        self._record, self._app_id = record, record.app_id
        for key, handle in handles.items():
            if key in self._functions:
                lookup = Lookup(name, key, environment) if name else None
                self._functions[key]._hydrate(handle, record.client, lookup)

    def _fall(self, record: "Record") -> None:
        """Leave the functions to other apps that have them: this one does not stand any more."""
        for function in self._functions.values():
            function._unhydrate(record.app_id)

    def _reached(self, client: "Client | None" = None) -> "Record | None":
        """Return the record of the app that runs or was deployed; in its containers it is theirs."""
        record = self._record
        if record is None and self._is_containers():
            from tidemill import _deploying

            record = _deploying.of_container()
        return record if record is None or client is None else record._replace(client=client)

    def _reach(self, client: "Client | None" = None) -> "Record":
        record = self._reached(client)
        if record is None:
            raise InvalidError(
                "the app neither runs nor is deployed by this program",
                hint='find a deployed one by its name: App.lookup("name")',
            )
        return record

    def _is_containers(self) -> bool:
        container = _runtime.container
        return container is not None and container.app_name == (self._name or "")
