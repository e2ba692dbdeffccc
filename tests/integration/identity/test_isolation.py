"""Whoever has a token of one workspace reads, calls and disturbs nothing of another: every way is tried."""

import inspect
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from two_workspaces import (
    INTRUDER,
    MAY_PUBLISH,
    MAY_SUBSCRIBE,
    NO_SUBJECT,
    OF_NO_STREAM,
    VICTIM,
    WIDE,
    Workspaces,
    every_subject,
    operations,
)

from tidemill import App, Client, exception
from tidemill._sync import Call
from tidemill._wire import ids, subjects, tokens
from tidemill._wire.apps import (
    AppDetails,
    AppHeartbeat,
    AppList,
    FunctionsPublished,
    GetApp,
    ListApps,
    PublishFunctions,
    StopApp,
)
from tidemill._wire.control import CancelCall, Done, FindQueued, Queued
from tidemill_common import streams

SECRET = "only of the first workspace"
KV = tuple(f"KV_{name}" for name in streams.BUCKETS)
COMMON = (*(spec.name for spec in streams.common_streams()), *KV)


class Victim(NamedTuple):
    """What the first workspace has going on."""

    client: Client
    function: Any
    app: str
    prefix: str
    call: str


@pytest.fixture(scope="module")
def victim(two: Workspaces) -> Iterator[Victim]:
    """An app of the first workspace that runs, with a result, output and code of its own."""
    app = App("victim")

    def reveal(text: str) -> str:
        print("printed", text)
        return f"{text}: {SECRET}"

    reveal.__module__ = "__main__"
    function = app.function(serialized=True)(reveal)
    with two.client(two.victim) as client, app.run(client=client):
        assert function.remote("call") == f"call: {SECRET}"
        call = function.spawn("kept")
        assert call.get(timeout=60) == f"kept: {SECRET}"
        handle = function._present_handle()
        yield Victim(client, function, handle.app_id, handle.prefix, call.object_id)
        assert function.remote("still") == f"still: {SECRET}"
        assert call.get(timeout=60) == f"kept: {SECRET}"


@pytest.fixture
def intruder(two: Workspaces) -> Iterator[Client]:
    with two.client(two.intruder) as client:
        yield client


def names(ws: str) -> list[str]:
    return [spec.name for spec in streams.workspace_streams(ws)]


def of_victim(victim: Victim) -> dict[str, str]:
    return every_subject(VICTIM, victim.prefix, victim.app, victim.call)


def of_intruder() -> dict[str, str]:
    prefix = subjects.inputs_prefix(INTRUDER, "cpu", 0, ids.new(ids.POOL))
    return every_subject(INTRUDER, prefix, ids.new(ids.APP), ids.new(ids.CALL))


def test_every_subject_there_is_stands_in_the_table() -> None:
    made = {
        name
        for name, function in inspect.getmembers(subjects, inspect.isfunction)
        if function.__module__ == subjects.__name__ and not name.startswith("_")
    }
    assert made == of_intruder().keys() | NO_SUBJECT, "say in the table who may use a new subject"


async def test_no_subject_of_the_other_workspace_can_be_used(two: Workspaces, victim: Victim) -> None:
    async with two.raw(two.intruder) as raw:
        tried = list(of_victim(victim).values())
        literal = [subject for subject in tried if "*" not in subject and ">" not in subject]
        assert await raw.may_publish(*literal) == []
        assert await raw.may_subscribe(*tried) == []


async def test_of_the_own_workspace_only_what_the_sdk_needs_can_be_used(two: Workspaces) -> None:
    async with two.raw(two.intruder) as raw:
        own = of_intruder()
        literal = {
            name: subject for name, subject in own.items() if "*" not in subject and ">" not in subject
        }
        assert set(await raw.may_publish(*literal.values())) == {literal[name] for name in MAY_PUBLISH}
        assert set(await raw.may_subscribe(*own.values())) == {own[name] for name in MAY_SUBSCRIBE}


async def test_nothing_wide_can_be_heard_and_nothing_of_the_server_be_asked(two: Workspaces) -> None:
    async with two.raw(two.intruder) as raw:
        inbox = subjects.inbox(two.victim[0])
        assert await raw.may_subscribe(*WIDE, f"{inbox}.>", f"{inbox}.*.r.*") == []
        assert await raw.may_publish(*OF_NO_STREAM) == []


async def test_no_stream_of_others_can_be_used_in_any_way(two: Workspaces) -> None:
    async with two.raw(two.intruder) as raw:
        for stream in (*names(VICTIM), *COMMON):
            assert await raw.may_publish(*operations(stream)) == []


async def test_the_own_streams_can_be_read_and_two_of_them_be_purged(two: Workspaces) -> None:
    async with two.raw(two.intruder) as raw:
        purged = {subjects.replies_stream(INTRUDER), subjects.blobs_stream(INTRUDER)}
        for stream in names(INTRUDER):
            if stream == subjects.feeds_stream(INTRUDER):  # is between gateways and clients of the web
                assert await raw.may_publish(*operations(stream)) == []
                continue
            verbs = ["STREAM.MSG.GET", "DIRECT.GET", *(["STREAM.PURGE"] if stream in purged else [])]
            assert set(await raw.may_publish(*operations(stream))) == {
                f"$JS.API.{verb}.{stream}" for verb in verbs
            }


