"""The messages of the control plane: frozen dataclasses, packed as MessagePack maps.

Services check each one against its type when it arrives. Durations are seconds, memory and disk MiB.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """Why a request was refused. `code` is a key of `tidemill._wire.errors.CLASSES`."""

    code: str
    message: str
    hint: str = ""


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
    """An image as an immutable recipe: layers of (operation, arguments), first to last."""

    layers: tuple[tuple[str, Any], ...] = ()


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


@dataclass(frozen=True, slots=True)
class FunctionHandle:
    """What a caller needs to call a function: ids and the subject prefix of its pool's inputs."""

    function_id: str
    name: str
    app_id: str
    pool: str
    prefix: str
    is_generator: bool = False
    restrict_output: bool = False
    timeout: float = 300.0
    web_url: str | None = None


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool's record, kept in the `pools` bucket under its id: one function with one set of options.

    `deployed` pools are started again for ever after failures; others give their inputs up. A `superseded`
    pool served an earlier version: it finishes what it is sent, and keeps no containers waiting.
    `generation` grows when the app is to have new containers for the same code: those that were started
    under an earlier one are replaced. `strategy` says how containers end that are replaced or superseded:
    `rolling` lets them finish the inputs that they hold, `recreate` stops them at once.
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


# --- requests to the registry, and their answers


@dataclass(frozen=True, slots=True)
class CreateApp:
    """`tm.registry.<ws>.create_app`: start a run of an app (`ephemeral` or `detached`)."""

    name: str | None
    description: str
    state: str
    environment: str = "main"
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AppCreated:
    """The answer to `CreateApp`."""

    app_id: str
    url: str


@dataclass(frozen=True, slots=True)
class PublishFunctions:
    """`tm.registry.<ws>.publish_functions`: make or replace the functions of an app."""

    app_id: str
    functions: tuple[FunctionSpec, ...]


@dataclass(frozen=True, slots=True)
class FunctionsPublished:
    """The answer to `PublishFunctions`: a handle for every function, by name."""

    handles: dict[str, FunctionHandle]


@dataclass(frozen=True, slots=True)
class AppHeartbeat:
    """`tm.registry.<ws>.heartbeat`: the client of an ephemeral app is alive. Sent every 15 s."""

    app_id: str


@dataclass(frozen=True, slots=True)
class StopApp:
    """`tm.registry.<ws>.stop_app`: end an app: its pools go, its containers are stopped."""

    app_id: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """The answer to a request that has nothing more to say."""


@dataclass(frozen=True, slots=True)
class GetFunction:
    """`tm.registry.<ws>.get_function`: find a function of a deployed app. Answered by a `FunctionHandle`.

    `version` asks for one deployment; without it the newest one answers. With `function_id` that
    function is meant, whatever the names say.
    """

    app_name: str
    name: str
    environment: str = "main"
    version: int | None = None
    function_id: str = ""


@dataclass(frozen=True, slots=True)
class ListApps:
    """`tm.registry.<ws>.list_apps`: the apps of an environment, newest first. Answered by an `AppList`."""

    environment: str = "main"
    include_stopped: bool = False
    limit: int = 100


@dataclass(frozen=True, slots=True)
class GetApp:
    """`tm.registry.<ws>.get_app`: one app, by id or, if deployed, by name. Answered by `AppDetails`."""

    app_id: str = ""
    name: str = ""
    environment: str = "main"


@dataclass(frozen=True, slots=True)
class AppInfo:
    """An app as it is shown. `state` is `ephemeral`, `detached`, `deployed` or `stopped`; times are unix."""

    app_id: str
    name: str | None
    description: str
    state: str
    environment: str
    created: float
    version: int
    functions: int
    stopped: float | None = None
    stop_reason: str = ""
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AppList:
    """The answer to `ListApps`."""

    apps: tuple[AppInfo, ...]


@dataclass(frozen=True, slots=True)
class AppDetails:
    """The answer to `GetApp`: the app and the handles of its present functions, by name."""

    app: AppInfo
    handles: dict[str, FunctionHandle]


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


# --- requests to the scheduler, orders to workers, reports of workers


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


@dataclass(frozen=True, slots=True)
class Cancelled:
    """`tm.cancel.<ws>.<call>`: workers stop what they run of this call and refuse what comes later."""

    workspace: str
    call: str
    terminate_containers: bool = False


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
class GetSchedulerStatus:
    """`tm.scheduler.<ws>.status`: what the scheduler's leader knows and does for the workspace."""


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """One active pool: containers wanted, ready and starting, messages not yet finished, what is wrong."""

    pool: str
    app_name: str
    function: str
    desired: int
    ready: int
    starting: int
    backlog: int
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """`tm.workers.<id>.place`: the leader's order to start a container.

    `term` is the leader's fencing number: a worker refuses an order of a lower term than it has seen.
    With `overcommit` the cores may all be promised already (memory and GPUs must still be free): the
    first container of a pool starts so, because the others may be waiting for its results.
    """

    container: str
    pool: Pool
    term: int
    overcommit: bool = False


