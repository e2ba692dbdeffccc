import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tidemill import App, Client
from tidemill.exception import NotFoundError


@pytest.fixture
def name(client: Client) -> Iterator[str]:
    """A name for an app, which is stopped at the end if it is there."""
    name = f"deployed-{uuid.uuid4().hex[:8]}"
    yield name
    try:
        App.lookup(name, client=client).stop()
    except NotFoundError:
        return


Deploy = Callable[..., App]


@pytest.fixture
def deploy(client: Client, name: str) -> Deploy:
    """Deploy a version of the app, whose functions are given as what they return."""

    def deploy(tags: dict[str, str] | None = None, /, *, using: Client = client, **values: Any) -> App:
        app = App(name, tags=tags)
        for key, value in values.items():
            _add(app, key, value)
        return app.deploy(client=using)

    return deploy


def _add(app: App, key: str, value: Any) -> None:
    # A module of tests is not in containers: the function goes along itself.
    app.function(serialized=True, name=key)(value if callable(value) else lambda: value)
