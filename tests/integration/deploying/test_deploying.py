"""Apps that stay: deployed, found again, tagged, stopped."""

import pickle
import time
from collections.abc import Callable

import pytest

import tidemill
from tidemill import App, Client, Function, _output
from tidemill.exception import InvalidError, NotFoundError

Deploy = Callable[..., App]


def test_a_deployed_function_is_called_by_name(client: Client, name: str, deploy: Deploy) -> None:
    app = deploy(double=lambda x: x * 2)
    assert app.app_id is not None
    assert app.app_id.startswith("ap-")
    assert Function.from_name(name, "double", client=client).remote(4) == 8
    assert app.registered_functions["double"].remote(5) == 10


async def test_an_app_is_deployed_in_async_code_too(client: Client, name: str) -> None:
    app = App()
    app.function(serialized=True, name="one")(lambda: 1)
    assert await app.deploy.aio(name=name, client=client) is app
    found = await App.lookup.aio(name, client=client)
    assert found.app_id == app.app_id
    assert await Function.from_name(name, "one", client=client).remote.aio() == 1


def test_a_change_makes_a_version_and_no_change_makes_none(
    name: str, deploy: Deploy, capsys: pytest.CaptureFixture[str]
) -> None:
    with _output.show():
        first = deploy(one=1, two=2)
        same = deploy(one=1, two=2)
        changed = deploy(one=1, two=3)
        fewer = deploy(one=1)
    assert first.app_id == same.app_id == changed.app_id
    assert [app.info().version for app in (first, fewer)] == [3, 3]
    shown = capsys.readouterr().err
    assert "✓ Created objects.\n├── Created function one.\n└── Created function two.\n" in shown
    assert [line.partition("(")[2] for line in shown.splitlines() if "(version" in line] == [
        "version 1)",
        "version 1)",
        "version 2)",
        "version 3)",
    ]
    assert shown.count("Deployment skipped: no changes detected") == 1
    assert shown.count("✓ Removed function two.") == 1


def test_a_function_that_is_not_declared_any_more_is_gone(client: Client, name: str, deploy: Deploy) -> None:
    deploy(stays=1, goes=2)
    assert Function.from_name(name, "goes", client=client).remote() == 2
    deploy(stays=1)
    with pytest.raises(NotFoundError, match="goes") as caught:
        Function.from_name(name, "goes", client=client).hydrate()
    assert name in str(caught.value)
    assert Function.from_name(name, "goes", version=1, client=client).remote() == 2


def test_a_version_can_be_pinned(client: Client, name: str, deploy: Deploy) -> None:
    for number in (1, 2, 3):
        deploy(number=number)
    pinned = [Function.from_name(name, "number", version=v, client=client) for v in (1, 2, 3)]
    assert [function.remote() for function in pinned] == [1, 2, 3]
    with pytest.raises(NotFoundError):
        Function.from_name(name, "number", version=4, client=client).remote()


def test_what_is_known_of_a_function(client: Client, name: str, deploy: Deploy) -> None:
    app = deploy(one=1)
    found = Function.from_name(name, "one", client=client).hydrate()
    known = found.info()
    assert (known.name, known.app_id, known.is_generator) == ("one", app.app_id, False)
    assert found.object_id == known.function_id
    again = Function.from_id(known.function_id, client=client)
    assert again.remote() == 1
    assert again.name == "one"


def test_an_app_is_looked_up_and_made_if_it_may_be(client: Client, name: str) -> None:
    with pytest.raises(NotFoundError, match=name):
        App.lookup(name, client=client)
    made = App.lookup(name, client=client, create_if_missing=True)
    assert made.app_id == App.lookup(name, client=client).app_id
    known = made.info()
    assert (known.name, known.state, known.functions, known.version) == (name, "deployed", (), 0)
    assert isinstance(made.get_dashboard_url(), str)


def test_tags_are_replaced_as_a_whole(client: Client, name: str, deploy: Deploy) -> None:
    app = deploy({"team": "tide", "cost": "low"}, one=1)
    assert app.get_tags() == {"team": "tide", "cost": "low"}
    found = App.lookup(name, client=client)
    found.set_tags({"team": "moon"})
    assert app.get_tags() == found.get_tags() == app.info().tags == {"team": "moon"}
    deploy(one=2)
    assert app.get_tags() == {"team": "moon"}
    deploy({"team": "sun"}, one=2)
    assert app.get_tags() == {"team": "sun"}
    with pytest.raises(InvalidError):
        app.set_tags({"not a tag": "x"})


