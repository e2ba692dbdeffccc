"""What `tidemill._bus.connection` relies on of nats-py's private parts. A new version must pass this."""

import inspect

import pytest
from nats import errors
from nats.aio.client import Client, Srv
from nats.aio.subscription import Subscription
from nats.aio.transport import Transport

from tidemill._bus import connection

# Methods that are overridden or called, with the arguments they are given.
METHODS = {
    "_select_next_server": ["self"],
    "_connect_to_server": ["self", "s"],
    "_process_err": ["self", "err_msg"],
    "_process_info": ["self", "info", "initial_connection"],
    "_parse_server_uri": ["connect_url"],
}
FIELDS = ["_subs", "_sid", "_pongs", "_pings_outstanding", "_server_pool", "_transport", "_current_server"]


@pytest.mark.parametrize("method", METHODS)
def test_a_private_method_is_called_as_before(method: str) -> None:
    assert list(inspect.signature(getattr(Client, method)).parameters) == METHODS[method]


async def test_the_private_fields_are_there() -> None:
    client = Client()
    assert [field for field in FIELDS if not hasattr(client, field)] == []


async def test_a_subscription_can_be_made_without_starting_it() -> None:
    subscription = Subscription(Client(), 7, "a.*", queue="q")
    assert (subscription._subject, subscription._queue, subscription._max_msgs) == ("a.*", "q", 0)
    assert subscription._wait_for_msgs_task is None
    assert subscription._message_iterator is None


def test_a_transport_has_no_more_to_it() -> None:
    assert Transport.__abstractmethods__ <= set(dir(connection._Socket))


def test_a_given_transport_is_used() -> None:
    assert "if not self._transport:" in inspect.getsource(Client._connect_to_server)
    assert Srv.__dataclass_fields__.keys() >= {"uri"}


def test_a_reconnect_asks_for_the_subscriptions_then_calls_back() -> None:
    source = inspect.getsource(Client._attempt_reconnect)
    assert source.index("for sid, sub in self._subs.items()") < source.index("await self.flush()")
    assert source.index("await self.flush()") < source.index("await self._reconnected_cb()")


async def test_each_server_has_an_equal_part_of_the_time_to_answer() -> None:
    client = connection.Connection(lambda: None, lambda: None, lambda: None)
    with pytest.raises(ConnectionRefusedError):
        await client.open("nats://127.0.0.1:1,nats://127.0.0.1:1", "", "", name="", inbox="x", timeout=12.0)
    assert client.options["connect_timeout"] == 6


async def test_refusals_may_go_on_for_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(connection.asyncio, "sleep", wait)
    client = connection.Connection(lambda: None, lambda: None, lambda: None)
    for _ in range(2_000):  # each of them slow: nobody has answered the server
        await client._on_error(errors.Error("authorization violation"))
    client._tries = 1
    with pytest.raises(IndexError):  # it got as far as choosing a server, and has none
        await client._select_next_server()
    assert waits == [connection.REFUSED_WAIT]
