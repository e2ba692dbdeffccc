"""Every stream, bucket and consumer of Tidemill, as values on one screen."""

import asyncio
from dataclasses import replace

from tidemill._wire import limits, subjects
from tidemill._wire.specs import Pool
from tidemill_common.bus.protocol import ConsumerSpec, ServiceBus, StreamSpec

DAY = 86_400.0
GIB = 1 << 30

SHARDS = 4  # of newly made pools; a pool keeps the shard written into its record

POOLS, HANDLES, ROUTES = "pools", "handles", "routes"
WORKERS, LEASES, FIRINGS = "workers", "leases", "firings"
LIMITS, LEVELS, PROXY_TOKENS = "limits", "levels", "proxy_tokens"
BUCKETS = {  # name -> seconds to live
    POOLS: 0.0,
    HANDLES: 0.0,
    ROUTES: 0.0,
    WORKERS: 15.0,
    LEASES: 0.0,
    FIRINGS: 0.0,
    LIMITS: 0.0,
    LEVELS: limits.MAX_FILL,  # by then every token bucket is full, as one that nobody knows
    PROXY_TOKENS: 0.0,
}


def _inputs(kind: str, shard: int) -> StreamSpec:
    return StreamSpec(
        name=f"INPUTS_{kind}_{shard}",
        subjects=(f"tm.inputs.{kind}.{shard}.>",),
        retention="workqueue",
        discard="new",
        discard_new_per_subject=True,
        max_msgs_per_subject=1,
        max_bytes=8 * GIB,
        max_consumers=100_000,
    )


# Schedules live only in a discard-old stream, where any limit would forget timers silently: so none.
TIMERS = StreamSpec("TIMERS", ("tm.timers.>", "tm.due.>"), retention="workqueue", allow_msg_schedules=True)
DEAD = StreamSpec("DEAD", ("tm.dead.>",), max_age=30 * DAY, max_bytes=GIB)


def common_streams(*, replicas: int = 1) -> tuple[StreamSpec, ...]:
    """Return the streams that no client reads, in the order in which they are made."""
    inputs = tuple(_inputs(kind, shard) for kind in ("cpu", "gpu") for shard in range(SHARDS))
    return tuple(replace(stream, replicas=replicas) for stream in (*inputs, TIMERS, DEAD))


def workspace_streams(workspace: str, *, replicas: int = 1) -> tuple[StreamSpec, ...]:
    """Return the streams of one workspace: what its clients read names the stream, not a subject."""
    blobs = f"$O.{subjects.blobs_bucket(workspace)}"
    streams = (
        StreamSpec(
            subjects.replies_stream(workspace),
            (f"tm.replies.{workspace}.*",),
            max_age=600.0,
            max_bytes=4 * GIB,
        ),
        StreamSpec(
            subjects.results_stream(workspace),
            (f"tm.results.{workspace}.>",),
            discard="new",
            discard_new_per_subject=True,
            max_msgs_per_subject=1,
            max_age=7 * DAY,
        ),
        StreamSpec(
            subjects.events_stream(workspace), (f"tm.events.{workspace}.>",), max_age=7 * DAY, max_bytes=GIB
        ),
        StreamSpec(
            subjects.logs_stream(workspace), (f"tm.logs.{workspace}.>",), max_age=7 * DAY, max_bytes=4 * GIB
        ),
        # Event streams of web functions, for clients that come again.
        StreamSpec(
            subjects.feeds_stream(workspace),
            (f"tm.feeds.{workspace}.>",),
            max_age=600.0,
            max_bytes=GIB,
        ),
        # Payloads say themselves how long they are kept; code bundles stay.
        StreamSpec(
            subjects.blobs_stream(workspace),
            (f"{blobs}.C.>", f"{blobs}.M.>"),
            allow_msg_ttl=True,
            allow_rollup=True,
        ),
    )
    return tuple(replace(stream, replicas=replicas) for stream in streams)


async def apply(bus: ServiceBus, *workspaces: str, replicas: int = 1) -> None:
    """Make or update every common stream and bucket, and those of some workspaces.

    Idempotent: each service does it when it starts; the registry for all workspaces that there are.
    """
    for stream in common_streams(replicas=replicas):
        await bus.ensure_stream(stream)
    for name, ttl in BUCKETS.items():
        await bus.ensure_bucket(name, ttl=ttl, replicas=replicas)
    for workspace in workspaces:
        await apply_workspace(bus, workspace, replicas=replicas)


async def apply_workspace(bus: ServiceBus, workspace: str, *, replicas: int = 1) -> None:
    """Make or update the streams of a workspace."""
    specs = workspace_streams(workspace, replicas=replicas)
    await asyncio.gather(*(bus.ensure_stream(spec) for spec in specs))


def handles_key(app_id: str, version: int) -> str:
    """Return where the handles of one version of an app are kept."""
    return f"{app_id}.{version}"


def pool_consumer(pool: Pool) -> ConsumerSpec:
    """Return the one durable consumer of a pool's inputs."""
    return ConsumerSpec(stream=pool.stream, name=pool.id, filter=subjects.pool_inputs(pool.prefix))


DUE_CONSUMER = ConsumerSpec(stream="TIMERS", name="scheduler", filter="tm.due.>", inactive_threshold=0.0)


def records_consumer(workspace: str) -> ConsumerSpec:
    """Return the durable consumer of a workspace's records, which the registry's replicas share."""
    stream, records = subjects.events_stream(workspace), subjects.records(workspace)
    return ConsumerSpec(stream=stream, name="registry", filter=records, inactive_threshold=0.0)


DEAD_CONSUMER = ConsumerSpec(stream="DEAD", name="registry", filter=subjects.ALL_DEAD, inactive_threshold=0.0)
