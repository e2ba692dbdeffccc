"""What the platform knows of a function, and of the pool that serves it."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any, NamedTuple

from tidemill._dataclass import dataclass
from tidemill._wire.control import FunctionHandle


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed input is tried again."""

    max_retries: int = 0
    backoff_coefficient: float = 1.0
    initial_delay: float = 1.0
    max_delay: float = 60.0


@dataclass(frozen=True, slots=True)
class Resources:
    """What one container asks for: cores, MiB, and GPUs as (type, count)."""

    cpu: float = 0.125
    cpu_limit: float | None = None
    memory: int = 128
    memory_limit: int | None = None
    ephemeral_disk: int | None = None
    gpus: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """How many containers a pool may have, and how long an idle one stays (seconds)."""

    min_containers: int = 0
    max_containers: int | None = None
    buffer_containers: int = 0
    scaledown_window: float = 60.0


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """An image as an immutable recipe: layers of (operation, arguments), first to last.

    Only layers count in its key. `declared` is the digest of the recipe as it is written, by which code in
    a container knows its own image. `attached` are archives of files by their path (path, digest of the
    blob), put there when a container starts. Layers name secrets and functions (digests of orders) by
    their number in `secrets` and `functions`.
    """

    layers: tuple[tuple[str, Any], ...] = ()
    declared: str = ""
    attached: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """The user's code: bundles to unpack, in this order, onto the container's `sys.path`.

    `module` is imported and `qualname` looked up in it, unless `serialized` names a blob with the
    cloudpickled function itself.
    """

    bundles: tuple[str, ...] = ()
    module: str = ""
    qualname: str = ""
    serialized: str = ""


@dataclass(frozen=True, slots=True)
class Concurrency:
    """How many inputs one container may run at the same time, and how many it is meant to."""

    max_inputs: int = 1
    target_inputs: int = 1


@dataclass(frozen=True, slots=True)
class Batching:
    """How many inputs are given to the function together, and how long (ms) the first one waits for more."""

    max_batch_size: int
    wait_ms: int


class Parameter(NamedTuple):
    """A parameter of a class: `kind` is `str`, `int`, `bool` or `bytes`. It is required or has a default."""

    name: str
    kind: str
    required: bool = True
    default: Any = None


@dataclass(frozen=True, slots=True)
class Web:
    """A function, or a method of a class, behind a URL.

    `kind` is `asgi`, `wsgi`, `endpoint` or `server`. `label` replaces app and function in the URL. `method`
    and `docs` are those of an endpoint, `port` and `startup_timeout` (seconds) those of a server.
    """

    kind: str
    label: str = ""
    requires_proxy_auth: bool = False
    method: str = "GET"
    docs: bool = False
    port: int = 0
    startup_timeout: float = 5.0


@dataclass(frozen=True, slots=True)
class MethodSpec:
    """A method of a class that can be called, or that answers the web."""

    name: str
    is_generator: bool = False
    is_async: bool = False
    web: Web | None = None


@dataclass(frozen=True, slots=True)
class ClassSpec:
    """What is particular to a class: its methods share a pool, and each set of parameters has its own.

    What `FunctionSpec.web` says of a function, each of its methods says of itself.
    """

    methods: tuple[MethodSpec, ...]
    parameters: tuple[Parameter, ...] = ()

    def lacks(self, parameters: Mapping[str, Any]) -> bool:
        """Return whether there is no object of it with only these parameters."""
        return any(each.required and each.name not in parameters for each in self.parameters)


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """Everything the platform must know about one function, or one class, of an app.

    `parameters` are the values that a pool's objects have, beside those that are defaults.
    """

    name: str
    source: Source
    image: ImageSpec = ImageSpec()
    env: dict[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    resources: Resources = Resources()
    autoscaling: Autoscaling = Autoscaling()
    retries: RetryPolicy = RetryPolicy()
    timeout: float = 300.0
    startup_timeout: float | None = None
    is_generator: bool = False
    is_async: bool = False
    restrict_output: bool = False
    block_network: bool = False
    restrict_access: bool = False
    single_use_containers: bool = False
    schedule: dict[str, Any] | None = None
    interactive: bool = False
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    web: Web | None = None
    concurrency: Concurrency = Concurrency()
    cls: ClassSpec | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    batching: Batching | None = None

    def yields(self, method: str) -> bool:
        """Return whether the function, or a method of the class, is a generator."""
        if self.cls is None:
            return self.is_generator
        return any(each.is_generator for each in self.cls.methods if each.name == method)

    @property
    def webs(self) -> dict[str, Web]:
        """What answers the web, by the method; a function's own name is empty."""
        if self.cls is None:
            return {} if self.web is None else {"": self.web}
        return {each.name: each.web for each in self.cls.methods if each.web is not None}

    @property
    def together(self) -> int:
        """How many inputs a container should have at once before another one is of use."""
        if self.batching is not None:
            return self.batching.max_batch_size
        return self.concurrency.target_inputs

    @property
    def all_secrets(self) -> tuple[str, ...]:
        """The secrets of its containers and those that its image is built with."""
        return (*self.secrets, *self.image.secrets)


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool's record, kept in the `pools` bucket under its id: one function with one set of options.

    `deployed` pools are started again for ever after failures; others give their inputs up. A `superseded`
    pool served an earlier version: it finishes what it is sent, and keeps no containers waiting.
    `generation` grows when the app is to have new containers for the same code: those that were started
    under an earlier one are replaced. `strategy` says how containers end that are replaced or superseded:
    `rolling` lets them finish the inputs that they hold, `recreate` stops them at once.

    `handles` has its own function's. Those of the whole app are kept once per version, in the `handles`
    bucket; `handles_version` says of which version its containers know them. Where it is 0, as in records
    of old, `handles` has them all. `has_web` says that some function of the app is for the web.

    `variant_of` names the pool of the same function from which this one differs by options or parameters
    that a caller gave.
    """

    id: str
    app_id: str
    app_name: str
    function_id: str
    workspace: str
    environment: str
    capability: str
    shard: int
    stream: str
    prefix: str
    spec: FunctionSpec
    handles: dict[str, FunctionHandle] = field(default_factory=dict)
    deployed: bool = False
    superseded: bool = False
    generation: int = 0
    strategy: str = "rolling"
    handles_version: int = 0
    has_web: bool = False
    variant_of: str = ""


def handle_of(pool: Pool, labels: Mapping[str, str] | None = None) -> FunctionHandle:
    """Return what a pool is called through, with the labels of its URLs by the method (see `webs`).

    Without labels they are those that its record has.
    """
    spec = pool.spec
    labels = _labels_of(pool) if labels is None else labels
    return FunctionHandle(
        function_id=pool.function_id,
        name=spec.name,
        app_id=pool.app_id,
        pool=pool.id,
        prefix=pool.prefix,
        is_generator=spec.is_generator,
        restrict_output=spec.restrict_output,
        timeout=spec.timeout,
        web_label=labels.get("", ""),
        methods=None
        if spec.cls is None
        else {each.name: _of_method(each, labels) for each in spec.cls.methods},
        parameters=() if spec.cls is None else spec.cls.parameters,
    )


def _labels_of(pool: Pool) -> dict[str, str]:
    handle = pool.handles.get(pool.spec.name)
    return {} if handle is None else handle.web_labels()


def _of_method(method: MethodSpec, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return what the handle of a method says otherwise than that of its class."""
    said: dict[str, Any] = {"is_generator": True} if method.is_generator else {}
    return {**said, "web_label": labels[method.name]} if method.name in labels else said
