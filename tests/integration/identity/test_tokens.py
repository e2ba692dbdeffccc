"""Tokens from their making to their end, and what each kind of identity may do."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from running_stacks import wait_until
from two_workspaces import INTRUDER, VICTIM, Workspaces, credentials, new_token, operations, registry_command

from tidemill import App, Client, exception
from tidemill._sync import Call
from tidemill._wire import coding, ids, subjects
from tidemill._wire.apps import AppList, ListApps
from tidemill._wire.control import Done
from tidemill._wire.secrets import PutSecret, SecretInfo
from tidemill._wire.tokens import CreateToken, ListTokens, RevokeToken, TokenCreated, TokenInfo, TokenList
from tidemill_common import identities, streams
from tidemill_common.requests import REQUEST_INFO

ENDED_WITHIN = 60.0  # seconds from a revocation to the end of the connections: more than it takes


@pytest.fixture
def owner(two: Workspaces) -> Iterator[Client]:
    with two.client(two.victim) as client:
        yield client


def ask(client: Client, verb: str, message: object, answer: type, service: str = "registry") -> Any:
    call: Any = Call(client.request)
    return call(service, verb, message, answer)


def create(owner: Client, **fields: Any) -> tuple[str, str]:
    created: TokenCreated = ask(owner, "create_token", CreateToken(**fields), TokenCreated)
    return created.token.token_id, created.secret


def tokens(owner: Client) -> dict[str, TokenInfo]:
    listed = ask(owner, "list_tokens", ListTokens(include_revoked=True), TokenList).tokens
    return {token.token_id: token for token in listed}


def logs(two: Workspaces) -> str:
    return "\n".join(path.read_text() for path in Path(two.stack.home, "logs").glob("*.log"))


def test_a_member_makes_a_token_that_others_of_the_workspace_can_use(two: Workspaces, owner: Client) -> None:
    begun = time.time()
    token = create(owner, name="for the build", lifetime=3_600.0)
    assert ids.workspace_of_token(token[0]) == VICTIM
    with two.client(token) as client:
        assert ask(client, "list_apps", ListApps(), AppList)
    shown = tokens(owner)[token[0]]
    assert (shown.name, shown.kind, shown.workspace, shown.revoked) == (
        "for the build",
        "member",
        VICTIM,
        None,
    )
    assert shown.expires == pytest.approx(shown.created + 3_600, abs=1)
    wait_until(lambda: (tokens(owner)[token[0]].last_used or 0) > begun - 60, what="for its use to be noted")


@pytest.mark.long
def test_a_revoked_token_ends_its_connections_and_makes_no_others(two: Workspaces, owner: Client) -> None:
    token = create(owner)
    app = App("waits")

    def wait() -> None:
        time.sleep(100)

    wait.__module__ = "__main__"
    function = app.function(serialized=True)(wait)
    with app.run(client=two.client(token)):
        revoking = threading.Timer(0.5, ask, (owner, "revoke_token", RevokeToken(token[0]), Done))
        revoking.start()
        with pytest.raises(exception.AuthError) as caught:
            function.remote()
        revoking.join()
    assert "revoked" in caught.value.hint
    with pytest.raises(exception.AuthError), two.client(token):
        pass
    assert tokens(owner)[token[0]].revoked is not None
    ask(owner, "revoke_token", RevokeToken(token[0]), Done)  # once more changes nothing
    shown = ask(owner, "list_tokens", ListTokens(), TokenList).tokens
    assert token[0] not in [each.token_id for each in shown]


async def test_a_token_revoked_on_the_command_line_loses_its_connections_too(two: Workspaces) -> None:
    token = new_token(two.stack, INTRUDER)

    def revoke() -> None:
        registry_command(two.stack, "token", "revoke", token[0], INTRUDER)

    await two.until_ended(token, revoke, ENDED_WITHIN)


def test_a_connection_ends_when_its_token_expires(two: Workspaces, owner: Client) -> None:
    token = create(owner, lifetime=6.0)  # enough to connect on a busy machine
    asyncio.run(two.until_ended(token, lambda: None, ENDED_WITHIN))
    with pytest.raises(exception.AuthError), two.client(token):
        pass
    assert "the token has expired" in logs(two)


def test_a_wrong_secret_is_refused_with_the_reason_in_the_log_and_no_secret(two: Workspaces) -> None:
    guess = "as-" + "guess" * 8
    for token, reason in (
        ((two.victim[0], guess), "the secret is wrong"),
        ((ids.new_token(VICTIM), guess), "there is no such token"),
        ((guess, two.victim[1]), "there is no such token"),
    ):
        with pytest.raises(exception.AuthError) as caught, two.client(token):
            pass
        assert "TIDEMILL_TOKEN_SECRET" in caught.value.hint
        assert reason in logs(two)
    assert guess not in logs(two)
    kept = credentials(two.stack)
    secrets = (*kept["passwords"].values(), kept["issuer_seed"], kept["member_secret"], kept["worker_secret"])
    assert [secret for secret in secrets if secret in logs(two)] == []


# --- workers and services


@pytest.mark.parametrize(("kind", "gpu"), [("worker", False), ("gpu-worker", True)])
async def test_only_a_gpu_worker_takes_inputs_for_gpus(two: Workspaces, kind: str, gpu: bool) -> None:
    token = new_token(two.stack, "--kind", kind)
    async with two.raw(token) as raw:
        for queue, allowed in (("cpu", True), ("gpu", gpu)):
            stream = f"INPUTS_{queue}_0"
            needed = {
                f"$JS.API.CONSUMER.CREATE.{stream}.pool.tm.inputs.{queue}.0.x",
                f"$JS.API.CONSUMER.MSG.NEXT.{stream}.consumer",
                f"$JS.API.CONSUMER.INFO.{stream}.consumer",
                f"$JS.ACK.{stream}.consumer.1.1.1.1.0",
                f"$JS.ACK._.hash.{stream}.consumer.1.1.1.1.0",
            }
            found = set(await raw.may_publish(*operations(stream), *needed))
            assert found == (needed if allowed else set())
            assert await raw.may_subscribe(f"tm.inputs.{queue}.>") == []


async def test_nobody_comes_in_without_a_token(two: Workspaces) -> None:
    server = urlsplit(two.url)
    for given in ({}, {"user": two.victim[0]}, {"user": "", "pass": ""}, {"auth_token": two.victim[1]}):
        reader, writer = await asyncio.open_connection(server.hostname, server.port)
        assert json.loads((await reader.readline()).removeprefix(b"INFO "))["auth_required"]
        writer.write(f"CONNECT {json.dumps({'verbose': False, **given})}\r\nPING\r\n".encode())
        assert b"Authorization Violation" in await reader.readline()
        writer.close()
        await writer.wait_closed()


async def test_what_a_member_makes_is_noted_as_its_own_whatever_it_writes_itself(two: Workspaces) -> None:
    forged = {REQUEST_INFO: json.dumps({"user": two.victim[0], "acc": "MEMBERS"})}
    request = coding.encode(PutSecret(ids.new("secret"), {"KEY": "value"}))
    async with two.raw(two.intruder) as raw:
        subject = subjects.registry(INTRUDER, "put_secret")
        answer = await raw.client.request(subject, request, timeout=60, headers=forged)
        assert coding.decode(SecretInfo, answer.data).created_by == two.intruder[0]
        assert await raw.may_publish(subjects.signed(INTRUDER, "put_secret")) == []


async def test_a_worker_cannot_change_what_rules_others(two: Workspaces) -> None:
    token = new_token(two.stack, "--kind", "worker")
    pools = ("$KV.pools.po-1", "$KV.leases.scheduler", "$KV.routes.x", "$JS.API.STREAM.DELETE.TIMERS")
    tried = (
        *pools,
        "tm.workers.wo-1.place",
        subjects.cancel(VICTIM, "fc-1"),
        "tm.internal.registry.verify_token",
        subjects.signed(VICTIM, "deploy_app"),
    )
    async with two.raw(token) as raw:
        assert await raw.may_publish(*tried) == []
        for spec in streams.common_streams():
            if not spec.name.startswith("INPUTS_cpu"):
                assert await raw.may_publish(*operations(spec.name)) == []


async def test_the_gateway_has_a_user_of_its_own_that_cannot_rule_either(two: Workspaces) -> None:
    password = credentials(two.stack)["passwords"]["gateway"]
    tried = (
        "$KV.pools.po-1",
        "$KV.leases.scheduler",
        "tm.workers.wo-1.place",
        "$JS.API.STREAM.DELETE.TIMERS",
    )
    async with two.raw(("gateway", password)) as raw:
        assert await raw.may_publish(*tried, "$JS.API.DIRECT.GET.INPUTS_cpu_0", "tm.timers.local.x.0.1") == []
        assert await raw.may_subscribe("tm.inputs.>", "tm.workers.>", "_INBOX.>", "$SYS.REQ.USER.AUTH") == []


def test_every_service_of_a_stack_has_a_password_of_its_own(two: Workspaces) -> None:
    passwords = credentials(two.stack)["passwords"]
    assert passwords.keys() == {*identities.SERVICE_USERS, identities.SYSTEM_USER}
    assert len(set(passwords.values())) == len(passwords)
