"""A deployment whose answer is lost, against a registry that the test plays."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from waiting import until

from tidemill import App, Client, _deploying, _output
from tidemill._bus.protocol import Message, RequestFailed
from tidemill._wire import coding, subjects
from tidemill._wire.deploying import AppDeployed, DeployApp
from tidemill.exception import ConflictError, ServiceError
from tidemill_common import streams
from tidemill_common.bus import nats
from tidemill_local.broker import MEMBER, WORKSPACE, Broker


class PlayedRegistry:
    """Takes every deployment, and loses the first answers."""

    def __init__(self, losing: int) -> None:
        self.losing = losing
        self.asked: list[DeployApp] = []

    async def deploy_app(self, request: Message) -> bytes:
        self.asked.append(coding.decode(DeployApp, request.data))
        if self.asked[-1].strategy == "recreate":
            raise RequestFailed("conflict", "not now")
        if len(self.asked) <= self.losing:
            await asyncio.Event().wait()
        return coding.encode(AppDeployed("ap-1", 1, {}, skipped=len(self.asked) > 1))


@pytest.fixture
async def registry(broker: Broker, request: pytest.FixtureRequest) -> AsyncIterator[PlayedRegistry]:
    played = PlayedRegistry(request.param)
    bus = await nats.connect(broker.url, "service", broker.settings.passwords["service"])
    await streams.apply(bus)
    verb = subjects.registry(WORKSPACE, "deploy_app")
    await bus.serve("registry", "1.0.0", {verb: played.deploy_app})
    yield played
    await bus.close()


@pytest.fixture
async def caller(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    monkeypatch.setattr(_deploying, "DEPLOY_TIMEOUT", 0.3)
    monkeypatch.setattr(_deploying, "TRIES", 20)  # an answer may also take long
    secret = broker.settings.passwords[MEMBER]
    async with Client.from_credentials(MEMBER, secret, server_url=broker.url) as client:
        yield client


@pytest.mark.parametrize("registry", [2], indirect=True)
async def test_a_deployment_whose_answers_were_lost_is_told_as_done(
    registry: PlayedRegistry, caller: Client, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    with _output.show():
        await App("lost").deploy.aio(client=caller)
    assert len(registry.asked) >= 3
    assert len({coding.encode(each) for each in registry.asked}) == 1
    shown = capsys.readouterr().err
    assert "App deployed in" in shown
    assert "skipped" not in shown


@pytest.mark.parametrize("registry", [9], indirect=True)
async def test_a_registry_that_never_answers_is_told(
    registry: PlayedRegistry, caller: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_deploying, "TRIES", 3)
    with pytest.raises(ServiceError):
        await App("lost").deploy.aio(client=caller)
    await until(lambda: len(registry.asked) == 3)


@pytest.mark.parametrize("registry", [0], indirect=True)
async def test_a_refusal_is_not_asked_again(
    registry: PlayedRegistry, caller: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_deploying, "DEPLOY_TIMEOUT", 60.0)
    with pytest.raises(ConflictError, match="not now"):
        await App("refused").deploy.aio(client=caller, strategy="recreate")
    assert len(registry.asked) == 1
