"""Orders to workers, reports of workers, and what the scheduler tells of them."""

from dataclasses import field

from tidemill._dataclass import dataclass
from tidemill._wire.specs import Pool


@dataclass(frozen=True, slots=True)
class Cancelled:
    """`tm.cancel.<ws>.<call>`: workers stop what they run of this call and refuse what comes later."""

    workspace: str
    call: str
    terminate_containers: bool = False


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
class CountReady:
    """`tm.internal.scheduler.count_ready`: containers that take inputs. Answered by `ReadyCounts`."""

    pools: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MakeReady:
    """`tm.internal.scheduler.make_ready`: have so many containers of pools before anybody calls them.

    Answered by `ReadyCounts` when they are ready, or cannot be, and at the latest after so many seconds.
    """

    wanted: dict[str, int]
    seconds: float


@dataclass(frozen=True, slots=True)
class ReadyCounts:
    """How many containers of each pool take inputs."""

    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Placement:
    """`tm.workers.<id>.place`: the leader's order to start a container.

    `term` is the leader's fencing number: a worker refuses an order of a lower term than it has seen.
    With `overcommit` the cores may all be promised already (memory and GPUs must still be free): the
    first container of a pool starts so, because the others may be waiting for its results. `ordered` is the
    unix time of the order.
    """

    container: str
    pool: Pool
    term: int
    overcommit: bool = False
    ordered: float = 0.0


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
class GpuState:
    """One GPU as its worker sees it: what it is, MiB, and whether it can be given to a container.

    `state` is `free`, `taken`, `clearing` (until its memory is), `set aside` or `in use elsewhere`; `note`
    says why. One that is only declared has a `kind` and nothing else.
    """

    kind: str
    name: str
    uuid: str
    memory: int
    state: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class ContainerState:
    """One container as its worker sees it.

    `state` is `starting`, `idle`, `busy` or `stopping`; `since` the unix time it entered it.
    `generation` and `superseded` are those of its pool when it was placed. `gpus` are those that it has.
    """

    container: str
    pool: str
    state: str
    since: float
    pid: int = 0
    generation: int = 0
    superseded: bool = False
    gpus: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker's report: what it is, has, runs and holds.

    `leases` are the ack subjects of inputs it has held for more than 0.2 s: when the worker falls
    silent the leader hands them back, so that nobody waits for the lease to run out. `unheld` are the rows of
    `isolation.ROWS` that its runtime does not hold back, and how; `note` says why it is no better. `driver`
    is that of its GPUs, with the newest CUDA that it knows: `550.54.15, CUDA 12.4`.
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
    unheld: dict[str, str] = field(default_factory=dict)
    note: str = ""
    gpus: tuple[GpuState, ...] = ()
    driver: str = ""


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


@dataclass(frozen=True, slots=True)
class ContainerEvent:
    """`tm.events.<ws>.container.<app>`: a container changed state (`started`, `failed`, `stopped`).

    `kept_gpu` comes after the end of one that left its GPU in use: the worker does not offer that any more.

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