async def test_answers_of_the_server_reach_nobody_else(two: Workspaces, victim: Victim) -> None:
    """The server answers on whatever subject a request names: the answer must not get there."""
    watched: list[tuple[str, bytes]] = []
    async with two.platform() as platform, two.raw(two.intruder) as raw:
        for subject in ("tm.>", "$KV.pools.>", "$KV.leases.>", "$O.>"):
            await platform.subscribe(subject, lambda message: watched.append((message.subject, message.data)))
        call = ids.new(ids.CALL)
        record = subjects.call_record(INTRUDER, call)
        acknowledged = await raw.client.request(record, b"forged", timeout=60)
        assert json.loads(acknowledged.data)["stream"] == subjects.results_stream(INTRUDER)
        get = f"$JS.API.DIRECT.GET.{subjects.results_stream(INTRUDER)}"
        targets = [
            *of_victim(victim).values(),
            "$KV.pools.po-1",
            "$KV.leases.scheduler",
            *of_intruder().values(),
        ]
        targets = [target for target in targets if "*" not in target and ">" not in target]
        for number, target in enumerate(targets):
            await raw.client.publish(get, json.dumps({"last_by_subj": record}).encode(), reply=target)
            other = subjects.call_record(INTRUDER, ids.new(ids.CALL))
            await raw.client.publish(other, b"%d" % number, reply=target)
            await raw.client.publish(subjects.registry(INTRUDER, "list_apps"), b"\x80", reply=target)
        await raw.settled()
        answer = await raw.client.request(get, json.dumps({"last_by_subj": record}).encode(), timeout=60)
        assert answer.data == b"forged"  # the server has answered everything before
        await platform.flush()
        own = f"tm.results.{INTRUDER}."
        landed = {subject for subject, data in watched if b"forged" in data or b'"stream"' in data}
        assert landed == {record}  # where it was stored, and nowhere else
        assert all(subject.startswith(own) for subject, data in watched if data.isdigit())


async def test_requests_find_nothing_of_the_other_workspace(
    victim: Victim, intruder: Client, two: Workspaces
) -> None:
    asked: list[tuple[str, str, object, type]] = [
        ("registry", "get_app", GetApp(app_id=victim.app), AppDetails),
        ("registry", "heartbeat", AppHeartbeat(victim.app), Done),
        ("registry", "stop_app", StopApp(victim.app), Done),
        ("registry", "publish_functions", PublishFunctions(victim.app, ()), FunctionsPublished),
        ("registry", "revoke_token", tokens.RevokeToken(two.victim[0]), Done),
        ("scheduler", "cancel", CancelCall(victim.call, victim.prefix, 1, kept=True), Done),
        ("scheduler", "find_queued", FindQueued(victim.call, victim.prefix), Queued),
    ]
    for service, verb, message, answer in asked:
        with pytest.raises(exception.NotFoundError):
            await ask(intruder, service, verb, message, answer)
    everything = ListApps(include_stopped=True)
    found = (await ask(intruder, "registry", "list_apps", everything, AppList)).apps
    assert victim.app not in [app.app_id for app in found]
    held = (await ask(intruder, "registry", "list_tokens", tokens.ListTokens(), tokens.TokenList)).tokens
    assert [token.token_id for token in held] == [two.intruder[0]]


async def ask(client: Client, service: str, verb: str, message: object, answer: type) -> Any:
    call: Any = Call(client.request)
    return await call.aio(service, verb, message, answer)


CONTAINER = """
async def attack(literal, wide, streams, prefix, call):
    from tidemill import _runtime
    from tidemill._bus.protocol import BusError, RequestFailed
    from tidemill._wire import coding
    bus, found = _runtime.container.connect(), []

    async def refused(what, doing):
        try:
            await doing
            found.append(what)
        except RequestFailed as error:
            if error.code != "permission_denied":
                found.append(f"{what}: {error.code}")

    for subject in literal:
        await refused(f"store {subject}", bus.store(subject, b"x", msg_id="x"))
        await refused(f"request {subject}", bus.request(subject, b"\\x80", timeout=30))
    for subject in (*literal, *wide):
        await refused(f"subscribe {subject}", bus.subscribe(subject, print))
        for stream in streams:
            await refused(f"last {stream} {subject}", bus.last(stream, subject))
            await refused(f"purge {stream} {subject}", bus.purge(stream, subject))
    return found
"""


def test_a_container_gets_no_further_than_a_token(victim: Victim, intruder: Client) -> None:
    app = App("intruder")
    scope: dict[str, Any] = {}
    exec(CONTAINER, scope)
    attack = scope["attack"]
    attack.__module__ = "__main__"
    function = app.function(serialized=True)(attack)
    tried = of_victim(victim)
    literal = [subject for subject in tried.values() if "*" not in subject and ">" not in subject]
    wide = [subject for subject in tried.values() if subject not in literal] + list(WIDE)
    with app.run(client=intruder):
        stores = [*names(VICTIM), "INPUTS_cpu_0", "TIMERS", "KV_pools"]
        assert function.remote(literal, wide, stores, victim.prefix, victim.call) == []
