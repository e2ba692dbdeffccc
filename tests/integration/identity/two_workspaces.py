"""A stack with two workspaces, and somebody of the second who stops at nothing."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import nats
from nats.aio.client import Client as RawClient
from running_stacks import RunningStack

from tidemill import Client
from tidemill._wire import ids, subjects
from tidemill_common.bus.nats import NatsServiceBus, connect

VICTIM, INTRUDER = "local", "other"
COMMAND_TIMEOUT = 60.0


@dataclass
class Workspaces:
    """The stack, the token of its owner, and the one of the second workspace."""

    stack: RunningStack
    victim: tuple[str, str]
    intruder: tuple[str, str]

    @property
    def url(self) -> str:
        return self.stack.info.server_url

    def client(self, token: tuple[str, str]) -> Client:
        return Client.from_credentials(*token, server_url=self.url)

    @asynccontextmanager
    async def platform(self) -> AsyncIterator[NatsServiceBus]:
        """Return a connection that may see everything: the registry's."""
        password = credentials(self.stack)["passwords"]["registry"]
        bus = await connect(self.url, "registry", password, name="observer", timeout=20)
        try:
            yield bus
        finally:
            await bus.close()

    async def until_ended(self, token: tuple[str, str], end: Callable[[], object], timeout: float) -> None:
        """Connect, call `end`, and return when the server has ended the connection."""
        bus, ended = await connect(self.url, *token, timeout=20), asyncio.Event()
        bus.on_disconnect(ended.set)
        try:
            await asyncio.to_thread(end)
            async with asyncio.timeout(timeout):
                await ended.wait()
        finally:
            await bus.close()

    @asynccontextmanager
    async def raw(self, token: tuple[str, str]) -> "AsyncIterator[Raw]":
        raw = Raw()
        raw.client = await nats.connect(
            self.url,
            user=token[0],
            password=token[1],
            inbox_prefix=subjects.inbox(token[0]).encode(),
            error_cb=raw.on_error,
        )
        try:
            yield raw
        finally:
            await raw.client.close()


@dataclass
class Raw:
    """A connection without our code between it and the server, which notes what it is refused."""

    errors: list[str] = field(default_factory=list)
    heard: list[Any] = field(default_factory=list)
    client: RawClient = field(init=False)

    async def on_error(self, error: Exception) -> None:
        self.errors.append(str(error).lower())

    async def hear(self, message: Any) -> None:
        self.heard.append(message)

    async def settled(self) -> None:
        """Return when the server has answered everything: nats-py's ping overtakes what waits to be sent."""
        for _ in range(2):
            await self.client.flush(timeout=60)

    async def may_publish(self, *tried: str) -> list[str]:
        """Return the subjects that the server lets this connection publish on."""
        self.errors.clear()
        for subject in tried:
            await self.client.publish(subject, b"{}")
        await self.settled()
        refused = " ".join(self.errors)
        return [subject for subject in tried if f'publish to "{subject.lower()}"' not in refused]

    async def may_subscribe(self, *tried: str) -> list[str]:
        """Return the subjects that the server lets this connection subscribe to."""
        self.errors.clear()
        for subject in tried:
            await self.client.subscribe(subject, cb=self.hear)
            await self.client.subscribe(subject, queue="q", cb=self.hear)
        await self.settled()
        refused = " ".join(self.errors)
        return [subject for subject in tried if f'subscription to "{subject.lower()}"' not in refused]


def credentials(stack: RunningStack) -> dict[str, Any]:
    """Return what the stack keeps in its private file."""
    kept: dict[str, Any] = json.loads((stack.home / "credentials.json").read_text())
    return kept


def registry_command(stack: RunningStack, *arguments: str) -> Any:
    """Run a command of the registry as the stack's operator does; return what it tells."""
    environment = {
        **os.environ,
        "TIDEMILL_DATABASE_URL": database_url(stack),
        "TIDEMILL_NATS_URL": stack.info.server_url,
        "TIDEMILL_NATS_USER": "registry",
        "TIDEMILL_NATS_PASSWORD": credentials(stack)["passwords"]["registry"],
    }
    command = [sys.executable, "-m", "tidemill_registry", *arguments]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout else None