@dataclass(frozen=True, slots=True)
class PlacementAnswer:
    """Whether a worker took a placement; `reason` says why not."""

    accepted: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StopContainers:
    """`tm.workers.<id>.stop`: end these containers; `graceful` lets running inputs finish first.

    They get `finish` seconds for it.
    """

    containers: tuple[str, ...]
    term: int
    graceful: bool = True
    finish: float = 30.0


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a worker has, or has left: cores, MiB, and GPUs by type."""

    cpu: float
    memory: int
    gpus: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContainerState:
    """One container as its worker sees it.

    `state` is `starting`, `idle`, `busy` or `stopping`; `since` the unix time it entered it.
    `generation` and `superseded` are those of its pool when it was placed.
    """

    container: str
    pool: str
    state: str
    since: float
    pid: int = 0
    generation: int = 0
    superseded: bool = False


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker's report: what it is, has, runs and holds.

    `leases` are the ack subjects of inputs it has held for more than 0.2 s: when the worker falls
    silent the leader hands them back, so that nobody waits for the lease to run out.
    """

    worker: str
    capabilities: tuple[str, ...]
    labels: dict[str, str]
    total: Capacity
    free: Capacity
    containers: tuple[ContainerState, ...]
    leases: tuple[str, ...]
    runtime: str
    pid: int
    host: str
    version: str
    draining: bool = False


@dataclass(frozen=True, slots=True)
class SchedulerStatus:
    """The answer to `GetSchedulerStatus`. The workers are shown without their leases."""

    leader: str
    term: int
    pools: tuple[PoolStatus, ...]
    workers: tuple[WorkerState, ...]


@dataclass(frozen=True, slots=True)
class ListWorkers:
    """`tm.scheduler.<ws>.list_workers`: the workers that are alive. Answered by a `WorkerList`."""


@dataclass(frozen=True, slots=True)
class WorkerList:
    """The answer to `ListWorkers`: without leases, and with no other workspace's containers."""

    workers: tuple[WorkerState, ...]


# --- containers, further processes in them, and terminals


@dataclass(frozen=True, slots=True)
class ListContainers:
    """`tm.scheduler.<ws>.list_containers`: the containers that run, of one app or all. A `ContainerList`."""

    app_id: str = ""


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """A container as it is shown. `state` is that of `ContainerState`; `created` is a unix time."""

    container: str
    app_id: str
    app_name: str
    function: str
    pool: str
    worker: str
    state: str
    created: float


@dataclass(frozen=True, slots=True)
class ContainerList:
    """The answer to `ListContainers`, oldest first."""

    containers: tuple[ContainerInfo, ...]


@dataclass(frozen=True, slots=True)
class StopContainer:
    """`tm.scheduler.<ws>.stop_container`: end a container; what it runs runs again elsewhere.

    `graceful` lets it finish what runs first, and take nothing more.
    """

    container: str
    graceful: bool = False


@dataclass(frozen=True, slots=True)
class Execute:
    """`tm.scheduler.<ws>.execute`, and on to its worker: start a process in a container.

    Who asks has opened `stream`, at the other end of which the process will be. With `rows` and
    `columns` it gets a terminal of that size. `variables` are added to those of the container; without
    `workdir` it starts in the container's own working directory.
    """

    container: str
    stream: str
    arguments: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)
    workdir: str = ""
    rows: int = 0
    columns: int = 0


@dataclass(frozen=True, slots=True)
class AskTerminal:
    """`tm.terminals.<ws>.<app>`: an input of an interactive run wants the caller's terminal.

    The worker has opened `stream`, on which the caller answers: by a control frame `lend` with rows,
    columns and type of the terminal, or by breaking the stream with the reason.
    """

    stream: str
    container: str
    function: str


# --- events


@dataclass(frozen=True, slots=True)
class ContainerEvent:
    """`tm.events.<ws>.container.<app>`: a container changed state (`started`, `failed`, `stopped`).

    `failed` means that it never became ready: `failure` is what its callers are to see, and `final` says
    that another try cannot help (an image that cannot be made).
    """

    container: str
    pool: str
    function: str
    worker: str
    state: str
    time: float
    reason: str = ""
    phases: dict[str, float] = field(default_factory=dict)
    failure: bytes = b""
    final: bool = False


@dataclass(frozen=True, slots=True)
class AppEvent:
    """`tm.events.<ws>.app.<app>`: an app's life went on (`published` a version, or `stopped`)."""

    app_id: str
    name: str | None
    state: str
    time: float
    version: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Trouble:
    """`tm.trouble.<ws>.<pool>`: why a pool's inputs do not start.

    `final` trouble fails the waiting inputs (crash loop, image that cannot be made); other trouble is
    only told (no worker with that GPU), and the inputs go on waiting. `failure` is an encoded failure.
    """

    pool: str
    message: str
    hint: str = ""
    final: bool = False
    failure: bytes = b""
