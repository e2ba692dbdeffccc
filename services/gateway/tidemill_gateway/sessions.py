"""What a requester may reach: one workspace's services, calls and results."""

import asyncio
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from tidemill import exception
from tidemill._bus.protocol import BusError, NoResponder, RequestFailed
from tidemill._caller import Caller, explain
from tidemill._wire import coding, errors, subjects
from tidemill._wire.control import ErrorReply
from tidemill_common.bus.protocol import ServiceBus
from tidemill_common.requests import signature
from tidemill_gateway.broker import Broker

Answer = TypeVar("Answer")

REQUEST_TIMEOUT = 10.0  # seconds for a service to answer


class Session:
    """One workspace, as somebody sees it who has a token for it. What is asked is told to be that token's."""

    def __init__(
        self, bus: ServiceBus, broker: Broker, workspace: str, caller: Caller, token_id: str
    ) -> None:
        self.bus = bus
        self.broker = broker
        self.workspace = workspace
        self.caller = caller
        self.token_id = token_id

    async def registry(
        self, verb: str, message: object, answer: type[Answer], timeout: float = REQUEST_TIMEOUT
    ) -> Answer:
        """Ask the registry; raises the error that it gives, or `ServiceError` when it gives nothing."""
        signed = subjects.signed(self.workspace, verb)
        headers = signature(self.token_id)
        return await ask(self.bus, signed, message, answer, timeout=timeout, headers=headers)

    async def page(self, verb: str, message: object, answer: type[Answer], cursor: str) -> Answer:
        """Ask the registry for a page of a list; `NotFoundError` when the cursor leads nowhere."""
        try:
            return await self.registry(verb, message, answer)
        except exception.InvalidError as error:
            if not cursor:
                raise
            raise exception.NotFoundError(
                "there is no page at this cursor", hint="begin again without one"
            ) from error

    async def scheduler(self, verb: str, message: object, answer: type[Answer]) -> Answer:
        """Ask the scheduler, in the same way."""
        return await ask(self.bus, subjects.scheduler(self.workspace, verb), message, answer)


class Sessions:
    """The sessions of this process: a caller for each workspace that somebody asked for."""

    def __init__(self, bus: ServiceBus, broker: Broker) -> None:
        self._bus = bus
        self._broker = broker
        self._callers: dict[str, Caller] = {}
        self._opening = asyncio.Lock()

    async def of(self, workspace: str, token_id: str = "") -> Session:
        """Return the session of a token in its workspace; without one the registry tells it nothing."""
        caller = self._callers.get(workspace) or await self._caller(workspace)
        return Session(self._bus, self._broker, workspace, caller, token_id)

    async def _caller(self, workspace: str) -> Caller:
        async with self._opening:
            if workspace not in self._callers:
                caller = Caller(self._bus, workspace)
                try:
                    await caller.open()
                except BusError as error:
                    raise explain(error) from error
                self._callers[workspace] = caller
        return self._callers[workspace]

    async def close(self) -> None:
        """End them all."""
        for caller in self._callers.values():
            await caller.close()


async def ask(
    bus: ServiceBus,
    subject: str,
    message: object,
    answer: type[Answer],
    *,
    timeout: float = REQUEST_TIMEOUT,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Ask a service and return its answer, checked against its type, or raise what it was refused with."""
    try:
        data = await bus.request(subject, coding.encode(message), timeout=timeout, headers=headers)
        return msgspec.msgpack.decode(data, type=answer)
    except NoResponder as error:
        service = "scheduler" if subject.startswith("tm.scheduler.") else "registry"
        raise exception.ServiceError(f"the {service} does not run", hint="try again in a moment") from error
    except RequestFailed as error:
        raise errors.to_exception(ErrorReply(error.code, error.message, error.hint)) from error
    except BusError as error:
        raise explain(error) from error
    except msgspec.DecodeError as error:
        raise exception.VersionError(f"the answer on {subject} cannot be read: {error}") from error
