"""What the platform knows of a function, and of the pool that serves it."""

from dataclasses import field
from typing import Any

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
class Web:
    """A function behind a URL.

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
class FunctionSpec:
    """Everything the platform must know about one function of an app."""

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
