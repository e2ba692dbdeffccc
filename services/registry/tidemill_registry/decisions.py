"""What the registry decides, as functions of values: what an app may become, and what a version makes of it.

Nothing here knows SQL or NATS.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from tidemill._wire import ids, subjects
from tidemill._wire.control import FunctionHandle
from tidemill._wire.specs import Concurrency, FunctionSpec, Pool, Resources, handle_of
from tidemill._wire.variants import GetVariant
from tidemill.exception import ConflictError, InvalidError
from tidemill_registry import labels, records

HEARTBEAT_TIMEOUT = 60.0  # seconds without a word after which an ephemeral app's client counts as gone
# A pool's record travels in one message, whose limit is 2 MB with everything around it.
MAX_RECORD = 1 << 20
_canonical = msgspec.msgpack.Encoder(order="sorted")


# --- the life of an app

# What an app may become. `new` is one that is not there yet.
LIFE: Mapping[str, tuple[str, ...]] = {
    "new": ("ephemeral", "detached", "deployed"),
    "ephemeral": ("stopped",),
    "detached": ("stopped",),
    "deployed": ("stopped",),
    "stopped": (),
}
LIVE = tuple(state for state, next_states in LIFE.items() if "stopped" in next_states)

# What can be done to an app, and in which states.
DOABLE: Mapping[str, tuple[str, ...]] = {
    "publish functions for": LIVE,
    "hear the client of": LIVE,
    "tag": LIVE,
    "make variants in": LIVE,
    "change the containers of": LIVE,
    "roll back": ("deployed",),
    "roll over": ("deployed",),
    "stop": (*LIVE, "stopped"),  # once more changes nothing
}


def check_doable(action: str, app_id: str, state: str, stop_reason: str = "") -> None:
    """Raise `ConflictError` if this cannot be done to an app in this state."""
    if state in DOABLE[action]:
        return
    if state == "stopped":
        raise ConflictError(f"the app {app_id} is stopped{f': {stop_reason}' if stop_reason else ''}")
    raise ConflictError(f"cannot {action} the app {app_id}: it is {state}, not {' or '.join(DOABLE[action])}")


# --- versions


@dataclass(frozen=True, slots=True)
class AppState:
    """An app of which a version is made, as it stands. `web_suffix` is its environment's, for URLs."""

    id: str
    name: str | None
    workspace: str
    environment: str
    state: str
    version: int
    web_suffix: str = ""


@dataclass(frozen=True, slots=True)
class KnownPool:
    """A pool that an earlier version made. `served_spec` is there if it is superseded: its specification."""

    id: str
    digest: bytes
    record: bytes
    current: bool
    served_spec: bytes | None = None

    def serving(self) -> Pool:
        """Return its record as it is, or would be, in the present version."""
        pool = records.pool(self.record)
        if self.served_spec is not None:
            pool = replace(pool, spec=records.spec(self.served_spec))
        return replace(pool, superseded=False)


@dataclass(frozen=True, slots=True)
class KnownFunction:
    """A function that an earlier version made, with its pools."""

    id: str
    name: str
    pools: tuple[KnownPool, ...]


Known = Mapping[str, KnownFunction]  # by name


@dataclass(frozen=True, slots=True)
class ServedPool:
    """A pool of the new version: `known` when an earlier one made it, `changed` when its record differs."""

    pool: Pool
    digest: bytes
    record: bytes
    known: bool
    changed: bool


@dataclass(frozen=True, slots=True)
class Superseded:
    """A pool that serves its function no longer: the record that says so, and what it served with."""

    record: bytes
    served_spec: bytes


@dataclass(frozen=True, slots=True)
class Publication:
    """What a new version makes of an app.

    `version` is the app's present one when nothing is new. `removed` are the names of functions that the
    version before had, `replaced` the new generations of pools whose containers are stopped at once.
    """

    version: int
    new_functions: dict[str, str]
    served: tuple[ServedPool, ...]
    superseded: dict[str, Superseded]
    handles: dict[str, FunctionHandle]
    removed: tuple[str, ...] = ()
    replaced: dict[str, int] = field(default_factory=dict)