def test_tags_of_a_running_app_are_changed_at_once(client: Client) -> None:
    app = App("tagged", tags={"team": "tide"})
    with app.run(client=client):
        app.set_tags({"team": "moon"})
        assert app.get_tags() == app.info().tags == {"team": "moon"}
    assert app.get_tags() == {"team": "moon"}


def test_a_stopped_app_is_gone_and_its_name_is_free(client: Client, name: str, deploy: Deploy) -> None:
    app = deploy(one=1)
    declared = app.registered_functions["one"]
    first = app.app_id
    app.stop()
    assert app.app_id == first
    with pytest.raises(NotFoundError):
        App.lookup(name, client=client)
    with pytest.raises(tidemill.exception.ExecutionError):
        declared.remote()
    with pytest.raises(InvalidError, match="neither runs nor is deployed"):
        app.stop()
    assert deploy(one=1).app_id != first


def test_an_app_can_run_and_stay_at_the_same_time(client: Client, name: str, deploy: Deploy) -> None:
    app = deploy(one=1)
    deployed = app.registered_functions["one"].object_id
    with app.run(client=client):
        assert app.registered_functions["one"].object_id != deployed
        assert app.registered_functions["one"].remote() == 1
    assert app.registered_functions["one"].object_id == deployed
    assert app.registered_functions["one"].remote() == 1
    assert app.info().state == "deployed"


def test_an_included_app_is_deployed_with_its_tags(client: Client, name: str) -> None:
    outer, inner = App(name, tags={"a": "outer"}), App("inner", tags={"a": "inner", "b": "inner"})
    inner.function(serialized=True, name="inside")(lambda: "inside")
    outer.include(inner).deploy(client=client)
    assert Function.from_name(name, "inside", client=client).remote() == "inside"
    assert outer.get_tags() == {"a": "outer", "b": "inner"}


def test_an_app_is_deployed_from_a_container(client: Client, name: str) -> None:
    def deploy_another(name: str) -> str:
        import tidemill

        app = tidemill.App(name)
        app.function(serialized=True, name="inner")(lambda: "made inside")
        return str(app.deploy().app_id)

    app = App("deployer")
    deployer = app.function(serialized=True, name="deployer")(deploy_another)
    with app.run(client=client):
        app_id = deployer.remote(name)
    assert App.lookup(name, client=client).app_id == app_id
    assert Function.from_name(name, "inner", client=client).remote() == "made inside"


def test_a_function_that_is_passed_along_can_be_called_there(
    client: Client, name: str, deploy: Deploy
) -> None:
    deploy(call=lambda function: function.remote(), one=1)
    one = Function.from_name(name, "one", client=client)
    call = Function.from_name(name, "call", client=client)
    assert call.remote(one) == 1
    assert one.hydrate() is one
    assert call.remote(one) == 1
    assert pickle.loads(pickle.dumps(one)).object_id == one.object_id


def test_a_call_under_way_is_finished_by_its_version(client: Client, name: str, deploy: Deploy) -> None:
    def slow() -> str:
        time.sleep(1.0)
        return "first"

    deploy(work=slow)
    call = Function.from_name(name, "work", client=client).spawn()
    deploy(work="second")
    assert call.get(timeout=60) == "first"
    assert Function.from_name(name, "work", client=client).remote() == "second"


def test_an_app_that_is_deployed_while_it_runs_stays(client: Client, name: str) -> None:
    app = App(name)
    function = app.function(serialized=True, name="one")(lambda: 1)
    with app.run(client=client):
        running = function.object_id
        app.deploy(client=client)
        deployed = function.object_id
        assert function.remote() == 1
    assert function.object_id == deployed != running
    assert function.remote() == 1
    assert app.info().state == "deployed"


def test_a_container_reads_the_output_of_the_run_that_it_belongs_to(client: Client, name: str) -> None:
    app = App(name)

    def mine() -> list[str]:
        import tidemill

        return [entry.message for entry in tidemill.App(name).logs.tail()]

    function = app.function(serialized=True)(mine)
    with app.run(client=client):
        assert function.remote() == []
