"""Environment variables that a function gets when its container starts, and that nobody else sees."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from tidemill import _dotenv, _later, _names, _runtime, _sync
from tidemill._dataclass import dataclass
from tidemill._secret_objects import SecretObjects, store
from tidemill.exception import ExecutionError, InvalidError, NotFoundError

if TYPE_CHECKING:
    import datetime

    from tidemill._client import Client
    from tidemill._wire import secrets as wire


@dataclass(frozen=True, slots=True)
class SecretInfo:
    """What is known of a secret: its variables by name, never their values."""

    name: str | None
    created_at: "datetime.datetime"
    created_by: str
    secret_id: str
    environment: str
    keys: tuple[str, ...]
    updated_at: "datetime.datetime"
    last_used_at: "datetime.datetime | None"
    updated_by: str


class Secret(metaclass=_later.Listed):
    """A set of environment variables for containers. Made by one of its `from_...` methods.

    The values go to the server encrypted at rest, and to the containers of the functions that name the
    secret; they are in no specification, no log and no source that is sent.

    Example:
        `@app.function(secrets=[tidemill.Secret.from_name("database", required_keys=["PASSWORD"])])`
    """

    objects: ClassVar[SecretObjects] = SecretObjects()

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        raise InvalidError(
            "a Secret is not made by its class",
            hint="use Secret.from_dict, from_name, from_dotenv or from_local_environ",
        )

    _name: str | None
    _shown: str
    _read: Callable[[], dict[str, str]]
    _environment: str | None
    _required: tuple[str, ...]
    _client: "Client | None"
    _info: "wire.SecretInfo | None"

    @classmethod
    def _make(
        cls,
        shown: str,
        read: Callable[[], dict[str, str]],
        name: str | None = None,
        environment: str | None = None,
        required: tuple[str, ...] = (),
        client: "Client | None" = None,
    ) -> "Secret":
        secret = cls.__new__(cls)
        secret._name, secret._shown, secret._read = name, shown, read
        secret._environment, secret._required, secret._client = environment, required, client
        secret._info = None
        return secret

    @classmethod
    def _known(cls, info: "wire.SecretInfo", client: "Client") -> "Secret":
        """Return a named secret that the server told about."""
        assert info.name is not None
        secret = cls.from_name(info.name, environment_name=info.environment, client=client)
        secret._info = info
        return secret

    @classmethod
    def from_dict(cls, env_dict: Mapping[str, str | None] | None = None) -> "Secret":
        """Return a secret with these variables; those that are None are left out.

        Raises:
            InvalidError: a name or a value is not a string.
        """
        variables = _names.check_variables("Secret.from_dict", {} if env_dict is None else env_dict)
        return cls._make(f"Secret.from_dict([{', '.join(variables)}])", lambda: variables)

    @classmethod
    def from_local_environ(cls, env_keys: Sequence[str]) -> "Secret":
        """Return a secret with copies of variables of this process. In a container it is empty.

        Raises:
            InvalidError: a variable is not set.
        """
        if isinstance(env_keys, str) or not all(isinstance(key, str) for key in env_keys):
            raise InvalidError(f"env_keys has to be a list of names, not {env_keys!r}")
        keys = list(env_keys) if _runtime.is_local() else []
        if missing := [key for key in keys if key not in os.environ]:
            raise InvalidError(f"not set in this environment: {', '.join(missing)}")
        variables = {key: os.environ[key] for key in keys}
        return cls._make(f"Secret.from_local_environ([{', '.join(keys)}])", lambda: variables)

    @classmethod
    def from_dotenv(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        filename: str = ".env",
        client: "Client | None" = None,
    ) -> "Secret":
        """Return a secret with the variables of a `.env` file, read when the app starts.

        Args:
            path: a folder, or a file such as `__file__`: the search goes upwards from there. Default: the
                current folder.
            filename: the file's name. Default `.env`.
            client: the connection to use.

        Raises:
            InvalidError: when the app starts: there is no such file, or a line of it cannot be read.
        """
        start = Path.cwd() if path is None else Path(path)
        return cls._make("Secret.from_dotenv()", lambda: _read_dotenv(start, filename), client=client)

    @classmethod
    def from_name(
        cls,
        name: str,
        *,
        environment_name: str | None = None,
        required_keys: Sequence[str] = (),
        client: "Client | None" = None,
    ) -> "Secret":
        """Return the secret that is stored under a name. It is not looked at before it is needed.

        Args:
            name: the secret's name.
            environment_name: the environment it is in; by default that of the app which uses it.
            required_keys: variables that it must have: an app that uses it does not start otherwise.
            client: the connection to use.

        Raises:
            InvalidError: the name cannot be one.
        """
        _names.check_object("a secret", name)
        if isinstance(required_keys, str) or not all(isinstance(key, str) for key in required_keys):
            raise InvalidError(f"required_keys has to be a list of names, not {required_keys!r}")
        shown = f"Secret.from_name({name!r})"
        return cls._make(shown, dict, name, environment_name, tuple(required_keys), client)

    # --- what the server has

    @property
    def name(self) -> str | None:
        """The name it is stored under, or None."""
        return self._name

    @property
    def object_id(self) -> str:
        """Its id (`se-...`).

        Raises:
            ExecutionError: the server was not asked for it yet.
        """
        if self._info is None:
            raise ExecutionError(f"{self!r} has no id yet", hint="call .hydrate() first")
        return self._info.secret_id

    @property
    def is_hydrated(self) -> bool:
        """Whether the server was asked for it."""
        return self._info is not None

    @_sync.method
    async def hydrate(self, client: "Client | None" = None) -> Self:
        """Ask the server for it now; values that have no name are stored there.

        Raises:
            NotFoundError: there is none of this name.
            InvalidError: it lacks a required key.
        """
        self._client = client or self._client
        await self._ask()
        return self

    @_sync.method
    async def info(self, *, refresh: bool = False) -> SecretInfo:
        """Return what is known about it.

        Raises:
            NotFoundError: there is none of this name.
        """
        known = self._info if self._info is not None and not refresh else await self._ask()
        return SecretInfo(
            name=known.name,
            created_at=_time(known.created),
            created_by=known.created_by,
            secret_id=known.secret_id,
            environment=known.environment,
            keys=known.keys,
            updated_at=_time(known.updated),
            last_used_at=None if known.last_used is None else _time(known.last_used),
            updated_by=known.updated_by,
        )

    @_sync.method
    async def update(self, env_dict: Mapping[str, str]) -> None:
        """Set variables of a named secret, as `dict.update` does. Containers that start afterwards have them.

        Raises:
            NotFoundError: there is none of this name.
            InvalidError: it has no name, or a variable cannot be one.
        """
        if self._name is None:
            raise InvalidError(f"{self!r} has no name under which it could be changed")
        values = _names.check_variables("Secret.update", env_dict)
        known = await self._ask()
        self._info = await store(
            self._name, values, environment_name=known.environment, client=self._client, merge=True
        )

    async def _ask(self, environment: str | None = None) -> "wire.SecretInfo":
        from tidemill import _client

        self._info = await resolve(self, _client.current(self._client), environment)
        return self._info

    def _variables(self) -> dict[str, str]:
        """Return the variables that go to the server, read now; a named secret's are there already."""
        return self._read()

    def __repr__(self) -> str:
        return self._shown

    def __reduce__(self) -> tuple[Any, ...]:
        # Values stay here: a function that travels by value may refer to its secrets.
        return _arrive, (self._shown, self._name, self._environment, self._required)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise _later.missing(self, name)


