"""Answering requests as a NATS micro service: found by `nats micro ls`, replicas share the work."""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tidemill._bus.protocol import BusError, Message, RequestFailed, Subscription
from tidemill._wire import coding
from tidemill._wire.control import ErrorReply
from tidemill_common.bus.protocol import Endpoint

if TYPE_CHECKING:
    from tidemill._bus.protocol import Bus

QUEUE = "q"  # the group that replicas share, by the protocol's convention
AT_ONCE, MAX_WAITING = 256, 4_096  # requests answered at the same time, and kept until it is their turn

_TYPE = "io.nats.micro.v1"

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Statistics:
    """What one endpoint has done."""

    requests: int = 0
    errors: int = 0
    last_error: str = ""
    nanoseconds: int = 0


class Described:
    """An endpoint with metadata, which is made when somebody asks for it."""

    def __init__(self, endpoint: Endpoint, describe: Callable[[], Mapping[str, str]]) -> None:
        self.describe = describe
        self.answer = endpoint

    def __call__(self, *request: Any) -> Awaitable[bytes]:
        """Answer."""
        return self.answer(*request)


class MicroService:
    """One replica of a service: its endpoints, and what is told about them."""

    def __init__(
        self,
        bus: "Bus",
        name: str,
        version: str,
        endpoints: Mapping[str, Endpoint],
        metadata: Mapping[str, str],
    ) -> None:
        self._bus = bus
        self._identity = {
            "name": name,
            "id": secrets.token_hex(11),
            "version": version,
            "metadata": dict(metadata),
        }
        self._endpoints = endpoints
        self._statistics = {subject: _Statistics() for subject in endpoints}
        self._started = datetime.now(UTC)
        self._subscriptions: list[Subscription] = []
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._requests: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Subscribe to the endpoints, then to the questions about them."""
        for subject, endpoint in self._endpoints.items():
            await self._listen(subject, endpoint)
        name, identity = self._identity["name"], self._identity["id"]
        for verb, tell in (("PING", self._ping), ("INFO", self._info), ("STATS", self._stats)):
            for subject in (f"$SRV.{verb}", f"$SRV.{verb}.{name}", f"$SRV.{verb}.{name}.{identity}"):
                answer = self._answerer(tell)
                self._subscriptions.append(await self._bus.subscribe(subject, answer))

    async def stop(self) -> None:
        """Take no more requests and finish those that were taken."""
        for subscription in self._subscriptions:
            await subscription.drain()
        self._subscriptions.clear()
        if self._requests:
            await asyncio.wait(self._requests)

    async def _listen(self, subject: str, endpoint: Endpoint) -> None:
        statistics = self._statistics[subject]

        def take(request: Message) -> None:
            if len(self._requests) >= MAX_WAITING:
                self._refuse(request, RequestFailed("resource_exhausted", "too many requests are waiting"))
                return
            task = asyncio.get_running_loop().create_task(self._handle(request, endpoint, statistics))
            self._requests.add(task)
            task.add_done_callback(self._requests.discard)

        self._subscriptions.append(await self._bus.subscribe(subject, take, queue=QUEUE))

    async def _handle(self, request: Message, endpoint: Endpoint, statistics: _Statistics) -> None:
        async with self._turn:
            began = time.perf_counter_ns()
            try:
                self._reply(request, await endpoint(request))
            except RequestFailed as error:
                statistics.errors += 1
                statistics.last_error = f"{error.code}: {error.message}"
                self._refuse(request, error)
            except Exception as error:
                _log.exception("a request on %s failed", request.subject)
                statistics.errors += 1
                statistics.last_error = type(error).__name__
                self._refuse(request, RequestFailed("internal", f"failed: {type(error).__name__}"))
            finally:
                statistics.requests += 1
                statistics.nanoseconds += time.perf_counter_ns() - began

    def _refuse(self, request: Message, error: RequestFailed) -> None:
        headers = {
            "Nats-Service-Error-Code": error.code,
            "Nats-Service-Error": " ".join(error.message.split())[:512],
        }
        body = coding.encode(ErrorReply(error.code, error.message, error.hint))
        self._reply(request, body, headers)

    def _reply(self, request: Message, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        if not request.reply:
            return
        try:
            self._bus.publish(request.reply, data, headers=headers)
        except BusError as error:  # whoever asked notices the outage, or that nothing came
            _log.warning("an answer on %s could not be sent: %s", request.subject, error)

    # --- discovery

    def _answerer(self, tell: Any) -> Any:
        return lambda request: self._reply(request, json.dumps(tell()).encode())

    def _ping(self) -> dict[str, Any]:
        return {"type": f"{_TYPE}.ping_response", **self._identity}

    def _info(self) -> dict[str, Any]:
        endpoints = [
            {
                **self._endpoint(subject),
                "metadata": dict(endpoint.describe() if isinstance(endpoint, Described) else {}),
            }
            for subject, endpoint in self._endpoints.items()
        ]
        return {
            "type": f"{_TYPE}.info_response",
            **self._identity,
            "description": f"Tidemill {self._identity['name']}",
            "endpoints": endpoints,
        }

    def _stats(self) -> dict[str, Any]:
        return {
            "type": f"{_TYPE}.stats_response",
            **self._identity,
            "started": self._started.isoformat().replace("+00:00", "Z"),
            "endpoints": [self._endpoint_stats(subject) for subject in self._endpoints],
        }

    def _endpoint(self, subject: str) -> dict[str, Any]:
        return {"name": subject.rpartition(".")[2], "subject": subject, "queue_group": QUEUE}

    def _endpoint_stats(self, subject: str) -> dict[str, Any]:
        statistics = self._statistics[subject]
        return {
            **self._endpoint(subject),
            "num_requests": statistics.requests,
            "num_errors": statistics.errors,
            "last_error": statistics.last_error,
            "processing_time": statistics.nanoseconds,
            "average_processing_time": statistics.nanoseconds // max(1, statistics.requests),
        }
