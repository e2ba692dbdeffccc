"""Streams, buckets and consumers in JetStream's own words."""

from typing import Any

from tidemill_common.bus.protocol import ConsumerSpec, ConsumerState, StreamSpec

PRIORITY_GROUP = "g"  # the one that prioritized consumers have

# Watches are consumers of their bucket's stream, one for each process that looks.
_BUCKET_CONSUMERS = 10_000


def nanoseconds(seconds: float) -> int:
    """Return a duration as JetStream takes it."""
    return round(seconds * 1_000_000_000)


def stream(spec: StreamSpec) -> dict[str, Any]:
    """Return the configuration of a stream."""
    configuration: dict[str, Any] = {
        "name": spec.name,
        "subjects": list(spec.subjects),
        "retention": spec.retention,
        "discard": spec.discard,
        "max_age": nanoseconds(spec.max_age),
        "max_bytes": spec.max_bytes,
        "max_msgs": -1,
        "max_msg_size": -1,
        "max_msgs_per_subject": spec.max_msgs_per_subject,
        "max_consumers": spec.max_consumers,
        "duplicate_window": nanoseconds(_window(spec)),
        "storage": spec.storage,
        "num_replicas": spec.replicas,
        "allow_direct": spec.allow_direct,
        "allow_rollup_hdrs": spec.allow_rollup or spec.allow_msg_schedules,  # schedules bring it along
        "allow_msg_ttl": spec.allow_msg_ttl,
        "allow_msg_schedules": spec.allow_msg_schedules,
    }
    if spec.discard_new_per_subject:
        configuration["discard_new_per_subject"] = True
    if spec.metadata:
        configuration["metadata"] = dict(spec.metadata)
    return configuration


def bucket_spec(name: str, *, ttl: float, replicas: int) -> StreamSpec:
    """Return a bucket's stream.

    Entries may carry a time to live of their own. There are no markers for expired ones: a marker would
    stand in the way of a lease's next holder.
    """
    return StreamSpec(
        name=f"KV_{name}",
        subjects=(f"$KV.{name}.>",),
        discard="new",
        max_age=ttl,
        max_msgs_per_subject=1,
        max_consumers=_BUCKET_CONSUMERS,
        allow_msg_ttl=True,
        allow_rollup=True,
        replicas=replicas,
    )


def replacement(expected: int, ttl: float) -> dict[str, str]:
    """Return the headers of a publish that only follows the subject's sequence `expected`."""
    headers = {"Nats-Expected-Last-Subject-Sequence": str(expected)}
    return headers | ({"Nats-TTL": f"{ttl:.0f}s"} if ttl else {})


def _window(spec: StreamSpec) -> float:
    """Return the window for duplicates; it must not be longer than messages are kept."""
    return min(spec.duplicate_window, spec.max_age) if spec.max_age else spec.duplicate_window


def consumer(spec: ConsumerSpec) -> tuple[str, dict[str, Any]]:
    """Return the API's verb and request that make a durable pull consumer, or leave it as it is."""
    configuration: dict[str, Any] = {
        "name": spec.name,
        "durable_name": spec.name,
        "filter_subject": spec.filter,
        "ack_policy": "explicit",
        "deliver_policy": "all",
        "replay_policy": "instant",
        "ack_wait": nanoseconds(spec.ack_wait),
        "max_ack_pending": spec.max_ack_pending,
        "max_waiting": spec.max_waiting,
        "max_deliver": -1,
    }
    if spec.inactive_threshold:
        configuration["inactive_threshold"] = nanoseconds(spec.inactive_threshold)
    if spec.prioritized:
        configuration |= {"priority_groups": [PRIORITY_GROUP], "priority_policy": "prioritized"}
    verb = f"CONSUMER.CREATE.{spec.stream}.{spec.name}.{spec.filter}"
    return verb, {"stream_name": spec.stream, "config": configuration}


def watcher(
    stream: str, subject: str, inbox: str, *, heartbeat: float, inactive: float
) -> tuple[str, dict[str, Any]]:
    """Return the API's verb and request that make a consumer which pushes the latest of each subject."""
    configuration = {
        "filter_subject": subject,
        "deliver_subject": inbox,
        "deliver_policy": "last_per_subject",
        "ack_policy": "none",
        "replay_policy": "instant",
        "idle_heartbeat": nanoseconds(heartbeat),
        "inactive_threshold": nanoseconds(inactive),
        "flow_control": True,
        "mem_storage": True,
        "num_replicas": 1,
        "max_deliver": 1,
    }
    return f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": configuration}


def consumer_state(answer: dict[str, Any]) -> ConsumerState:
    """Return how much work an answer about a consumer tells of."""
    return ConsumerState(
        pending=answer["num_pending"],
        ack_pending=answer["num_ack_pending"],
        waiting=answer.get("num_waiting", 0),
        delivered=answer["delivered"]["consumer_seq"],
    )
