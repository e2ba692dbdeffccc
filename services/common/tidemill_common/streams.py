"""Every stream, bucket and consumer of Tidemill, as values on one screen."""

from dataclasses import replace

from tidemill._wire import subjects
from tidemill._wire.control import Pool
from tidemill_common.bus.protocol import ConsumerSpec, ServiceBus, StreamSpec

DAY = 86_400.0
GIB = 1 << 30

SHARDS = 4  # of newly made pools; a pool keeps the shard written into its record

POOLS, ROUTES, WORKERS, LEASES = "pools", "routes", "workers", "leases"
BUCKETS = {POOLS: 0.0, ROUTES: 0.0, WORKERS: 15.0, LEASES: 0.0}  # name -> seconds to live


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


REPLIES = StreamSpec("REPLIES", ("tm.replies.*",), max_age=600.0, max_bytes=4 * GIB)
RESULTS = StreamSpec(
    "RESULTS",
    ("tm.results.>",),
    discard="new",
    discard_new_per_subject=True,
    max_msgs_per_subject=1,
    max_age=7 * DAY,
)
# Schedules live only in a discard-old stream, where any limit would forget timers silently: so none.
TIMERS = StreamSpec("TIMERS", ("tm.timers.>", "tm.due.>"), retention="workqueue", allow_msg_schedules=True)
EVENTS = StreamSpec("EVENTS", ("tm.events.>",), max_age=7 * DAY, max_bytes=GIB)
LOGS = StreamSpec("LOGS", ("tm.logs.>",), max_age=7 * DAY, max_bytes=4 * GIB)
DEAD = StreamSpec("DEAD", ("tm.dead.>",), max_age=30 * DAY, max_bytes=GIB)
# Payloads say themselves how long they are kept; code bundles stay.
BLOBS = StreamSpec("OBJ_blobs", ("$O.blobs.C.>", "$O.blobs.M.>"), allow_msg_ttl=True, allow_rollup=True)


def all_streams(*, replicas: int = 1) -> tuple[StreamSpec, ...]:
    """Return the streams in the order in which they are made."""
    inputs = tuple(_inputs(kind, shard) for kind in ("cpu", "gpu") for shard in range(SHARDS))
    streams = (*inputs, REPLIES, RESULTS, TIMERS, EVENTS, LOGS, DEAD, BLOBS)
    return tuple(replace(stream, replicas=replicas) for stream in streams)


async def apply(bus: ServiceBus, *, replicas: int = 1) -> None:
    """Make or update every stream and bucket. Idempotent: each service does it when it starts."""
    for stream in all_streams(replicas=replicas):
        await bus.ensure_stream(stream)
    for name, ttl in BUCKETS.items():
        await bus.ensure_bucket(name, ttl=ttl, replicas=replicas)


def pool_consumer(pool: Pool) -> ConsumerSpec:
    """Return the one durable consumer of a pool's inputs."""
    return ConsumerSpec(stream=pool.stream, name=pool.id, filter=subjects.pool_inputs(pool.prefix))


DUE_CONSUMER = ConsumerSpec(stream="TIMERS", name="scheduler", filter="tm.due.>", inactive_threshold=0.0)

# The registry's replicas share one each. Records of one input may be stored in any order.
RECORDS_CONSUMER = ConsumerSpec(
    stream="EVENTS", name="registry", filter=subjects.ALL_RECORDS, inactive_threshold=0.0
)
DEAD_CONSUMER = ConsumerSpec(stream="DEAD", name="registry", filter=subjects.ALL_DEAD, inactive_threshold=0.0)
