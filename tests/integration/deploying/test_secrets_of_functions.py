"""Secrets from the SDK: stored, named by functions, found in containers and nowhere else."""

import datetime
import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tidemill import App, Client, Function, Secret, _loop
from tidemill._wire import coding
from tidemill._wire.deploying import FindFunctions, FunctionPage
from tidemill.exception import AlreadyExistsError, InvalidError, NotFoundError


@pytest.fixture
def secret(client: Client) -> Iterator[str]:
    """A name for a secret, which is deleted at the end."""
    name = f"secret-{uuid.uuid4().hex[:8]}"
    yield name
    Secret.objects.delete(name, allow_missing=True, client=client)


def variables(*names: str) -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in names}


def deploy(app: App, client: Client, *secrets: Secret, **parameters: Any) -> Function[..., Any, Any]:
    app.function(serialized=True, name="variables", secrets=secrets, **parameters)(variables)
    app.deploy(client=client)
    return app.registered_functions["variables"]


def test_a_stored_secret_is_in_the_containers_that_name_it(client: Client, name: str, secret: str) -> None:
    Secret.objects.create(secret, {"USER": "miller", "PASSWORD": "tide", "NONE": None}, client=client)
    function = deploy(App(name), client, Secret.from_name(secret, required_keys=["USER"]))
    assert function.remote("USER", "PASSWORD", "NONE") == {"USER": "miller", "PASSWORD": "tide", "NONE": None}


def test_a_missing_secret_or_key_is_told_before_anything_is_deployed(
    client: Client, name: str, secret: str
) -> None:
    app = App(name)
    with pytest.raises(NotFoundError, match=f"no secret '{secret}' in the environment 'main'"):
        deploy(app, client, Secret.from_name(secret))
    Secret.objects.create(secret, {"USER": "miller"}, client=client)
    with pytest.raises(InvalidError, match="PASSWORD"):
        deploy(App(name), client, Secret.from_name(secret, required_keys=["USER", "PASSWORD"]))
    with pytest.raises(NotFoundError):
        App.lookup(name, client=client)
    Secret.objects.delete(secret, client=client)
    with pytest.raises(NotFoundError, match=secret), app.run(client=client):
        pass


def test_values_without_a_name_change_nothing_when_they_are_the_same(client: Client, name: str) -> None:
    versions = []
    for password in ("tide", "tide", "ebb"):
        app = App(name, secrets=[Secret.from_dict({"PASSWORD": password})])
        assert deploy(app, client).remote("PASSWORD") == {"PASSWORD": password}
        versions.append(app.info().version)
    assert versions == [1, 1, 2]


def test_later_secrets_win_over_earlier_ones_and_variables_over_all(client: Client, name: str) -> None:
    app = App(name, secrets=[Secret.from_dict({"A": "app", "B": "app", "C": "app"})])
    again = Secret.from_dict({"A": "again"})
    function = deploy(
        app, client, again, Secret.from_dict({"B": "function", "C": "function"}), again, env={"C": "env"}
    )
    assert function.remote("A", "B", "C") == {"A": "again", "B": "function", "C": "env"}


def test_values_are_in_no_record_of_a_function(client: Client, name: str, secret: str) -> None:
    Secret.objects.create(secret, {"STORED": "hunter2"}, client=client)
    function = deploy(App(name), client, Secret.from_name(secret), Secret.from_dict({"GIVEN": "hunter3"}))
    assert function.remote("STORED", "GIVEN") == {"STORED": "hunter2", "GIVEN": "hunter3"}
    page = _loop.wait(
        client.request(
            "registry", "find_functions", FindFunctions(app=name, environment="main"), FunctionPage
        )
    )
    assert len(page.functions) == 1
    assert b"hunter" not in coding.encode(page)


def test_an_ephemeral_app_has_its_secrets_too(
    client: Client, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Secret.objects.create(secret, {"STORED": "1"}, client=client)
    monkeypatch.setenv("LOCAL", "2")
    app = App("ephemeral", secrets=[Secret.from_name(secret), Secret.from_local_environ(["LOCAL"])])
    function = app.function(serialized=True, name="variables")(variables)
    with app.run(client=client):
        assert function.remote("STORED", "LOCAL") == {"STORED": "1", "LOCAL": "2"}


def test_a_change_reaches_the_containers_that_start_afterwards(
    client: Client, name: str, secret: str
) -> None:
    Secret.objects.create(secret, {"A": "1", "B": "1"}, client=client)
    app = App(name)
    function = deploy(app, client, Secret.from_name(secret), single_use_containers=True)
    assert function.remote("A", "B") == {"A": "1", "B": "1"}
    Secret.from_name(secret, client=client).update({"B": "2", "C": "2"})
    assert function.remote("A", "B", "C") == {"A": "1", "B": "2", "C": "2"}
    assert app.deploy(client=client).info().version == 1


def test_secrets_are_made_listed_described_and_deleted(client: Client, secret: str) -> None:
    Secret.objects.create(secret, {"A": "1"}, client=client)
    with pytest.raises(AlreadyExistsError):
        Secret.objects.create(secret, {"A": "2"}, client=client)
    Secret.objects.create(secret, {"B": "2"}, allow_existing=True, client=client)
    found = next(each for each in Secret.objects.list(client=client) if each.name == secret)
    assert found.is_hydrated
    known = found.info()
    assert (known.name, known.environment, known.keys, known.secret_id) == (
        secret,
        "main",
        ("A",),
        found.object_id,
    )
    now = datetime.datetime.now(datetime.UTC)
    assert now - known.created_at < datetime.timedelta(minutes=5)
    before = Secret.objects.list(created_before=known.created_at, client=client)
    assert secret not in {each.name for each in before}
    assert len(Secret.objects.list(max_objects=1, client=client)) == 1
    assert Secret.from_name(secret, client=client).hydrate().object_id == found.object_id
    Secret.objects.delete(secret, client=client)
    with pytest.raises(NotFoundError):
        Secret.objects.delete(secret, client=client)
    with pytest.raises(NotFoundError, match=secret):
        found.info(refresh=True)
    with pytest.raises(NotFoundError, match=secret):
        found.update({"A": "2"})


async def test_secrets_are_awaitable_too(client: Client, secret: str) -> None:
    await Secret.objects.create.aio(secret, {"A": "1"}, client=client)
    found = await Secret.from_name(secret, client=client).hydrate.aio()
    assert (await found.info.aio()).keys == ("A",)
    await Secret.objects.delete.aio(secret, client=client)
