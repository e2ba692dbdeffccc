import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tidemill import Client
from tidemill._sync import Call
from tidemill._wire.apps import AppDetails, AppInfo, GetApp


@pytest.fixture
def record_of(client: Client) -> Callable[[str], AppInfo]:
    """What the registry has about an app."""

    async def ask(app_id: str) -> AppInfo:
        details = await client.request("registry", "get_app", GetApp(app_id=app_id), AppDetails)
        return details.app

    call: Any = Call(ask)
    return call
