"""Environment variables that a function gets when its container starts."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill import _dotenv, _later, _names, _runtime
from tidemill.exception import InvalidError, UnimplementedError

if TYPE_CHECKING:
    from tidemill._client import Client


class Secret(metaclass=_later.Listed):
    """A set of environment variables for containers. Made by one of its `from_...` methods.

    Example:
        `@app.function(secrets=[tidemill.Secret.from_dict({"TOKEN": "..."})])`
    """

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        raise InvalidError(
            "a Secret is not made by its class",
            hint="use Secret.from_dict, from_name, from_dotenv or from_local_environ",
        )

    _name: str | None
    _shown: str
    _read: Callable[[], dict[str, str]]

    @classmethod
    def _make(cls, shown: str, read: Callable[[], dict[str, str]], name: str | None = None) -> "Secret":
        secret = cls.__new__(cls)
        secret._name, secret._shown, secret._read = name, shown, read
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
        client: "Client | None" = None,  # noqa: ARG003 - part of the signature to match
    ) -> "Secret":
        """Return a secret with the variables of a `.env` file, read when the app starts.

        Args:
            path: a folder, or a file such as `__file__`: the search goes upwards from there. Default: the
                current folder.
            filename: the file's name. Default `.env`.

        Raises:
            InvalidError: when the app starts: there is no such file, or a line of it cannot be read.
        """
        start = Path.cwd() if path is None else Path(path)
        return cls._make("Secret.from_dotenv()", lambda: _read_dotenv(start, filename))

    @classmethod
    def from_name(
        cls,
        name: str,
        *,
        environment_name: str | None = None,  # noqa: ARG003 - part of the signature to match
        required_keys: Sequence[str] = (),
        client: "Client | None" = None,  # noqa: ARG003 - part of the signature to match
    ) -> "Secret":
        """Return the secret that is stored under a name. It is not looked at before the app starts.

        Args:
            name: the secret's name.
            environment_name: the environment it is in; the configured one by default.
            required_keys: variables that it must have.

        Raises:
            InvalidError: the name cannot be one.
        """
        _names.check_object("a secret", name)
        if isinstance(required_keys, str) or not all(isinstance(key, str) for key in required_keys):
            raise InvalidError(f"required_keys has to be a list of names, not {required_keys!r}")
        return cls._make(f"Secret.from_name({name!r})", lambda: _refuse(name), name)

    @property
    def name(self) -> str | None:
        """The name it is stored under, or None."""
        return self._name

    def _variables(self) -> dict[str, str]:
        """Return the variables, read now."""
        return self._read()

    def __repr__(self) -> str:
        return self._shown

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise _later.missing(self, name)


def _read_dotenv(start: Path, filename: str) -> dict[str, str]:
    path = _dotenv.find(start, filename)
    if path is None:
        raise InvalidError(f"no file {filename} in {start} or above it")
    return _names.check_variables(str(path), _dotenv.parse(path.read_text(encoding="utf-8")))


def _refuse(name: str) -> dict[str, str]:
    raise UnimplementedError(
        f"Secret.from_name({name!r}): stored secrets are not in this version of Tidemill",
        hint="use Secret.from_dict, from_dotenv or from_local_environ",
    )


def check(secrets: Any) -> tuple[Secret, ...]:
    """Return a decorator's `secrets=` as a tuple, or raise `InvalidError`."""
    if isinstance(secrets, Secret) or not isinstance(secrets, Sequence | set | frozenset):
        raise InvalidError(f"secrets has to be a list of Secret objects, not {secrets!r}")
    for secret in secrets:
        if not isinstance(secret, Secret):
            raise InvalidError(f"secrets has to be a list of Secret objects; this is none: {secret!r}")
    return tuple(secrets)
