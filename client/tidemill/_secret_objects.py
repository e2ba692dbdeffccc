"""Secrets that have a name: how they are made, listed, changed and deleted on the server."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING

from tidemill import _names, _sync
from tidemill.exception import AlreadyExistsError

if TYPE_CHECKING:
    import datetime

    from tidemill._client import Client
    from tidemill._wire import secrets as wire
    from tidemill.secret import Secret


class SecretObjects:
    """The named secrets of an environment: `Secret.objects`."""

    @_sync.method
    async def create(
        self,
        name: str,
        env_dict: Mapping[str, str | None],
        *,
        allow_existing: bool = False,
        environment_name: str | None = None,
        client: "Client | None" = None,
    ) -> None:
        """Store variables under a name; those that are None are left out.

        Args:
            name: up to 64 letters, digits, `-`, `_` and `.`.
            env_dict: the variables.
            allow_existing: leave a secret of this name as it is, instead of raising.
            environment_name: the environment; the configured one by default.
            client: the connection to use.

        Raises:
            AlreadyExistsError: there is one of this name.
            InvalidError: the name or a variable cannot be one.
        """
        values = _names.check_variables("Secret.objects.create", env_dict)
        try:
            await store(name, values, environment_name=environment_name, client=client)
        except AlreadyExistsError:
            if not allow_existing:
                raise

    @_sync.method
    async def list(
        self,
        *,
        max_objects: int | None = None,
        created_before: "datetime.datetime | None" = None,
        environment_name: str | None = None,
        client: "Client | None" = None,
    ) -> "Sequence[Secret]":
        """Return the named secrets, by name.

        Args:
            max_objects: the most to return; all by default.
            created_before: only older ones.
            environment_name: the environment; the configured one by default.
            client: the connection to use.
        """
        from tidemill import _client, config
        from tidemill.secret import Secret

        connection, environment = _client.current(client), config.environment(environment_name)
        found = [
            Secret._known(info, connection)
            async for info in _all(connection, environment)
            if created_before is None or info.created < created_before.timestamp()
        ]
        return found[:max_objects]

    @_sync.method
    async def delete(
        self,
        name: str,
        *,
        allow_missing: bool = False,
        environment_name: str | None = None,
        client: "Client | None" = None,
    ) -> None:
        """Delete a named secret. Containers that run keep what they have.

        Args:
            name: its name.
            allow_missing: do nothing when there is none, instead of raising.
            environment_name: the environment; the configured one by default.
            client: the connection to use.

        Raises:
            NotFoundError: there is none of this name.
        """
        from tidemill import _client, config
        from tidemill._wire.control import Done
        from tidemill._wire.secrets import DeleteSecret

        message = DeleteSecret(
            _names.check_object("a secret", name), config.environment(environment_name), allow_missing
        )
        await _client.current(client).request("registry", "delete_secret", message, Done)


async def store(
    name: str,
    values: Mapping[str, str],
    *,
    environment_name: str | None = None,
    client: "Client | None" = None,
    overwrite: bool = False,
    merge: bool = False,
) -> "wire.SecretInfo":
    """Store variables under a name: new, in place of what is there, or added to it."""
    from tidemill import _client, config
    from tidemill._wire import secrets as wire

    _names.check_object("a secret", name)
    environment = config.environment(environment_name)
    message = wire.PutSecret(name, dict(values), environment, overwrite or merge, merge)
    return await _client.current(client).request("registry", "put_secret", message, wire.SecretInfo)


async def _all(client: "Client", environment: str) -> "AsyncIterator[wire.SecretInfo]":
    from tidemill._wire import secrets as wire

    cursor = ""
    while True:
        message = wire.ListSecrets(environment, cursor=cursor)
        page = await client.request("registry", "list_secrets", message, wire.SecretList)
        for info in page.secrets:
            yield info
        cursor = page.cursor
        if not cursor:
            return
