"""Every subject of Tidemill, built and parsed here and nowhere else.

The workspace stands right behind the kind: what a workspace may name is a prefix of its own.
"""

import re
from typing import NamedTuple

_TOKEN = re.compile(r"[A-Za-z0-9_+-]{1,128}")
_WORKSPACE = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


def token(value: str) -> str:
    """Return `value` if it can stand as one token of a subject, else raise `ValueError`."""
    if not _TOKEN.fullmatch(value):
        raise ValueError(f"not a subject token: {value!r}")
    return value


def workspace(value: str) -> str:
    """Return `value` if it can be the name of a workspace, else raise `ValueError`."""
    if not _WORKSPACE.fullmatch(value):
        raise ValueError(f"not the name of a workspace: {value!r}")
    return value


# --- inputs: tm.inputs.<cpu|gpu>.<shard>.<workspace>.<capability>.<pool>.<call>.<first index>.<attempt>


class InputSubject(NamedTuple):
    """The parts of the subject that one chunk of inputs is published on."""

    kind: str
    shard: int
    workspace: str
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


def inputs_prefix(ws: str, capability: str, shard: int, pool: str) -> str:
    """Return the subject of a pool's inputs up to the call, as it stands in the pool's handle."""
    return f"tm.inputs.{kind_of(capability)}.{shard}.{workspace(ws)}.{token(capability)}.{token(pool)}"


def inputs(prefix: str, call: str, first: int, attempt: int) -> str:
    """Return the subject of one chunk, from a pool's prefix."""
    return f"{prefix}.{call}.{first}.{attempt}"


def stream_of(prefix: str) -> str:
    """Return the name of the stream that holds the inputs published under a pool's prefix."""
    parts = _prefix_parts(prefix)
    return f"INPUTS_{parts[2]}_{parts[3]}"


def workspace_of(prefix: str) -> str:
    """Return the workspace of the pool that a prefix of inputs is of."""
    return _prefix_parts(prefix)[4]


def _prefix_parts(prefix: str) -> list[str]:
    parts = prefix.split(".")
    if len(parts) != 7 or parts[:2] != ["tm", "inputs"] or not all(map(_TOKEN.fullmatch, parts)):
        raise ValueError(f"not a prefix of inputs: {prefix!r}")
    return parts


def pool_inputs(prefix: str) -> str:
    """Return the filter for all inputs of a pool."""
    return f"{prefix}.>"


def call_inputs(prefix: str, call: str) -> str:
    """Return the filter for all inputs of a call."""
    return f"{prefix}.{token(call)}.>"


def parse_inputs(subject: str) -> InputSubject:
    """Return the parts of an input's subject."""
    parts = subject.split(".")
    if len(parts) != 10 or parts[0] != "tm" or parts[1] != "inputs":
        raise ValueError(f"not a subject of inputs: {subject!r}")
    kind, shard, ws, capability, pool, call, first, attempt = parts[2:]
    return InputSubject(kind, int(shard), ws, capability, pool, call, int(first), int(attempt))


def input_key(call: str, first: int, attempt: int) -> str:
    """Return the message id under which a chunk is published: repeats of it are one message."""
    return f"{call}.{first}.{attempt}"


# --- outputs


def replies(ws: str, caller: str) -> str:
    """Return the subject on which an attached caller's outputs arrive."""
    return f"tm.replies.{workspace(ws)}.{token(caller)}"


def is_reply(ws: str, subject: str) -> bool:
    """Return whether outputs of a workspace's pools may be sent there: callers say so themselves."""
    prefix = f"tm.replies.{ws}."
    return subject.startswith(prefix) and _TOKEN.fullmatch(subject, len(prefix)) is not None


def outputs(reply: str) -> str:
    """Return the subject on which a caller hears outputs that are not stored, by that of its `replies`."""
    return "tm.outputs" + reply.removeprefix("tm.replies")


