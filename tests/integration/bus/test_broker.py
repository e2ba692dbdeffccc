"""The NATS server as a child process."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest
from running_stacks import is_gone

from tidemill_local.broker import MEMBER, USERS, Broker, BrokerError, BrokerSettings

PARENT = """
import asyncio, sys
from pathlib import Path
from tidemill_local.broker import MEMBER, USERS, Broker, BrokerSettings

async def main():
    broker = Broker(BrokerSettings(Path(sys.argv[1])))
    await broker.start()
    print(broker.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie a child to its parent")
async def test_a_server_ends_with_its_killed_parent(
    folder: Path, until: Callable[..., Awaitable[object]]
) -> None:
    command = [sys.executable, "-c", PARENT, str(folder / "nats")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(await asyncio.to_thread(parent.stdout.readline))
        assert psutil.pid_exists(pid)
        parent.kill()
    await until(lambda: is_gone(pid))


async def test_a_server_that_cannot_start_says_why(broker: Broker, folder: Path) -> None:
    other = Broker(BrokerSettings(folder / "other", port=broker.port))
    with pytest.raises(BrokerError, match="address already in use"):
        await other.start()
    assert other.pid is None


async def test_a_restarted_server_waits_for_its_port(
    broker: Broker, until: Callable[..., Awaitable[object]]
) -> None:
    port = broker.port
    broker.kill()
    with socket.create_server((broker.settings.host, port)):
        starting = asyncio.create_task(broker.start())
        await until(lambda: broker.log.read_text().count("address already in use") > 1)
        assert not starting.done()
    await starting
    assert broker.port == port


async def test_every_server_has_passwords_of_its_own(folder: Path) -> None:
    first, second = BrokerSettings(folder), BrokerSettings(folder)
    assert first.passwords.keys() == set(USERS)
    assert not set(first.passwords.values()) & set(second.passwords.values())
    assert first.passwords[MEMBER] not in repr(first)
