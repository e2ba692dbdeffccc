"""The routes as this process knows them: the `routes` bucket, watched, so that a request asks nobody."""

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from tidemill._bus.protocol import BusError
from tidemill._wire.control import FunctionHandle
from tidemill._wire.web import Route
from tidemill_common import streams
from tidemill_common.bus.protocol import ServiceBus
from tidemill_common.logging import Logger

PREFIX = b"/f/"
SOON = 0.5  # seconds for a route that was made a moment ago to be known here
MAX_WAITING = 256  # requests that wait for that
REWATCH = 0.5  # seconds before the bucket is watched again after an error


Headers = Iterable[tuple[bytes, bytes]]


class Target(NamedTuple):
    """A route, and how the pool that it leads to is called."""

    route: Route
    handle: FunctionHandle


class Routes:
    """Which pool answers under which label."""

    def __init__(self, bus: ServiceBus, log: Logger) -> None:
        self._bus = bus
        self._log = log
        self._decoder = msgspec.msgpack.Decoder(Route)
        self._targets: dict[str, Target] = {}
        self._waiting = 0  # requests for labels that are not known
        self._changed = asyncio.Event()

    def find(self, label: str) -> Target | None:
        """Return where a label leads."""
        return self._targets.get(label)

    async def find_soon(self, label: str) -> Target | None:
        """Return where a label leads, waiting a moment: it may have been made just now."""
        if self._waiting >= MAX_WAITING or "--" not in label:
            return None
        self._waiting += 1
        try:
            async with asyncio.timeout(SOON):
                while label not in self._targets:
                    await self._changed.wait()
        except TimeoutError:
            return None
        finally:
            self._waiting -= 1
        return self.find(label)

    async def watch(self) -> None:
        """Follow the bucket for ever."""
        while True:
            try:
                async for label, record in self._bus.bucket(streams.ROUTES).watch():
                    self._take(label, record)
            except BusError as error:
                self._log.warning("the routes cannot be watched", error=str(error))
            await asyncio.sleep(REWATCH)

    def _take(self, label: str, record: bytes | None) -> None:
        if not label:
            return
        if record is None:
            self._targets.pop(label, None)
        else:
            try:
                route = self._decoder.decode(record)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                self._log.error("a route cannot be read", label=label, error=str(error))
                return
            self._targets[label] = Target(route, _handle(route))
            self._changed.set()
            self._changed = asyncio.Event()


def label_of(path: bytes, headers: Headers, suffix: bytes) -> tuple[str | None, bool]:
    """Return the label that a request is for, None for none, and whether its path leads there.

    Else it is that of a host: `suffix` is the domain, with its dot.
    """
    for name, value in headers:
        if name == b"host":
            host = value.partition(b":")[0].lower()
            if host.endswith(suffix):
                return host[: -len(suffix)].decode("latin-1"), False
            break
    if path.startswith(PREFIX):
        return path[len(PREFIX) :].partition(b"?")[0].partition(b"/")[0].decode("latin-1"), True
    return None, False


def _handle(route: Route) -> FunctionHandle:
    """Return what a route's pool is called through; of a class its method, with no parameters."""
    return FunctionHandle(
        route.function_id,
        route.function,
        route.app_id,
        route.pool,
        route.prefix,
        timeout=route.timeout,
        web_label=route.label,
        method=route.method,
    )
