"""What callers ask and are told: frozen dataclasses, packed as MessagePack maps.

The other messages of the control plane stand beside this module, by who needs them: a caller loads none of
them. Services check each message against its type when it arrives. Durations are seconds, memory
and disk MiB.
"""

from dataclasses import replace
from typing import Any

from tidemill._dataclass import dataclass


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """Why a request was refused. `code` is a key of `tidemill._wire.errors.CLASSES`."""

    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class FunctionHandle:
    """What a caller needs to call a function: ids and the subject prefix of its pool's inputs.

    A web function has a `web_label`, which its URL begins with. `web_url` is filled in where it is told.

    That of a class has `methods`: for each one, the fields in which its own handle differs (`of_method`);
    and `parameters`, each the fields of a `tidemill._wire.specs.Parameter`. `method` goes with every input.
    """

    function_id: str
    name: str
    app_id: str
    pool: str
    prefix: str
    is_generator: bool = False
    restrict_output: bool = False
    timeout: float = 300.0
    web_url: str | None = None
    web_label: str = ""
    method: str = ""
    methods: dict[str, dict[str, Any]] | None = None
    parameters: tuple[tuple[Any, ...], ...] = ()

    def names(self) -> list[str]:
        """Return what can be called through it by name: itself, or the methods of the class."""
        return [self.name] if self.methods is None else [f"{self.name}.{each}" for each in self.methods]

    def web_labels(self) -> dict[str, str]:
        """Return the labels of its URLs, by the method; a function's own name is empty."""
        each = {name: fields.get("web_label", "") for name, fields in (self.methods or {}).items()}
        return {name: label for name, label in {"": self.web_label, **each}.items() if label}

    def web_urls(self) -> dict[str, str]:
        """Return the URLs of the methods of a class, where they are told."""
        each = {name: fields.get("web_url") for name, fields in (self.methods or {}).items()}
        return {name: url for name, url in each.items() if url}

    def of_method(self, name: str) -> "FunctionHandle":
        """Return the handle of a method; `KeyError` if the class has none of this name."""
        fields = (self.methods or {})[name]
        known = {key: value for key, value in fields.items() if key in _METHOD_FIELDS}
        full = f"{self.name}.{name}"
        return replace(self, name=full, method=name, methods=None, parameters=(), **known)


_METHOD_FIELDS = frozenset({"is_generator", "web_url", "web_label"})


@dataclass(frozen=True, slots=True)
class Done:
    """The answer to a request that has nothing more to say."""


@dataclass(frozen=True, slots=True)
class GetFunction:
    """`tm.registry.<ws>.get_function`: find a function of a deployed app. Answered by a `FunctionHandle`.

    `version` asks for one deployment; without it the newest one answers. With `function_id` that
    function is meant, whatever the names say; `like` is a pool of it whose options and parameters the answer
    is to have, too.
    """

    app_name: str
    name: str
    environment: str = "main"
    version: int | None = None
    function_id: str = ""
    like: str = ""


@dataclass(frozen=True, slots=True)
class CallRecord:
    """A kept call: stored once on `tm.results.<ws>.<call>.call` when it is submitted."""

    call: str
    pool: str
    prefix: str
    num_inputs: int
    created: float
    app_id: str = ""
    restrict_output: bool = False
    method: str = ""


@dataclass(frozen=True, slots=True)
class CancelCall:
    """`tm.scheduler.<ws>.cancel`: end a call: purge what waits, stop what runs.

    With `kept` the scheduler also stores a cancelled result for every input that has none.
    """

    call: str
    prefix: str
    num_inputs: int = 0
    kept: bool = False
    terminate_containers: bool = False
    method: str = ""


@dataclass(frozen=True, slots=True)
class FindQueued:
    """`tm.scheduler.<ws>.find_queued`: does a call still have inputs that wait, run, or are to be retried?"""

    call: str
    prefix: str


@dataclass(frozen=True, slots=True)
class Queued:
    """The answer to `FindQueued`."""

    queued: bool


@dataclass(frozen=True, slots=True)
class AppEvent:
    """`tm.events.<ws>.app.<app>`: an app's life went on (`published` a version, or `stopped`)."""

    app_id: str
    name: str | None
    state: str
    time: float
    version: int = 0
    reason: str = ""


FULL_FOR = 3.0  # seconds


@dataclass(frozen=True, slots=True)
class Trouble:
    """`tm.trouble.<ws>.<pool>`: why a pool's inputs do not start.

    `final` trouble fails the waiting inputs (crash loop, image that cannot be made); other trouble is
    only told (no worker with that GPU), and the inputs go on waiting. `failure` is an encoded failure.
    `full` trouble is that too much waits already: for `FULL_FOR` seconds nothing is to be added.
    """

    pool: str
    message: str
    hint: str = ""
    final: bool = False
    failure: bytes = b""
    full: bool = False
