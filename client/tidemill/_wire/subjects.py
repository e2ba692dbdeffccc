"""Every subject of Tidemill, built and parsed here and nowhere else."""

import re
from typing import NamedTuple

_TOKEN = re.compile(r"[A-Za-z0-9_+-]{1,128}")


def token(value: str) -> str:
    """Return `value` if it can stand as one token of a subject, else raise `ValueError`."""
    if not _TOKEN.fullmatch(value):
        raise ValueError(f"not a subject token: {value!r}")
    return value


# --- inputs: tm.inputs.<cpu|gpu>.<shard>.<capability>.<pool>.<call>.<first index>.<attempt>


class InputSubject(NamedTuple):
    """The parts of the subject that one chunk of inputs is published on."""

    kind: str
    shard: int
    capability: str
    pool: str
    call: str
    first: int
    attempt: int


def kind_of(capability: str) -> str:
    """Return `cpu` or `gpu`, the family of streams that a capability's inputs live in."""
    return "cpu" if capability == "cpu" else "gpu"


def inputs_stream(capability: str, shard: int) -> str:
    """Return the name of the stream that holds a pool's inputs."""
    return f"INPUTS_{kind_of(capability)}_{shard}"


def inputs_prefix(capability: str, shard: int, pool: str) -> str:
    """Return the subject of a pool's inputs up to the call, as it stands in the pool's handle."""
    return f"tm.inputs.{kind_of(capability)}.{shard}.{token(capability)}.{token(pool)}"


def inputs(prefix: str, call: str, first: int, attempt: int) -> str:
    """Return the subject of one chunk, from a pool's prefix."""
    return f"{prefix}.{call}.{first}.{attempt}"


def stream_of(prefix: str) -> str:
    """Return the name of the stream that holds the inputs published under a pool's prefix."""
    parts = prefix.split(".")
    if len(parts) != 6 or parts[:2] != ["tm", "inputs"]:
        raise ValueError(f"not a prefix of inputs: {prefix!r}")
    return f"INPUTS_{parts[2]}_{parts[3]}"


def pool_inputs(prefix: str) -> str:
    """Return the filter for all inputs of a pool."""
    return f"{prefix}.>"


def call_inputs(prefix: str, call: str) -> str:
    """Return the filter for all inputs of a call."""
    return f"{prefix}.{token(call)}.>"


def parse_inputs(subject: str) -> InputSubject:
    """Return the parts of an input's subject."""
    parts = subject.split(".")
    if len(parts) != 9 or parts[0] != "tm" or parts[1] != "inputs":
        raise ValueError(f"not a subject of inputs: {subject!r}")
    kind, shard, capability, pool, call, first, attempt = parts[2:]
    return InputSubject(kind, int(shard), capability, pool, call, int(first), int(attempt))


def input_key(call: str, first: int, attempt: int) -> str:
    """Return the message id under which a chunk is published: repeats of it are one message."""
    return f"{call}.{first}.{attempt}"


# --- outputs


def replies(caller: str) -> str:
    """Return the subject on which an attached caller's outputs arrive."""
    return f"tm.replies.{token(caller)}"


def result(call: str, index: int) -> str:
    """Return the subject of the one terminal output of an input of a kept call."""
    return f"tm.results.{token(call)}.{index}"


def call_record(call: str) -> str:
    """Return the subject of a kept call's own record (its pool and number of inputs)."""
    return f"tm.results.{token(call)}.call"


def call_results(call: str) -> str:
    """Return the filter for everything stored about a kept call."""
    return f"tm.results.{token(call)}.>"


# --- timers


def timer(call: str, first: int, attempt: int) -> str:
    """Return the subject on which a delayed attempt waits."""
    return f"tm.timers.{token(call)}.{first}.{attempt}"


def call_timers(call: str) -> str:
    """Return the filter for all delayed attempts of a call."""
    return f"tm.timers.{token(call)}.>"


def due(call: str, first: int, attempt: int) -> str:
    """Return the subject on which a delayed attempt appears when its time has come."""
    return f"tm.due.{token(call)}.{first}.{attempt}"


def call_due(call: str) -> str:
    """Return the filter for all delayed attempts of a call whose time has come."""
    return f"tm.due.{token(call)}.>"


# --- bells and requests (core NATS: an answer now, nothing to keep)

ALL_DEMAND = "tm.demand.*"
ALL_WORKER_STATES = "tm.worker_states.*"
ALL_CANCELS = "tm.cancel.*"
ALL_CONTAINER_EVENTS = "tm.events.container.*"


def demand(pool: str) -> str:
    """Return the subject on which callers say that a pool has work."""
    return f"tm.demand.{token(pool)}"


def demanded(subject: str) -> str:
    """Return the pool of a bell of demand."""
    return subject.rpartition(".")[2]


def trouble(pool: str) -> str:
    """Return the subject on which the scheduler tells a pool's callers why nothing starts."""
    return f"tm.trouble.{token(pool)}"


def credit(call: str, index: int) -> str:
    """Return the subject on which the reader of a generator's stream grants credit."""
    return f"tm.credit.{token(call)}.{index}"


def worker(worker_id: str, verb: str) -> str:
    """Return the subject of a request to one worker (`place`, `stop`, ...)."""
    return f"tm.workers.{token(worker_id)}.{token(verb)}"


def worker_state(worker_id: str) -> str:
    """Return the subject on which a worker reports its state, each second and on each change."""
    return f"tm.worker_states.{token(worker_id)}"


def cancel(call: str) -> str:
    """Return the subject on which workers hear that a call was cancelled."""
    return f"tm.cancel.{token(call)}"


def registry(verb: str) -> str:
    """Return the subject of a request to the registry."""
    return f"tm.registry.{token(verb)}"


def scheduler(verb: str) -> str:
    """Return the subject of a request to the scheduler's leader."""
    return f"tm.scheduler.{token(verb)}"


# --- life cycle and output


def event(kind: str, app: str) -> str:
    """Return the subject of a life-cycle event of an app."""
    return f"tm.events.{token(kind)}.{token(app)}"


def app_events(app: str) -> str:
    """Return the filter for all events of an app."""
    return f"tm.events.*.{token(app)}"


def logs(app: str, pool: str, container: str) -> str:
    """Return the subject of a container's output."""
    return f"tm.logs.{token(app)}.{token(pool)}.{token(container)}"


def app_logs(app: str) -> str:
    """Return the filter for all output of an app."""
    return f"tm.logs.{token(app)}.>"


def dead(pool: str, call: str, index: int) -> str:
    """Return the subject of an input that was given up."""
    return f"tm.dead.{token(pool)}.{token(call)}.{index}"


# --- duplex streams, and what opens them


def stream(stream_id: str, *, to_opener: bool) -> str:
    """Return the subject of one direction of a duplex stream: to who opened it, or to who answered."""
    return f"tm.streams.{token(stream_id)}.{'back' if to_opener else 'there'}"


def terminal(app: str) -> str:
    """Return the subject on which the caller of an interactive run is asked for its terminal."""
    return f"tm.terminals.{token(app)}"
