import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from running_stacks import RunningStack

sys.path.insert(0, str(Path(__file__).parent))

from tidemill import Client
from tidemill._sync import Call
from tidemill._wire.apps import AppDetails, AppInfo, GetApp


@pytest.fixture
def client(stack: RunningStack) -> Iterator[Client]:
    """A client of the shared stack."""
    info = stack.info
    with Client.from_credentials(info.token_id, info.token_secret, server_url=info.server_url) as client:
        yield client


@pytest.fixture
def record_of(client: Client) -> Callable[[str], AppInfo]:
    """What the registry has about an app."""

    async def ask(app_id: str) -> AppInfo:
        details = await client.request("registry", "get_app", GetApp(app_id=app_id), AppDetails)
        return details.app

    call: Any = Call(ask)
    return call