def taken(ws: str, worker_id: str) -> str:
    """Return the subject on which a worker hears who has its outputs; `*` for `ws` stands for each."""
    return f"tm.taken.{ws if ws == EVERY else workspace(ws)}.{token(worker_id)}"


def workspace_of_taken(subject: str) -> str:
    """Return the workspace of callers that tell a worker which outputs they have."""
    return subject.split(".")[2]


def replies_stream(ws: str) -> str:
    """Return the name of the stream that keeps the outputs of a workspace's attached calls."""
    return f"REPLIES_{workspace(ws)}"


def result(ws: str, call: str, index: int) -> str:
    """Return the subject of the one terminal output of an input of a kept call."""
    return f"tm.results.{workspace(ws)}.{token(call)}.{index}"


def call_record(ws: str, call: str) -> str:
    """Return the subject of a kept call's own record (its pool and number of inputs)."""
    return f"tm.results.{workspace(ws)}.{token(call)}.call"


def call_results(ws: str, call: str) -> str:
    """Return the filter for everything stored about a kept call."""
    return f"tm.results.{workspace(ws)}.{token(call)}.>"


def results_stream(ws: str) -> str:
    """Return the name of the stream that keeps the results of a workspace's calls."""
    return f"RESULTS_{workspace(ws)}"


def claim(ws: str, key: str) -> str:
    """Return the subject of what an idempotency key stands for: it takes the place of a call's id."""
    return call_record(ws, key)


# --- timers


def timer(ws: str, call: str, first: int, attempt: int) -> str:
    """Return the subject on which a delayed attempt waits."""
    return f"tm.timers.{workspace(ws)}.{token(call)}.{first}.{attempt}"


def call_timers(ws: str, call: str) -> str:
    """Return the filter for all delayed attempts of a call."""
    return f"tm.timers.{workspace(ws)}.{token(call)}.>"


def due(ws: str, call: str, first: int, attempt: int) -> str:
    """Return the subject on which a delayed attempt appears when its time has come."""
    return f"tm.due.{workspace(ws)}.{token(call)}.{first}.{attempt}"


def call_due(ws: str, call: str) -> str:
    """Return the filter for all delayed attempts of a call whose time has come."""
    return f"tm.due.{workspace(ws)}.{token(call)}.>"


_SCHEDULES = "schedules"  # stands where the call stands in other timers
ALL_SCHEDULES = f"tm.timers.*.{_SCHEDULES}.*"


def schedule_timer(ws: str, schedule: str) -> str:
    """Return the subject on which a schedule waits."""
    return f"tm.timers.{workspace(ws)}.{_SCHEDULES}.{token(schedule)}"


def schedule_due(ws: str, schedule: str) -> str:
    """Return the subject on which the firings of a schedule appear."""
    return f"tm.due.{workspace(ws)}.{_SCHEDULES}.{token(schedule)}"


def is_firing(subject: str) -> bool:
    """Return whether what is due on a subject is a firing of a schedule."""
    parts = subject.split(".")
    return len(parts) == 5 and parts[3] == _SCHEDULES


def schedule_of(subject: str) -> str:
    """Return the schedule that a subject of timers or of what is due is about."""
    return subject.rpartition(".")[2]


# --- answers


def inbox(user: str) -> str:
    """Return the prefix of the inboxes of a user, which no other user may listen to."""
    return f"_INBOX.{user}" if _TOKEN.fullmatch(user) else "_INBOX"


# --- bells and requests (core NATS: an answer now, nothing to keep)

ALL_DEMAND = "tm.demand.*.*"
ALL_WORKER_STATES = "tm.worker_states.*"
ALL_CANCELS = "tm.cancel.*.*"
ALL_CONTAINER_EVENTS = "tm.events.*.container.*"
ALL_APP_EVENTS = "tm.events.*.app.*"


def demand(ws: str, pool: str) -> str:
    """Return the subject on which callers say that a pool has work."""
    return f"tm.demand.{workspace(ws)}.{token(pool)}"


