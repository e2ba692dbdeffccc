"""Who may do what on NATS: allow-lists by identity, and what passes between the two accounts.

    MEMBERS                                       TIDEMILL
    clients, by their tokens  ── SERVICES ──>     services and workers, JetStream
                              <── STREAMS ──

Permissions alone cannot keep workspaces apart inside one account: the server publishes its answers, the
contents of a stored message among them, on whatever subject a request names for its reply, and checks
nobody's permissions there. So clients live in an account of their own, in which there is nothing: what they
ask crosses into the other as a service import, whose answers come back to them and nowhere else.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tidemill._wire import subjects, tokens
from tidemill_common import streams

PLATFORM, MEMBERS, SYSTEM = "TIDEMILL", "MEMBERS", "SYS"

# The static users, each with a password of its own; `system` sees and ends connections, for the registry.
SERVICE_USERS = ("registry", "scheduler", "gateway")
SYSTEM_USER = "system"

_GET, _BATCH = "$JS.API.STREAM.MSG.GET", "$JS.API.DIRECT.GET"  # from the leader; from any replica
_PURGE = "$JS.API.STREAM.PURGE"


@dataclass(frozen=True, slots=True)
class Rights:
    """Subjects that an identity may publish on and subscribe to. Denied ones weigh more than allowed ones.

    `responds` lets it answer on the reply subject of what it receives, wherever that is.
    """

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    publish_denied: tuple[str, ...] = ()
    responds: bool = False


# --- what passes between the accounts

# What members may ask of the platform, whatever their workspace: `member` says for which one.
SERVICES = (
    "tm.inputs.*.*.*.>",
    "tm.demand.*.*",
    "tm.credit.*.*.*",
    "tm.results.*.*.call",
    "tm.scheduler.*.*",
    "tm.streams.*.*.up",
    "tm.taken.*.*",
    "$O.*.C.*",
    "$O.*.M.*",
)
# What members ask of the registry comes to it with a header that says whose connection it came over. The
# server writes it, over whatever a member wrote there itself; on a subject that nobody else may write to, for
# inside the platform's account nobody checks headers.
SIGNED = "tm.signed.*.*"
# JetStream's API crosses as a whole: a part of it would be asked of the members' own account, which has no
# streams. What a member may ask there stands in its rights. Answers may be several messages.
API = "$JS.API.>"
API_SERVICES = (f"{_GET}.*", f"{_BATCH}.*", f"{_PURGE}.*")
_API_THRESHOLD = "30s"  # between two messages of an answer
# What members may hear of the platform.
STREAMS = (
    "tm.replies.*.*",
    "tm.outputs.*.*",
    "tm.results.*.>",
    "tm.trouble.*.*",
    "tm.logs.*.>",
    "tm.events.*.>",
    "tm.streams.*.*.down",
    "tm.terminals.*.*",
)


def exports() -> list[Mapping[str, object]]:
    """Return what the platform's account lets the members' account have, as the server is configured."""
    return [
        *({"service": subject} for subject in (*SERVICES, SIGNED)),
        {"service": API, "response": "stream", "threshold": _API_THRESHOLD},
        *({"stream": subject} for subject in STREAMS),
    ]


def imports() -> list[Mapping[str, object]]:
    """Return what the members' account has of the platform's, as the server is configured."""
    return [
        *({"service": _of_platform(subject)} for subject in (*SERVICES, API)),
        {"service": _of_platform(SIGNED), "to": "tm.registry.$1.$2", "share": True},
        *({"stream": _of_platform(subject)} for subject in STREAMS),
    ]


def _of_platform(subject: str) -> dict[str, str]:
    return {"account": PLATFORM, "subject": subject}


# --- identities


def member(workspace: str, user: str) -> Rights:
    """Return what a member's token may do: everything that the SDK needs in one workspace."""
    ws = subjects.workspace(workspace)
    bucket = subjects.blobs_bucket(ws)
    between_gateways = subjects.feeds_stream(ws)
    names = (spec.name for spec in streams.workspace_streams(ws))
    own = tuple(name for name in names if name != between_gateways)
    purged = (subjects.replies_stream(ws), subjects.blobs_stream(ws))
    return Rights(
        publish=(
            f"tm.inputs.*.*.{ws}.>",
            f"tm.demand.{ws}.*",
            f"tm.credit.{ws}.*.*",
            f"tm.results.{ws}.*.call",
            f"tm.registry.{ws}.*",
            f"tm.scheduler.{ws}.*",
            f"tm.streams.{ws}.*.up",
            f"tm.taken.{ws}.*",
            f"$O.{bucket}.C.*",
            f"$O.{bucket}.M.*",
            *_named(own, _GET, _BATCH),
            *_named(purged, _PURGE),
        ),
        subscribe=(
            f"{subjects.inbox(user)}.>",
            f"tm.replies.{ws}.*",
            f"tm.outputs.{ws}.*",
            f"tm.results.{ws}.>",
            f"tm.trouble.{ws}.*",
            f"tm.logs.{ws}.>",
            f"tm.events.{ws}.>",
            f"tm.streams.{ws}.*.down",
            f"tm.terminals.{ws}.*",
        ),
    )


