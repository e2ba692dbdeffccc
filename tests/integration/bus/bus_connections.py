"""How the tests of the bus get their connections."""

from collections.abc import Awaitable, Callable

from tidemill_common.bus.nats import NatsServiceBus, connect
from tidemill_common.bus.protocol import ServiceBus
from tidemill_local.broker import Broker

Connect = Callable[[], Awaitable[ServiceBus]]
ConnectNats = Callable[..., Awaitable[NatsServiceBus]]


async def connect_to(broker: Broker, user: str = "service") -> NatsServiceBus:
    """Return a new connection to a server."""
    return await connect(broker.url, user, broker.settings.passwords[user], name="test", timeout=20)
