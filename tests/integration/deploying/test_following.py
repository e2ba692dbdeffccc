"""Functions found by name go along with the deployments of their app."""

import asyncio
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from running_stacks import RunningStack, wait_until

from tidemill import App, Client, Function, _following, _loop
from tidemill._wire import subjects
from tidemill._wire.apps import AppList, ListApps
from tidemill.exception import AuthError, NotFoundError

Deploy = Callable[..., App]


@pytest.fixture
def other(stack: RunningStack) -> Iterator[Client]:
    """Another client, as of a program that deploys."""
    with stack.client() as client:
        yield client


def test_an_unpinned_function_goes_along_and_a_pinned_one_stays(
    client: Client, other: Client, name: str, deploy: Deploy
) -> None:
    deploy(number=1, using=other)
    newest = Function.from_name(name, "number", client=client)
    pinned = Function.from_name(name, "number", version=1, client=client)
    assert [newest.remote(), pinned.remote()] == [1, 1]
    deploy(number=2, using=other)
    wait_until(lambda: newest.remote() == 2)
    assert pinned.remote() == 1


def test_a_function_that_travelled_goes_along_like_one_found_by_name(
    client: Client, other: Client, name: str, deploy: Deploy
) -> None:
    declared = deploy(number=1, using=other)._functions["number"]
    found = Function.from_name(name, "number", client=client).hydrate()
    pinned = Function.from_name(name, "number", version=1, client=client).hydrate()
    travelled = [pickle.loads(pickle.dumps(function)) for function in (declared, found, pinned)]
    for function in travelled:
        function._client = client
    assert [function.remote() for function in travelled] == [1, 1, 1]
    deploy(number=2, using=other)
    wait_until(lambda: [function.remote() for function in travelled] == [2, 2, 1])


def test_the_program_that_deploys_calls_what_it_deployed(client: Client, name: str, deploy: Deploy) -> None:
    deploy(number=0)
    function = Function.from_name(name, "number", client=client)
    for number in range(5):
        deploy(number=number)
        assert function.remote() == number
        assert Function.from_name(name, "number", client=client).remote() == number


def test_one_subscription_serves_all_functions_of_an_app(client: Client, name: str, deploy: Deploy) -> None:
    deploy(one=1, two=2)
    found = [Function.from_name(name, key, client=client) for key in ("one", "two", "one")]
    assert [function.remote() for function in found] == [1, 2, 1]
    assert client.caller is not None
    following = _following._sessions[client.caller]
    assert len(following._apps) == 1
    assert len(following._found) == 2


def test_calls_that_overlap_a_deployment_all_succeed(
    client: Client, other: Client, name: str, deploy: Deploy
) -> None:
    deploy(number=1, using=other)
    function = Function.from_name(name, "number", client=client)
    function.remote()
    results: list[int] = []
    ended = threading.Event()

    def call() -> None:
        while not ended.is_set():
            results.append(function.remote())

    caller = threading.Thread(target=call)
    caller.start()
    for number in (2, 3):
        wait_until(lambda: len(results) > 5)
        deploy(number=number, using=other)
    wait_until(lambda: results[-1] == 3)
    ended.set()
    caller.join()
    assert results == sorted(results)
    assert set(results) >= {1, 3}


def test_functions_of_a_stopped_app_are_not_found_and_those_of_its_successor_are(
    client: Client, other: Client, name: str, deploy: Deploy
) -> None:
    app = deploy(number=1, using=other)
    function = Function.from_name(name, "number", client=client)
    assert function.remote() == 1
    app.stop()
    wait_until(lambda: not function.is_hydrated)
    with pytest.raises(NotFoundError, match=name):
        function.remote()
    with pytest.raises(NotFoundError, match=name):
        function.spawn()
    with pytest.raises(NotFoundError, match=name):
        list(function.map([1]))
    deploy(number=2, using=other)
    assert function.remote() == 2
    deploy(number=3, using=other)
    wait_until(lambda: function.remote() == 3)


