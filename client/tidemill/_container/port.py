"""An ASGI app in front of a port of this container: what a web server there answers."""

import asyncio
from typing import Any

from tidemill import exception

PROBE = 0.02  # seconds between looks whether the server listens


class PortProxy:
    """Passes requests on to a port of this container."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def wait(self, timeout: float) -> None:
        """Return when the server listens; `ExecutionError` if it does not in time."""
        try:
            async with asyncio.timeout(timeout):
                while not await self._listens():  # noqa: ASYNC110 - another program
                    await asyncio.sleep(PROBE)
        except TimeoutError:
            raise exception.ExecutionError(
                f"no web server listens on port {self._port} after {timeout:g} s",
                hint="start it in the background, on 0.0.0.0; startup_timeout= gives it more time",
            ) from None

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return False
        writer.close()
        return True

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer one request."""
        raise NotImplementedError