def demanded(subject: str) -> tuple[str, str]:
    """Return the workspace that rings, and the pool that it rings for; `ValueError` if it can be none."""
    _, _, ws, pool = subject.split(".")
    return ws, token(pool)


def trouble(ws: str, pool: str) -> str:
    """Return the subject on which the scheduler tells a pool's callers why nothing starts."""
    return f"tm.trouble.{workspace(ws)}.{token(pool)}"


def credit(ws: str, call: str, index: int) -> str:
    """Return the subject on which the reader of a generator's stream grants credit."""
    return f"tm.credit.{workspace(ws)}.{token(call)}.{index}"


def worker(worker_id: str, verb: str) -> str:
    """Return the subject of a request to one worker (`place`, `stop`, ...)."""
    return f"tm.workers.{token(worker_id)}.{token(verb)}"


def worker_state(worker_id: str) -> str:
    """Return the subject on which a worker reports its state, each second and on each change."""
    return f"tm.worker_states.{token(worker_id)}"


def cancel(ws: str, call: str) -> str:
    """Return the subject on which workers hear that a call was cancelled."""
    return f"tm.cancel.{workspace(ws)}.{token(call)}"


def registry(ws: str, verb: str) -> str:
    """Return the subject of a workspace's request to the registry; `*` for `ws` stands for each."""
    return request("registry", ws, verb)


def signed(ws: str, verb: str) -> str:
    """Return the subject on which the registry hears a member's request: its header says whose it is.

    Members ask on `registry`: the server leads that here and writes the header. Nobody else may write
    here but the gateway, for those it knows the tokens of.
    """
    return request("signed", ws, verb)


def reveal_secrets(ws: str) -> str:
    """Return the subject on which workers, and nobody else, ask the registry for a workspace's secrets."""
    return request("secrets", ws, "reveal")


def images(ws: str, verb: str) -> str:
    """Return the subject on which workers, and nobody else, ask the registry about a workspace's images."""
    return request("images", ws, verb)


def scheduler(ws: str, verb: str) -> str:
    """Return the subject of a workspace's request to the scheduler; `*` for `ws` stands for each."""
    return request("scheduler", ws, verb)


def request(service: str, ws: str, verb: str) -> str:
    """Return the subject of a workspace's request to a service; `*` for `ws` stands for each."""
    return f"tm.{token(service)}.{ws if ws == EVERY else workspace(ws)}.{token(verb)}"


def is_signed(subject: str) -> bool:
    """Tell whether a request came on a `signed` subject."""
    return subject.startswith("tm.signed.")


def requester(subject: str) -> str:
    """Return the workspace that asks on a subject of a request."""
    parts = subject.split(".")
    if len(parts) != 4:
        raise ValueError(f"not a subject of a request: {subject!r}")
    return workspace(parts[2])


def internal(service: str, verb: str) -> str:
    """Return the subject of a request to a service that only services may make."""
    return f"tm.internal.{token(service)}.{token(verb)}"


EVERY = "*"  # in the place of a workspace: any


# --- life cycle and output


def event(ws: str, kind: str, app: str) -> str:
    """Return the subject of a life-cycle event of an app."""
    return f"tm.events.{workspace(ws)}.{token(kind)}.{token(app)}"


def workspace_of_event(subject: str) -> str:
    """Return the workspace of an event."""
    return subject.split(".")[2]


def app_events(ws: str, app: str) -> str:
    """Return the filter for all events of an app."""
    return f"tm.events.{workspace(ws)}.*.{token(app)}"


def feeds_stream(ws: str) -> str:
    """Return the name of the stream that keeps the event streams of a workspace's web functions."""
    return f"FEEDS_{workspace(ws)}"


def feed(ws: str, requester: str, name: str) -> str:
    """Return the subject of something in the feeds of one requester; `*` for `name` stands for all."""
    return f"tm.feeds.{workspace(ws)}.{token(requester)}.{name if name == EVERY else token(name)}"