def test_a_function_that_vanishes_is_not_found(
    client: Client, other: Client, name: str, deploy: Deploy
) -> None:
    deploy(stays=1, goes=2, using=other)
    stays, goes = (Function.from_name(name, key, client=client) for key in ("stays", "goes"))
    assert [stays.remote(), goes.remote()] == [1, 2]
    deploy(stays=3, using=other)
    wait_until(lambda: not goes.is_hydrated)
    with pytest.raises(NotFoundError, match="goes"):
        goes.remote()
    wait_until(lambda: stays.remote() == 3)


def test_what_was_missed_while_the_connection_was_away_is_found_out(
    client: Client, other: Client, name: str, deploy: Deploy
) -> None:
    deploy(number=1, using=other)
    function = Function.from_name(name, "number", client=client)
    assert function.remote() == 1
    assert client.caller is not None
    following = _following._sessions[client.caller]
    (app,) = following._apps.values()

    async def deafen() -> None:
        assert app.subscription is not None
        await app.subscription.close()

    async def reconnect() -> None:
        following._reconnected()

    wait_until(lambda: app.subscription is not None)
    _loop.wait(deafen())
    deploy(number=2, using=other)
    _loop.wait(reconnect())
    wait_until(lambda: function.remote() == 2)


def test_nothing_is_followed_once_the_client_is_closed(
    stack: RunningStack, name: str, deploy: Deploy
) -> None:
    deploy(number=1)
    with stack.client() as client:
        function = Function.from_name(name, "number", client=client)
        assert function.remote() == 1
        caller = client.caller
    assert not function.is_hydrated
    assert caller not in _following._sessions


def test_a_session_that_the_server_ends_leaves_nothing_to_the_next(
    client: Client, other: Client, name: str, deploy: Deploy
) -> None:
    deploy(number=1, using=other)
    function = Function.from_name(name, "number", client=client)
    assert function.remote() == 1
    caller: Any = client.caller

    async def shut_out() -> None:
        caller.bus._shut_out()
        await caller.bus._connection.close()

    _loop.wait(shut_out())
    wait_until(lambda: not function.is_hydrated)
    assert caller not in _following._sessions
    assert function.remote() == 1
    deploy(number=2, using=other)
    wait_until(lambda: function.remote() == 2)


def test_who_waits_for_a_connection_hears_that_there_will_be_none(client: Client) -> None:
    client.hello()
    caller: Any = client.caller

    async def ask() -> None:
        caller.bus._down()
        asking = asyncio.create_task(client.request("registry", "list_apps", ListApps(), AppList))
        await asyncio.sleep(0)
        caller.bus._shut_out()
        await caller.bus._connection.close()
        async with asyncio.timeout(60):
            await asking

    with pytest.raises(AuthError):
        _loop.wait(ask())


def test_a_container_goes_along_with_deployments_too(
    client: Client, other: Client, name: str, deploy: Deploy
) -> None:
    def ask(name: str) -> int:
        import sys

        import tidemill

        known = sys.modules.setdefault("known_here", type(sys)("known_here")).__dict__
        known.setdefault("number", tidemill.Function.from_name(name, "number"))
        number: int = known["number"].remote()
        return number

    deploy(number=1, using=other)
    app = App("asking")
    asking = app.function(serialized=True, name="ask", max_containers=1)(ask)
    with app.run(client=client):
        assert asking.remote(name) == 1
        deploy(number=2, using=other)
        wait_until(lambda: asking.remote(name) == 2)


def test_following_output_ends_although_the_apps_end_was_missed(
    client: Client, other: Client, name: str, deploy: Deploy
) -> None:
    app_id = deploy(number=1, using=other).app_id
    assert app_id is not None
    caller: Any = client.caller
    subject = subjects.event(caller.workspace, "app", app_id)

    def heard() -> list[int]:
        subscriptions = list(caller.bus._connection._subs.items())  # the loop's thread adds to them
        return [sid for sid, each in subscriptions if each._subject == subject]

    async def deafen() -> None:
        for sid in heard():
            caller.bus._connection.unlisten(sid)

    async def reconnect() -> None:
        for callback in list(caller.bus._reconnect_callbacks.values()):
            callback()

    logs = App.lookup(name, client=client).logs
    reading = threading.Thread(target=lambda: list(logs.stream()), daemon=True)
    reading.start()
    wait_until(heard)
    _loop.wait(deafen())
    App.lookup(name, client=other).stop()
    _loop.wait(reconnect())
    reading.join(60)
    assert not reading.is_alive()
