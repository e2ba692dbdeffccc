"""`tidemill token` against a registry that the test plays, on a broker that knows two tokens."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from running_stacks import clean_environment, run_cli

from tidemill import _profiles
from tidemill._bus.protocol import Message, RequestFailed
from tidemill._wire import coding, subjects
from tidemill._wire.control import Done
from tidemill._wire.tokens import (
    MEMBER,
    CreateToken,
    ListTokens,
    RevokeToken,
    TokenCreated,
    TokenInfo,
    TokenList,
)
from tidemill_common.bus import nats
from tidemill_local.broker import WORKSPACE, Broker, BrokerSettings

OLD, NEW = (f"ak-{WORKSPACE}-{digit * 26}" for digit in "12")
SECRETS = {"service": "service-secret", OLD: "old-secret", NEW: "new-secret"}


class PlayedTokens:
    """A registry that knows tokens only. The one that it makes is `NEW`."""

    def __init__(self) -> None:
        self.tokens = {OLD: TokenInfo(OLD, "laptop", MEMBER, WORKSPACE, 1_700_000_000.0)}
        self.revoked: list[str] = []
        self.asked: list[CreateToken] = []

    def served(self) -> dict[str, Any]:
        table = {"create_token": self.create, "list_tokens": self.list, "revoke_token": self.revoke}
        return {subjects.registry(WORKSPACE, verb): answer for verb, answer in table.items()}

    async def create(self, request: Message) -> bytes:
        self.asked.append(coding.decode(CreateToken, request.data))
        info = TokenInfo(NEW, self.asked[-1].name, MEMBER, WORKSPACE, 1_800_000_000.0)
        self.tokens[NEW] = info
        return coding.encode(TokenCreated(info, SECRETS[NEW]))

    async def list(self, request: Message) -> bytes:
        with_revoked = coding.decode(ListTokens, request.data).include_revoked
        shown = [each for each in self.tokens.values() if with_revoked or each.token_id not in self.revoked]
        return coding.encode(TokenList(tuple(reversed(shown))))

    async def revoke(self, request: Message) -> bytes:
        token_id = coding.decode(RevokeToken, request.data).token_id
        if token_id not in self.tokens:
            raise RequestFailed("not_found", f"there is no token {token_id!r}")
        self.revoked.append(token_id)
        return coding.encode(Done())


class Desk:
    """A user's machine: the command line, with a configuration file of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.file = folder / "configuration.toml"
        self.environment = clean_environment(folder) | {"TIDEMILL_CONFIG_PATH": str(self.file)}
        self.registry = PlayedTokens()

    async def cli(self, *arguments: str, status: int = 0, **options: Any) -> "CompletedProcess[str]":
        done = await asyncio.to_thread(run_cli, *arguments, environment=self.environment, **options)
        assert done.returncode == status, done.stderr
        return done

    def settings(self, profile: str) -> dict[str, Any]:
        return dict(_profiles._parse(self.file).profiles[profile].settings)


@pytest.fixture
async def desk(folder: Path, tmp_path: Path) -> AsyncIterator[Desk]:
    broker = Broker(BrokerSettings(folder / "nats", passwords=SECRETS))
    await broker.start()
    desk = Desk(tmp_path, broker.url)
    bus = await nats.connect(broker.url, "service", SECRETS["service"], timeout=20)
    await bus.serve("registry", "1.0.0", desk.registry.served())
    desk.file.write_text(
        f'[mill]\nserver_url = "{broker.url}"\ntoken_id = "{OLD}"\ntoken_secret = "{SECRETS[OLD]}"\n'
    )
    yield desk
    await bus.close()
    broker.kill()


async def test_the_token_in_use_is_shown_without_its_secret(desk: Desk) -> None:
    shown = await desk.cli("token", "info", "--json")
    known = json.loads(shown.stdout)
    assert (known["token_id"], known["name"], known["profile"]) == (OLD, "laptop", "mill")
    assert known["server"] == desk.url
    assert SECRETS[OLD] not in shown.stdout + (await desk.cli("token", "list")).stdout


async def test_a_further_token_is_shown_once_and_kept_nowhere(desk: Desk) -> None:
    before = desk.file.read_text()
    made = json.loads((await desk.cli("token", "new", "--name", "ci", "--days", "0.5", "--json")).stdout)
    assert made == {"token_id": NEW, "token_secret": SECRETS[NEW]}
    assert desk.registry.asked == [CreateToken("ci", 43_200.0)]
    assert desk.file.read_text() == before
    listed = json.loads((await desk.cli("token", "list", "--json")).stdout)
    assert [(each["token_id"], each["name"]) for each in listed] == [(NEW, "ci"), (OLD, "laptop")]


async def test_a_token_is_kept_in_a_profile_once_it_works(desk: Desk) -> None:
    given = ["--token-id", NEW, "--token-secret", "-", "--server-url", desk.url, "--profile", "other"]
    refused = await desk.cli("token", "set", *given, status=1, input="wrong\n")
    assert "does not know these credentials" in refused.stderr
    await desk.cli("token", "set", *given, "--no-activate", input=f"{SECRETS[NEW]}\n")
    assert desk.settings("other") == {
        "server_url": desk.url,
        "token_id": NEW,
        "token_secret": SECRETS[NEW],
    }
    await desk.cli("profile", "activate", "mill")
    assert (await desk.cli("profile", "current")).stdout == "mill\n"
    await desk.cli("token", "set", *given, input=f"{SECRETS[NEW]}\n")
    assert (await desk.cli("profile", "current")).stdout == "other\n"


async def test_a_token_is_replaced_in_its_profile_and_then_revoked(desk: Desk) -> None:
    await desk.cli("token", "rotate", "-y")
    assert desk.settings("mill")["token_id"] == NEW
    assert desk.settings("mill")["server_url"] == desk.url
    assert desk.registry.asked == [CreateToken("laptop")]
    assert desk.registry.revoked == [OLD]
    assert json.loads((await desk.cli("token", "info", "--json")).stdout)["token_id"] == NEW


async def test_a_token_that_is_in_no_profile_is_not_replaced(desk: Desk) -> None:
    desk.environment |= {
        "TIDEMILL_SERVER_URL": desk.url,
        "TIDEMILL_TOKEN_ID": NEW,
        "TIDEMILL_TOKEN_SECRET": SECRETS[NEW],
    }
    refused = await desk.cli("token", "rotate", "-y", status=1)
    assert "not that of the profile mill" in refused.stderr
    assert "tidemill token new" in refused.stderr
    assert not desk.registry.asked


async def test_a_token_is_revoked_once_it_is_asked_for(desk: Desk) -> None:
    await desk.cli("token", "revoke", OLD, status=1, input="n\n")
    assert not desk.registry.revoked
    await desk.cli("token", "revoke", OLD, input="y\n")
    assert desk.registry.revoked == [OLD]
    assert "there is no token" in (await desk.cli("token", "revoke", "-y", "ak-x", status=1)).stderr