def worker(kind: str, user: str) -> Rights:
    """Return what a worker's token may do: take inputs of its kinds of queues, and answer them.

    Its containers' wishes go over it, so it may read and write what any workspace's members may; which of
    that a container gets is the worker's to see to.
    """
    queues = ("cpu", "gpu") if kind == tokens.GPU_WORKER else ("cpu",)
    taken = [(queue, shard) for queue in queues for shard in range(streams.SHARDS)]
    readable = {f"KV_{name}" for name in (streams.POOLS, streams.HANDLES, streams.WORKERS, streams.LEASES)}
    closed = {spec.name for spec in streams.common_streams()} | {f"KV_{name}" for name in streams.BUCKETS}
    return Rights(
        publish=(
            *(pattern for queue, shard in taken for pattern in _queue(queue, shard)),
            *(f"tm.inputs.{queue}.>" for queue in queues),
            "tm.timers.*.*.*.*",
            "tm.dead.>",
            "tm.replies.*.*",
            "tm.outputs.*.*",
            "tm.taken.*.*",
            "tm.results.*.>",
            "tm.logs.*.>",
            "tm.events.*.container.*",
            f"tm.events.*.{subjects.RECORDS}.*",
            "tm.demand.*.*",
            "tm.credit.*.*.*",
            "tm.registry.*.*",
            "tm.scheduler.*.*",
            "tm.streams.*.*.down",
            "tm.terminals.*.*",
            subjects.reveal_secrets(subjects.EVERY),
            subjects.images(subjects.EVERY, "get_resolution"),
            subjects.images(subjects.EVERY, "put_resolution"),
            "tm.worker_states.*",
            f"$KV.{streams.WORKERS}.*",
            "$O.*.C.*",
            "$O.*.M.*",
            f"{_GET}.*",
            f"{_BATCH}.*",
            f"{_PURGE}.*",
            "$JS.API.INFO",
            f"{subjects.inbox('scheduler')}.>",
            f"{subjects.inbox('gateway')}.>",
        ),
        subscribe=(
            f"{subjects.inbox(user)}.>",
            "tm.workers.*.*",
            "tm.cancel.*.*",
            "tm.credit.*.*.*",
            "tm.streams.*.*.up",
            "tm.taken.*.*",
            "tm.outputs.*.*",
            "tm.replies.*.*",
            "tm.results.*.>",
            "tm.trouble.*.*",
            "tm.logs.*.>",
            "tm.events.*.>",
            "$SRV.>",
        ),
        publish_denied=(*_named(sorted(closed - readable), _GET, _BATCH), *_named(sorted(closed), _PURGE)),
    )


def _queue(kind: str, shard: int) -> Iterable[str]:
    """Yield what taking inputs from one stream needs. The filter of a consumer stands in its subject."""
    stream = f"INPUTS_{kind}_{shard}"
    yield f"$JS.API.CONSUMER.CREATE.{stream}.*.tm.inputs.{kind}.{shard}.>"
    yield f"$JS.API.CONSUMER.MSG.NEXT.{stream}.*"
    yield f"$JS.API.CONSUMER.INFO.{stream}.*"
    yield f"$JS.ACK.{stream}.>"
    yield f"$JS.ACK.*.*.{stream}.>"  # as servers are to write it one day