ALL_READ_FEEDS = "tm.read_feeds.*"


def read_feed(run: str) -> str:
    """Return the subject on which a gateway hears that a feed which it keeps is being read."""
    return f"tm.read_feeds.{token(run)}"


def kept_feed(run: str) -> str:
    """Return the subject on which the readers of a feed hear that it is still being kept."""
    return f"tm.kept_feeds.{token(run)}"


def events_stream(ws: str) -> str:
    """Return the name of the stream that keeps a workspace's events."""
    return f"EVENTS_{workspace(ws)}"


def logs(ws: str, app: str, pool: str, container: str) -> str:
    """Return the subject of a container's output."""
    return f"tm.logs.{workspace(ws)}.{token(app)}.{token(pool)}.{token(container)}"


def workspace_logs(ws: str) -> str:
    """Return the filter for all output of a workspace."""
    return f"tm.logs.{workspace(ws)}.>"


def app_logs(ws: str, app: str) -> str:
    """Return the filter for all output of an app."""
    return f"tm.logs.{workspace(ws)}.{token(app)}.>"


def logs_stream(ws: str) -> str:
    """Return the name of the stream that keeps the output of a workspace's containers."""
    return f"LOGS_{workspace(ws)}"


def dead(ws: str, pool: str, call: str, index: int) -> str:
    """Return the subject of an input that was given up."""
    return f"tm.dead.{workspace(ws)}.{token(pool)}.{token(call)}.{index}"


# --- payloads: the object store's own layout


def blobs_bucket(ws: str) -> str:
    """Return the name of the bucket of a workspace's payloads."""
    return f"blobs_{workspace(ws)}"


def blobs_stream(ws: str) -> str:
    """Return the name of the stream of a workspace's payloads."""
    return f"OBJ_{blobs_bucket(ws)}"


def blob_chunks(ws: str, nuid: str) -> str:
    """Return the subject of the chunks of one payload."""
    return f"$O.{blobs_bucket(ws)}.C.{token(nuid)}"


def blob_record(ws: str, encoded_name: str) -> str:
    """Return the subject of the record of a payload that has a name (in URL-safe base64)."""
    return f"$O.{blobs_bucket(ws)}.M.{encoded_name}"


# --- duplex streams, and what opens them


def stream(ws: str, stream_id: str, *, down: bool) -> str:
    """Return the subject of one direction of a duplex stream: down to a client, or up to the platform."""
    return f"tm.streams.{workspace(ws)}.{token(stream_id)}.{'down' if down else 'up'}"


def all_streams(stream_id: str, *, down: bool) -> str:
    """Return the filter for one direction of the streams of this id, in whichever workspace."""
    return f"tm.streams.*.{token(stream_id)}.{'down' if down else 'up'}"


def workspace_of_stream(subject: str) -> str:
    """Return the workspace of a stream."""
    return subject.split(".")[2]


def terminal(ws: str, app: str) -> str:
    """Return the subject on which the caller of an interactive run is asked for its terminal."""
    return f"tm.terminals.{workspace(ws)}.{token(app)}"


# --- records of inputs, and reading output

RECORDS = "inputs"  # the kind of event
ALL_DEAD = "tm.dead.>"


def records(ws: str) -> str:
    """Return the filter for all records of a workspace's inputs."""
    return f"tm.events.{workspace(ws)}.{RECORDS}.*"


def pool_of_prefix(prefix: str) -> str:
    """Return the pool whose inputs are published under a prefix."""
    return prefix.rpartition(".")[2]


def app_of_logs(subject: str) -> str:
    """Return the app that a container's output is of."""
    return subject.split(".")[3]


def container_logs(ws: str, container: str, app: str = EVERY) -> str:
    """Return the filter for the output of one container, of whichever app."""
    return f"tm.logs.{workspace(ws)}.{app if app == EVERY else token(app)}.*.{token(container)}"
