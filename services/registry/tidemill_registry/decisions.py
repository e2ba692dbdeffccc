"""What the registry decides, as functions of values: what may be published, and what that makes.

Nothing here knows SQL or NATS.
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from tidemill._wire import coding, ids, subjects
from tidemill._wire.control import Autoscaling, FunctionHandle, FunctionSpec, Pool, Resources, RetryPolicy
from tidemill.exception import InvalidError

HEARTBEAT_TIMEOUT = 60.0  # seconds without a word after which an ephemeral app's client counts as gone
MAX_FUNCTIONS = 1_000
# A pool's record travels in one message, whose limit is 2 MB with everything around it.
MAX_RECORD = 1 << 20
MAX_TIMEOUT = 86_400.0
MAX_CONTAINERS = 100_000

CREATABLE = ("ephemeral", "detached", "deployed")

_OBJECT_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_FUNCTION_NAME = re.compile(r"[\w.*<>\[\]-]{1,256}")
_GPU = re.compile(r"[A-Za-z0-9_-]{1,32}")
_canonical = msgspec.msgpack.Encoder(order="sorted")


# --- checks: each raises InvalidError with one sentence


def check_app(name: str | None, state: str, description: str, tags: Mapping[str, str]) -> None:
    """Refuse an app that cannot be."""
    if state not in CREATABLE:
        raise InvalidError(f"an app cannot be made {state!r}", hint=f"use one of: {', '.join(CREATABLE)}")
    if state == "deployed" and name is None:
        raise InvalidError("a deployed app needs a name")
    if name is not None:
        check_name("app", name)
    if len(description) > 4096:
        raise InvalidError("an app's description is longer than 4,096 characters")
    if len(tags) > 100 or any(len(key) > 64 or len(value) > 256 for key, value in tags.items()):
        raise InvalidError("an app has at most 100 tags, of 64 characters with values of 256")
    if "\0" in description or any("\0" in text for tag in tags.items() for text in tag):
        raise InvalidError("descriptions and tags cannot contain NUL characters")


def check_name(kind: str, name: str) -> None:
    """Refuse a name of an app or an environment that cannot stand in a URL."""
    if not _OBJECT_NAME.fullmatch(name):
        raise InvalidError(
            f"not a name for an {kind}: {name!r}",
            hint="names are up to 64 letters, digits, '-', '_' and '.'",
        )


def check_functions(functions: Sequence[FunctionSpec]) -> None:
    """Refuse a set of functions if any one of them cannot be."""
    if len(functions) > MAX_FUNCTIONS:
        raise InvalidError(f"an app has at most {MAX_FUNCTIONS:,} functions, not {len(functions):,}")
    seen: set[str] = set()
    for spec in functions:
        if not _FUNCTION_NAME.fullmatch(spec.name):
            raise InvalidError(f"not a name for a function: {spec.name[:300]!r}")
        if spec.name in seen:
            raise InvalidError(f"two functions of the app are named {spec.name!r}")
        seen.add(spec.name)
        if problem := next(_problems(spec), None):
            raise InvalidError(f"function {spec.name!r}: {problem}")


def _problems(spec: FunctionSpec) -> Iterator[str]:
    """Yield what is wrong with a specification, most basic first."""
    if not spec.source.serialized and not (spec.source.module and spec.source.qualname):
        yield "it names neither a module's function nor a serialized one"
    yield from _resource_problems(spec.resources)
    yield from _scaling_problems(spec.autoscaling)
    yield from _retry_problems(spec.retries)
    if not 0 < spec.timeout <= MAX_TIMEOUT:
        yield f"timeout must be above 0 and at most {MAX_TIMEOUT:,.0f} s"
    if spec.startup_timeout is not None and not 0 < spec.startup_timeout <= MAX_TIMEOUT:
        yield f"startup_timeout must be above 0 and at most {MAX_TIMEOUT:,.0f} s"


def _resource_problems(resources: Resources) -> Iterator[str]:
    if not (0 < resources.cpu < math.inf):
        yield "cpu must be a number of cores above 0"
    if resources.cpu_limit is not None and not resources.cpu <= resources.cpu_limit < math.inf:
        yield "the limit of cpu is below its request"
    if resources.memory <= 0:
        yield "memory must be above 0 MiB"
    if resources.memory_limit is not None and resources.memory_limit < resources.memory:
        yield "the limit of memory is below its request"
    if resources.ephemeral_disk is not None and resources.ephemeral_disk <= 0:
        yield "ephemeral_disk must be above 0 MiB"
    if len(resources.gpus) > 10:
        yield "at most 10 kinds of GPU can be given as a preference"
    for kind, count in resources.gpus:
        if not _GPU.fullmatch(kind) or not 1 <= count <= 64:
            yield f"not a request for GPUs: {kind!r}, {count}"


def _scaling_problems(scaling: Autoscaling) -> Iterator[str]:
    if not 0 <= scaling.min_containers <= MAX_CONTAINERS:
        yield f"min_containers must be between 0 and {MAX_CONTAINERS:,}"
    if not 0 <= scaling.buffer_containers <= MAX_CONTAINERS:
        yield f"buffer_containers must be between 0 and {MAX_CONTAINERS:,}"
    if scaling.max_containers is not None and scaling.max_containers < max(1, scaling.min_containers):
        yield "max_containers must be at least 1 and at least min_containers"
    if not 0 <= scaling.scaledown_window <= MAX_TIMEOUT:
        yield f"scaledown_window must be between 0 and {MAX_TIMEOUT:,.0f} s"


def _retry_problems(retries: RetryPolicy) -> Iterator[str]:
    if not 0 <= retries.max_retries <= 1_000:
        yield "max_retries must be between 0 and 1,000"
    if not 0 <= retries.backoff_coefficient <= 1_000:
        yield "backoff_coefficient must be between 0 and 1,000"
    if not 0 <= retries.initial_delay <= MAX_TIMEOUT or not 0 <= retries.max_delay <= MAX_TIMEOUT:
        yield f"delays of retries must be between 0 and {MAX_TIMEOUT:,.0f} s"


# --- publishing


@dataclass(frozen=True, slots=True)
class AppState:
    """The app that functions are published for, as it stands."""

    id: str
    name: str | None
    workspace: str
    environment: str
    state: str
    version: int


@dataclass(frozen=True, slots=True)
class KnownPool:
    """A pool that an earlier version made."""

    id: str
    digest: bytes
    record: bytes
    current: bool


@dataclass(frozen=True, slots=True)
class KnownFunction:
    """A function that an earlier version made, with its pools."""

    id: str
    name: str
    pools: tuple[KnownPool, ...]


@dataclass(frozen=True, slots=True)
class ServedPool:
    """A pool of the new version: `known` when an earlier one made it, `changed` when its record differs."""

    pool: Pool
    digest: bytes
    record: bytes
    known: bool
    changed: bool


@dataclass(frozen=True, slots=True)
class Publication:
    """What a publication makes of an app.

    `superseded` are the pools that no longer serve their functions, with the records that say so.
    `version` is the app's present one when nothing is new.
    """

    version: int
    new_functions: dict[str, str]
    served: tuple[ServedPool, ...]
    superseded: dict[str, bytes]
    handles: dict[str, FunctionHandle]


def publish(
    app: AppState,
    known: Mapping[str, KnownFunction],
    functions: Sequence[FunctionSpec],
    *,
    shards: int,
    first_shard: int,
    new_id: Callable[[str], str] = ids.new,
) -> Publication:
    """Return what publishing `functions`, the app's complete set, makes of the app.

    The same specification is the same pool, so that a repeated request changes nothing.
    """
    digests = {spec.name: digest(spec) for spec in functions}
    new_functions = {spec.name: new_id(ids.FUNCTION) for spec in functions if spec.name not in known}
    pools = []
    for number, spec in enumerate(functions):
        function_id = new_functions.get(spec.name) or known[spec.name].id
        before = _pool_with(known.get(spec.name), digests[spec.name])
        if before is not None:
            pool = coding.decode(Pool, before.record)
            pools.append(replace(pool, spec=spec, deployed=app.state == "deployed"))
        else:
            shard = (first_shard + number) % shards
            pools.append(_new_pool(app, function_id, spec, shard, new_id(ids.POOL)))
    handles = {pool.spec.name: _handle(pool) for pool in pools}
    served = tuple(_served(replace(pool, handles=handles), digests[pool.spec.name], known) for pool in pools)
    superseded = _superseded(known, {pool.id for pool in pools})
    is_new = bool(superseded) or any(not item.known or not _is_current(item, known) for item in served)
    version = app.version + 1 if is_new or app.version == 0 else app.version
    return Publication(version, new_functions, served, superseded, handles)


def digest(spec: FunctionSpec) -> bytes:
    """Return the digest that tells specifications apart, whatever the order of their mappings."""
    return hashlib.sha256(_canonical.encode(spec)).digest()


def capability(resources: Resources) -> str:
    """Return what a worker must have: `cpu`, or `gpu-<type>` for each GPU in order, joined by `+`."""
    kinds = dict.fromkeys(f"gpu-{kind}" for kind, _ in resources.gpus)
    return "+".join(kinds) or "cpu"


def _new_pool(app: AppState, function_id: str, spec: FunctionSpec, shard: int, pool_id: str) -> Pool:
    needed = _token(spec)
    return Pool(
        id=pool_id,
        app_id=app.id,
        app_name=app.name or "",
        function_id=function_id,
        workspace=app.workspace,
        environment=app.environment,
        capability=needed,
        shard=shard,
        stream=subjects.inputs_stream(needed, shard),
        prefix=subjects.inputs_prefix(app.workspace, needed, shard, pool_id),
        spec=spec,
        deployed=app.state == "deployed",
    )


def _token(spec: FunctionSpec) -> str:
    try:
        return subjects.token(capability(spec.resources))
    except ValueError as error:
        raise InvalidError(f"function {spec.name!r}: its list of GPUs is too long") from error


def _pool_with(function: KnownFunction | None, wanted: bytes) -> KnownPool | None:
    pools = function.pools if function else ()
    return next((pool for pool in pools if pool.digest == wanted), None)


def _is_current(item: ServedPool, known: Mapping[str, KnownFunction]) -> bool:
    before = _pool_with(known.get(item.pool.spec.name), item.digest)
    return before is not None and before.current


def _handle(pool: Pool) -> FunctionHandle:
    return FunctionHandle(
        function_id=pool.function_id,
        name=pool.spec.name,
        app_id=pool.app_id,
        pool=pool.id,
        prefix=pool.prefix,
        is_generator=pool.spec.is_generator,
        restrict_output=pool.spec.restrict_output,
        timeout=pool.spec.timeout,
    )


def _served(pool: Pool, spec_digest: bytes, known: Mapping[str, KnownFunction]) -> ServedPool:
    record = coding.encode(pool)
    if len(record) > MAX_RECORD:
        raise InvalidError(
            f"function {pool.spec.name!r}: its record takes {len(record):,} bytes, above {MAX_RECORD:,}",
            hint="pass large values as arguments, or add them to the image",
        )
    before = _pool_with(known.get(pool.spec.name), spec_digest)
    return ServedPool(
        pool, spec_digest, record, known=before is not None, changed=before is None or before.record != record
    )


def _superseded(known: Mapping[str, KnownFunction], serving: set[str]) -> dict[str, bytes]:
    return {
        pool.id: _retired(pool.record)
        for function in known.values()
        for pool in function.pools
        if pool.current and pool.id not in serving
    }


def _retired(record: bytes) -> bytes:
    """Return a pool's record with no containers kept waiting: it only finishes what it was sent."""
    pool = coding.decode(Pool, record)
    scaling = replace(pool.spec.autoscaling, min_containers=0, buffer_containers=0)
    return coding.encode(replace(pool, spec=replace(pool.spec, autoscaling=scaling)))


# --- the sweep


def may_expire(*, now: float, hearing_since: float | None) -> bool:
    """Return whether silence of clients means anything: have we been able to hear them long enough?

    After a start, or an outage of NATS or the database, nobody's heartbeat can be recent.
    """
    return hearing_since is not None and now - hearing_since >= HEARTBEAT_TIMEOUT