def _named(names: Iterable[str], *verbs: str) -> tuple[str, ...]:
    return tuple(f"{verb}.{name}" for name in names for verb in verbs)


def service(name: str) -> Rights:
    """Return what one of the services may do."""
    return _RIGHTS_OF_SERVICES[name]


FEEDS = ("tm.feeds.>", "tm.read_feeds.*", "tm.kept_feeds.*")  # what gateways keep for clients that come again
_READ_MODELS = (streams.POOLS, streams.ROUTES, streams.LIMITS, streams.PROXY_TOKENS)  # that gateways follow

_RIGHTS_OF_SERVICES = {
    "registry": Rights(
        publish=("tm.>", "$KV.>", "$O.>", "$JS.API.>", "$JS.ACK.>"),
        subscribe=(f"{subjects.inbox('registry')}.>", "tm.>", "$SRV.>", "$SYS.REQ.USER.AUTH"),
        responds=True,
    ),
    "scheduler": Rights(
        publish=("tm.>", "$KV.>", "$JS.API.>", "$JS.ACK.>"),
        subscribe=(f"{subjects.inbox('scheduler')}.>", "tm.>", "$SRV.>"),
        responds=True,
    ),
    # It stands where anybody can knock: it may do what members may, for each workspace, stop containers,
    # ask whose a token is, take tokens of limits, and no more.
    "gateway": Rights(
        publish=(
            *SERVICES,
            *API_SERVICES,
            SIGNED,
            subjects.internal("registry", "verify_token"),
            subjects.internal("scheduler", "lease_tokens"),
            "tm.workers.*.stop",
            *FEEDS,
            "$JS.API.INFO",
            *(f"$JS.API.CONSUMER.CREATE.KV_{name}" for name in _READ_MODELS),
        ),
        subscribe=(f"{subjects.inbox('gateway')}.>", *STREAMS, *FEEDS, "$SRV.>"),
        publish_denied=_named([spec.name for spec in streams.common_streams()], _GET, _BATCH, _PURGE),
        responds=True,
    ),
}

WITHOUT_STREAMS = frozenset(("worker", "gateway"))  # may make none: they wait until they are there


# --- in the server's words


def permissions(rights: Rights) -> dict[str, object]:
    """Return rights as the configuration of a static user has them."""
    publish: dict[str, object] = {"allow": list(rights.publish)}
    if rights.publish_denied:
        publish["deny"] = list(rights.publish_denied)
    written: dict[str, object] = {"publish": publish, "subscribe": {"allow": list(rights.subscribe)}}
    if rights.responds:
        written["allow_responses"] = {"max": 1, "expires": "2m"}
    return written


def accounts(passwords: dict[str, str]) -> dict[str, object]:
    """Return the accounts as the server is configured, with the passwords of the static users."""
    users = [
        {"user": name, "password": passwords[name], "permissions": permissions(service(name))}
        for name in SERVICE_USERS
    ]
    return {
        PLATFORM: {
            "jetstream": "enabled",
            "users": users,
            "exports": exports(),
        },
        MEMBERS: {
            "imports": imports(),
        },
        SYSTEM: {"users": [{"user": SYSTEM_USER, "password": passwords[SYSTEM_USER]}]},
    }


def authorization(issuer: str) -> dict[str, object]:
    """Return how everybody else is let in: the registry is asked. `issuer` is its public key."""
    callout = {
        "issuer": issuer,
        "account": PLATFORM,
        "auth_users": [*SERVICE_USERS, SYSTEM_USER],
    }
    return {"timeout": CALLOUT_TIMEOUT, "auth_callout": callout}


def configuration(passwords: dict[str, str], issuer: str) -> dict[str, object]:
    """Return what the server's configuration says about who may do what."""
    return {
        "accounts": accounts(passwords),
        "system_account": SYSTEM,
        "authorization": authorization(issuer),
    }


CALLOUT_TIMEOUT = 1  # seconds for the registry to say who somebody is; see `tidemill._bus.connection`