def publish(
    app: AppState,
    known: Known,
    functions: Sequence[FunctionSpec],
    *,
    shards: int,
    first_shard: int,
    strategy: str = "rolling",
    new_version: bool = False,
    new_id: Callable[[str], str] = ids.new,
) -> Publication:
    """Return what publishing `functions`, the app's complete set, makes of the app.

    The same specification is the same pool, so that a repeated request changes nothing, unless a
    `new_version` is wanted whatever the functions are.
    """
    new_functions = {spec.name: new_id(ids.FUNCTION) for spec in functions if spec.name not in known}
    pools = []
    for number, spec in enumerate(functions):
        spec_digest = digest(spec)
        function_id = new_functions.get(spec.name) or known[spec.name].id
        before = _pool_with(known.get(spec.name), spec_digest)
        if before is not None:
            pool = replace(before.serving(), spec=spec, deployed=app.state == "deployed")
        else:
            shard = (first_shard + number) % shards
            pool = replace(_new_pool(app, function_id, spec, shard, new_id(ids.POOL)), strategy=strategy)
        pools.append((pool, spec_digest))
    return _publication(app, known, new_functions, pools, strategy, new_version=new_version)


def restore(app: AppState, known: Known, chosen: Sequence[str], *, strategy: str) -> Publication:
    """Return what it makes of an app that the `chosen` pools, those of an earlier version, serve again."""
    pools = [
        (pool.serving(), pool.digest)
        for function in known.values()
        for pool in function.pools
        if pool.id in chosen
    ]
    return _publication(app, known, {}, pools, strategy)


def roll_over(app: AppState, known: Known, *, strategy: str) -> Publication:
    """Return what it makes of an app that all containers of its present version are replaced."""
    pools = [
        (pool.serving(), pool.digest)
        for function in known.values()
        for pool in function.pools
        if pool.current
    ]
    return _publication(app, known, {}, pools, strategy, new_version=True, renew=True)


def _publication(
    app: AppState,
    known: Known,
    new_functions: dict[str, str],
    pools: Sequence[tuple[Pool, bytes]],
    strategy: str,
    *,
    new_version: bool = False,
    renew: bool = False,
) -> Publication:
    """Return the version in which exactly these pools serve. With `renew` their containers are replaced."""
    before = {pool.id: pool for function in known.values() for pool in function.pools}
    serving = {pool.id for pool, _ in pools}
    leaving = [pool for pool in before.values() if pool.current and pool.id not in serving]
    coming = {pool for pool in serving if pool not in before or not before[pool].current}
    is_new = new_version or app.version == 0 or bool(leaving or coming)
    renewed = serving & before.keys() if renew or (is_new and strategy == "recreate") else set()
    changed = [
        replace(
            pool,
            generation=pool.generation + (pool.id in renewed),
            strategy=strategy if pool.id in coming | renewed else pool.strategy,
        )
        for pool, _ in pools
    ]
    handles = {pool.spec.name: handle_of(pool, _labels(app, pool.spec)) for pool in changed}
    _check_labels(handles)
    version = app.version + 1 if is_new else app.version
    served = tuple(
        _served(_knowing(pool, handles, version), spec_digest, before.get(pool.id))
        for pool, (_, spec_digest) in zip(changed, pools, strict=True)
    )
    superseded = {pool.id: _superseded(pool, strategy) for pool in leaving}
    gone = (name for name, function in known.items() if any(pool in leaving for pool in function.pools))
    removed = tuple(sorted(set(gone) - handles.keys()))
    version = app.version + 1 if is_new else app.version
    replaced = {}
    if strategy == "recreate":
        replaced = {pool.id: pool.generation for pool in changed if pool.id in renewed}
        replaced |= {pool.id: pool.serving().generation + 1 for pool in leaving}
    return Publication(version, new_functions, served, superseded, handles, removed, replaced)


def _knowing(pool: Pool, handles: Mapping[str, FunctionHandle], version: int) -> Pool:
    """Return a pool with its own handle; those of its app are kept once for all pools of a version."""
    name = pool.spec.name
    has_web = any(handle.web_labels() for handle in handles.values())
    return replace(pool, handles={name: handles[name]}, handles_version=version, has_web=has_web)


def digest(spec: FunctionSpec) -> bytes:
    """Return the digest that tells specifications apart, whatever the order of their mappings."""
    return hashlib.sha256(_canonical.encode(spec)).digest()


def capability(resources: Resources) -> str:
    """Return what a worker must have: `cpu`, or `gpu-<type>` for each GPU in order, joined by `+`."""
    kinds = dict.fromkeys(f"gpu-{kind.rstrip('!+')}" for kind, _ in resources.gpus)
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


def _labels(app: AppState, spec: FunctionSpec) -> dict[str, str]:
    lasting = app.state == "deployed"
    return labels.labels(app.workspace, app.web_suffix, app.name or "", spec, lasting=lasting)


def _check_labels(handles: Mapping[str, FunctionHandle]) -> None:
    seen: dict[str, str] = {}
    for function, handle in handles.items():
        for method, label in handle.web_labels().items():
            name = f"{function}.{method}" if method else function
            other = seen.setdefault(label, name)
            if other != name:
                raise InvalidError(
                    f"the functions {other!r} and {name!r} have the same URL label {label!r}",
                    hint="give one of their decorators a label=",
                )