def database_url(stack: RunningStack) -> str:
    """Return how the registry reaches its database."""
    import psutil

    pid = stack.part("registry").pid
    return str(psutil.Process(pid).environ()["TIDEMILL_DATABASE_URL"])


def new_token(stack: RunningStack, *arguments: str) -> tuple[str, str]:
    """Make a token on the command line."""
    told = registry_command(stack, "token", "create", *arguments)
    return told["token_id"], told["secret"]


# --- every subject there is, as one of a workspace


def every_subject(ws: str, prefix: str, app: str, call: str) -> dict[str, str]:
    """Return a subject from every function of `subjects` that makes one, by the function's name."""
    pool = prefix.rpartition(".")[2]
    return {
        "pool_inputs": subjects.pool_inputs(prefix),
        "call_inputs": subjects.call_inputs(prefix, call),
        "inputs": subjects.inputs(prefix, ids.new(ids.CALL), 0, 0),
        "replies": subjects.replies(ws, ids.new(ids.CALLER)),
        "outputs": subjects.outputs(subjects.replies(ws, ids.new(ids.CALLER))),
        "taken": subjects.taken(ws, "wo-1"),
        "result": subjects.result(ws, call, 0),
        "call_record": subjects.call_record(ws, call),
        "claim": subjects.claim(ws, "ik-1"),
        "call_results": subjects.call_results(ws, call),
        "timer": subjects.timer(ws, call, 0, 1),
        "call_timers": subjects.call_timers(ws, call),
        "due": subjects.due(ws, call, 0, 1),
        "call_due": subjects.call_due(ws, call),
        "schedule_timer": subjects.schedule_timer(ws, "sc-1"),
        "schedule_due": subjects.schedule_due(ws, "sc-1"),
        "demand": subjects.demand(ws, pool),
        "feed": subjects.feed(ws, "f0", "event"),
        "all_streams": subjects.all_streams("wo-1", down=True),
        "read_feed": subjects.read_feed("fd-1"),
        "kept_feed": subjects.kept_feed("fd-1"),
        "trouble": subjects.trouble(ws, pool),
        "credit": subjects.credit(ws, call, 0),
        "worker": subjects.worker("wo-1", "place"),
        "worker_state": subjects.worker_state("wo-1"),
        "cancel": subjects.cancel(ws, call),
        "registry": subjects.registry(ws, "list_apps"),
        "signed": subjects.signed(ws, "list_apps"),
        "scheduler": subjects.scheduler(ws, "status"),
        "reveal_secrets": subjects.reveal_secrets(ws),
        "images": subjects.images(ws, "get_resolution"),
        "request": subjects.request("gateway", ws, "anything"),
        "internal": subjects.internal("registry", "verify_token"),
        "inbox": f"{subjects.inbox(ids.new_token(ws))}.x",
        "event": subjects.event(ws, "container", app),
        "app_events": subjects.app_events(ws, app),
        "records": subjects.records(ws),
        "logs": subjects.logs(ws, app, pool, "co-1"),
        "workspace_logs": subjects.workspace_logs(ws),
        "app_logs": subjects.app_logs(ws, app),
        "stream": subjects.stream(ws, "sm-1", down=True),
        "terminal": subjects.terminal(ws, app),
        "container_logs": subjects.container_logs(ws, "co-1"),
        "dead": subjects.dead(ws, pool, call, 0),
        "blob_chunks": subjects.blob_chunks(ws, "nuid"),
        "blob_record": subjects.blob_record(ws, "bmFtZQ=="),
    }