# --- to the server


async def resolve(secret: Secret, client: "Client", environment: str | None = None) -> "wire.SecretInfo":
    """Return what the server has under a secret's name, or has made of its values.

    Raises:
        NotFoundError: there is none of this name.
        InvalidError: it lacks a required key, or cannot be read here.
    """
    from tidemill import config
    from tidemill._wire import secrets as wire

    where = config.environment(secret._environment or environment)
    if secret._name is None:
        message = wire.PutAppSecret(secret._variables(), where)
        return await client.request("registry", "put_app_secret", message, wire.SecretInfo)
    asked = wire.GetSecret(secret._name, where, secret._required)
    try:
        return await client.request("registry", "get_secret", asked, wire.SecretInfo)
    except NotFoundError as error:
        raise NotFoundError(
            f"there is no secret {secret._name!r} in the environment {where!r}",
            hint=f"make it with: tidemill secret create {secret._name} KEY=VALUE",
        ) from error


def _time(seconds: float) -> "datetime.datetime":
    import datetime

    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _arrive(shown: str, name: str | None, environment: str | None, required: tuple[str, ...]) -> Secret:
    """Rebuild a secret that travelled."""
    if name is not None:
        return Secret.from_name(name, environment_name=environment, required_keys=required)

    def refuse() -> dict[str, str]:
        raise InvalidError(f"the values of {shown} are not in this process")

    return Secret._make(shown, refuse)


def _read_dotenv(start: Path, filename: str) -> dict[str, str]:
    path = _dotenv.find(start, filename)
    if path is None:
        raise InvalidError(f"no file {filename} in {start} or above it")
    return _names.check_variables(str(path), _dotenv.parse(path.read_text(encoding="utf-8")))


def check(secrets: Any) -> tuple[Secret, ...]:
    """Return a decorator's `secrets=` as a tuple, or raise `InvalidError`."""
    if isinstance(secrets, Secret) or not isinstance(secrets, Sequence | set | frozenset):
        raise InvalidError(f"secrets has to be a list of Secret objects, not {secrets!r}")
    for secret in secrets:
        if not isinstance(secret, Secret):
            raise InvalidError(f"secrets has to be a list of Secret objects; this is none: {secret!r}")
    return tuple(secrets)