def _served(pool: Pool, spec_digest: bytes, before: KnownPool | None) -> ServedPool:
    record = records.encode(pool)
    if len(record) > MAX_RECORD:
        raise InvalidError(
            f"function {pool.spec.name!r}: its record takes {len(record):,} bytes, above {MAX_RECORD:,}",
            hint="pass large values as arguments, or add them to the image",
        )
    changed = before is None or not before.current or before.record != record
    return ServedPool(pool, spec_digest, record, known=before is not None, changed=changed)


def _superseded(known: KnownPool, strategy: str) -> Superseded:
    """Return a pool's record with no containers kept waiting: it only finishes what it is sent.

    To recreate is to replace the containers of the generation before. So those that are started later,
    for callers who pin the version, stay.
    """
    pool = known.serving()
    scaling = replace(pool.spec.autoscaling, min_containers=0, buffer_containers=0)
    retired = replace(
        pool,
        spec=replace(pool.spec, autoscaling=scaling),
        superseded=True,
        generation=pool.generation + (strategy == "recreate"),
        strategy=strategy,
    )
    return Superseded(records.encode(retired), records.encode(pool.spec))


def prepared(item: ServedPool) -> Superseded:
    """Return the record of a pool that is to serve soon: until then it is one that does not."""
    return _superseded(KnownPool(item.pool.id, item.digest, item.record, current=True), "rolling")


# --- variants


def vary(spec: FunctionSpec, given: GetVariant) -> FunctionSpec:
    """Return a specification with the options and parameters that a caller gives."""
    changes, resources, scaling = given.changes, spec.resources, spec.autoscaling
    if changes.cpu is not None:
        resources = replace(resources, cpu=changes.cpu[0], cpu_limit=changes.cpu[1])
    if changes.memory is not None:
        resources = replace(resources, memory=changes.memory[0], memory_limit=changes.memory[1])
    if changes.gpus is not None:
        resources = replace(resources, gpus=changes.gpus)
    for name in ("max_containers", "buffer_containers", "scaledown_window"):
        if (value := getattr(changes, name)) is not None:
            scaling = replace(scaling, **{name: value})
    if scaling.max_containers is not None:
        scaling = replace(scaling, min_containers=min(scaling.min_containers, scaling.max_containers))
    direct = ("env", "secrets", "retries", "timeout", "concurrency", "batching")
    fields = {name: value for name in direct if (value := getattr(changes, name)) is not None}
    if changes.concurrency is not None:
        fields["batching"] = None
    elif changes.batching is not None:
        fields["concurrency"] = Concurrency()
    return replace(
        spec,
        resources=resources,
        autoscaling=scaling,
        labels={**spec.labels, **(changes.labels or {})},
        options={**spec.options, **(changes.options or {})},
        parameters=given.parameters,
        **fields,
    )


def combined(earlier: GetVariant, later: GetVariant) -> GetVariant:
    """Return what is given by one request on top of another: the later one counts where both speak."""
    parameters = {**earlier.parameters, **later.parameters}
    return GetVariant(earlier.pool, parameters, earlier.changes.then(later.changes))


def variant(base: Pool, given: GetVariant, pool_id: str, shard: int) -> Pool:
    """Return the pool that differs from another by what a caller gives, and follows it in all else."""
    spec = vary(base.spec, given)
    needed = _token(spec)
    return replace(
        base,
        id=pool_id,
        capability=needed,
        shard=shard,
        stream=subjects.inputs_stream(needed, shard),
        prefix=subjects.inputs_prefix(base.workspace, needed, shard, pool_id),
        spec=spec,
        variant_of=base.id,
    )


def variant_digest(given: GetVariant) -> bytes:
    """Return the digest that tells the variants of a function apart, and from its own versions."""
    return hashlib.sha256(_canonical.encode(given)).digest()


# --- what is kept

KEPT_VERSIONS = 100  # newest versions of an app whose functions can be called
KEPT_DAYS = 7  # that older ones stay callable after they were superseded
MAX_KEPT_VERSIONS = 1_000  # beyond which none stays
KEPT_RECORDS = 10_000  # versions of an app that are listed


# --- the sweep


def may_expire(*, now: float, hearing_since: float | None) -> bool:
    """Return whether silence of clients means anything: have we been able to hear them long enough?

    After a start, or an outage of NATS or the database, nobody's heartbeat can be recent.
    """
    return hearing_since is not None and now - hearing_since >= HEARTBEAT_TIMEOUT