# Functions of `subjects` that make no subject.
NO_SUBJECT = {
    "token", "workspace", "kind_of", "inputs_stream", "inputs_prefix", "stream_of", "workspace_of",
    "parse_inputs", "input_key", "is_reply", "replies_stream", "results_stream", "events_stream",
    "logs_stream", "feeds_stream", "workspace_of_stream", "workspace_of_taken", "demanded", "requester",
    "is_signed", "is_firing", "schedule_of", "workspace_of_event", "pool_of_prefix", "app_of_logs",
    "blobs_bucket", "blobs_stream",
}  # fmt: skip

# What a member may do with such a subject in its own workspace.
MAY_PUBLISH = {
    "inputs",
    "call_record",
    "claim",
    "demand",
    "credit",
    "taken",
    "registry",
    "scheduler",
    "blob_chunks",
    "blob_record",
}
MAY_SUBSCRIBE = {
    "replies", "outputs", "result", "call_record", "claim", "call_results", "trouble", "event", "app_events",
    "records", "logs", "workspace_logs", "app_logs", "container_logs", "stream", "terminal",
}  # fmt: skip

# --- every operation of JetStream

STREAM_VERBS = (
    "STREAM.CREATE", "STREAM.UPDATE", "STREAM.INFO", "STREAM.DELETE", "STREAM.PURGE", "STREAM.MSG.GET",
    "STREAM.MSG.DELETE", "STREAM.SNAPSHOT", "STREAM.RESTORE", "STREAM.PEER.REMOVE", "STREAM.LEADER.STEPDOWN",
    "DIRECT.GET", "CONSUMER.CREATE", "CONSUMER.LIST", "CONSUMER.NAMES",
)  # fmt: skip
CONSUMER_VERBS = (
    "CONSUMER.CREATE", "CONSUMER.DURABLE.CREATE", "CONSUMER.INFO", "CONSUMER.DELETE", "CONSUMER.MSG.NEXT",
    "CONSUMER.PAUSE", "CONSUMER.UNPIN", "CONSUMER.RESET", "CONSUMER.LEADER.STEPDOWN",
)  # fmt: skip
OF_NO_STREAM = (
    "$JS.API.INFO", "$JS.API.STREAM.LIST", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.TEMPLATE.NAMES",
    "$JS.API.ACCOUNT.PURGE.TIDEMILL", "$JS.API.META.LEADER.STEPDOWN", "$JS.API.SERVER.REMOVE",
    "$SYS.REQ.SERVER.PING", "$SYS.REQ.SERVER.PING.CONNZ", "$SYS.REQ.USER.AUTH", "$SYS.REQ.USER.INFO",
    "$SYS.REQ.ACCOUNT.PING.CONNZ", "$SYS.ACCOUNT.TIDEMILL.CONNECT", "$SRV.PING", "_R_.x", "$KV.pools.po-1",
    "$KV.leases.scheduler", "$KV.workers.wo-1", "$KV.routes.x", "tm.anything", "anything",
)  # fmt: skip
WIDE = (
    ">", "*", "tm.>", "tm.*.*", "tm.*.*.>", "tm.replies.>", "tm.replies.*.*", "tm.outputs.>",
    "tm.outputs.*.*", "_INBOX.>", "_INBOX.*.>", "_R_.>", "$JS.>", "$JS.EVENT.>", "$KV.>", "$O.>",
    "$SYS.>", "$SRV.>",
)  # fmt: skip


def operations(stream: str) -> list[str]:
    """Return a subject for everything that can be asked about a stream and what is in it."""
    return [
        *(f"$JS.API.{verb}.{stream}" for verb in STREAM_VERBS),
        *(f"$JS.API.{verb}.{stream}.consumer" for verb in CONSUMER_VERBS),
        f"$JS.API.CONSUMER.CREATE.{stream}.consumer.tm.inputs.>",
        f"$JS.API.DIRECT.GET.{stream}.tm.results.x",
        f"$JS.ACK.{stream}.consumer.1.1.1.1.0",
        f"$JS.FC.{stream}.consumer.x",
        f"$JS.ACK._.hash.{stream}.consumer.1.1.1.1.0",
    ]
