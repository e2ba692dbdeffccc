"""One request to a small FastAPI app, answered while this module is imported: by a template, before it forks.

The first app of a process, and its first request, cost several times what later ones do: classes are made,
caches filled. Forks of a template that has done it begin where it ended.
"""

import asyncio
from typing import Any

from tidemill._container import apps
from tidemill._container.lifespan import Lifespan

_SCOPE: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "server": ("127.0.0.1", 80),
    "client": ("127.0.0.1", 1),
    "scheme": "http",
    "method": "GET",
    "root_path": "",
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
    "headers": [(b"host", b"localhost")],
    "extensions": {},
}


async def _page() -> dict[str, str]:
    return {}


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(_message: Any) -> None:
    """Do nothing."""


async def _answer(app: Any) -> None:
    lifespan = Lifespan(app)
    await lifespan.start()
    await app({**_SCOPE, "state": {}}, _receive, _send)
    await lifespan.stop()


def _rehearse() -> None:
    loop = asyncio.new_event_loop()
    try:
        app = apps.make(_page, {"kind": "endpoint", "method": "GET", "docs": False}, 1, loop)
        loop.run_until_complete(_answer(app))
    finally:
        loop.close()


_rehearse()
