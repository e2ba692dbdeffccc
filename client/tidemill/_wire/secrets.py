"""Requests about secrets, and their answers. Values go in, and come out only for a container's worker."""

from dataclasses import field

from tidemill._dataclass import dataclass


@dataclass(frozen=True, slots=True)
class SecretInfo:
    """A secret without its values. `name` is None for values that belong to no name."""

    secret_id: str
    name: str | None
    environment: str
    created: float
    updated: float
    keys: tuple[str, ...] = ()
    last_used: float | None = None
    created_by: str = ""
    updated_by: str = ""


@dataclass(frozen=True, slots=True)
class PutSecret:
    """`put_secret`: store a named secret. Answered by `SecretInfo`.

    Without `overwrite` a name that is taken is an `AlreadyExistsError`. With `merge` the values are added
    to those that are there (`Secret.update`). With `seen` it has to be there as it was seen, else that is a
    `ConflictError`.
    """

    name: str
    values: dict[str, str] = field(repr=False)
    environment: str = "main"
    overwrite: bool = False
    merge: bool = False
    seen: SecretInfo | None = None


@dataclass(frozen=True, slots=True)
class PutAppSecret:
    """`put_app_secret`: store values that belong to no name (`from_dict` and the like).

    Answered by `SecretInfo`. The same values of one environment are the same secret, so that a repeated
    deployment finds nothing changed. One that no app uses any more is deleted some time later.
    """

    values: dict[str, str] = field(repr=False)
    environment: str = "main"


@dataclass(frozen=True, slots=True)
class GetSecret:
    """`get_secret`: what is known of a named secret, without values. Answered by `SecretInfo`.

    `required_keys` that it lacks are an `InvalidError` which names them.
    """

    name: str
    environment: str = "main"
    required_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ListSecrets:
    """`list_secrets`: the named ones of an environment, by name. Answered by `SecretList`."""

    environment: str = "main"
    limit: int = 1000
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class SecretList:
    """The answer to `ListSecrets`."""

    secrets: tuple[SecretInfo, ...]
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class DeleteSecret:
    """`delete_secret`: answered by `Done`; `NotFoundError` unless `allow_missing`."""

    name: str
    environment: str = "main"
    allow_missing: bool = False
    seen: SecretInfo | None = None


@dataclass(frozen=True, slots=True)
class RevealSecrets:
    """`tm.secrets.<workspace>.reveal`: a worker asks for what a container is to find in its environment.

    Only workers may ask. `pool` must use these secrets. Answered by `Revealed`.
    """

    pool: str
    secrets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Revealed:
    """The answer to `RevealSecrets`: the values of all of them, later ones before earlier ones."""

    values: dict[str, str] = field(repr=False)
