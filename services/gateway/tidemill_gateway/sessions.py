"""What a requester may reach: one workspace's services, calls and results."""

import asyncio
from typing import TypeVar

import msgspec

from tidemill import exception
from tidemill._bus.protocol import BusError, NoResponder, RequestFailed
from tidemill._caller import Caller, explain
from tidemill._wire import coding, errors, subjects
from tidemill._wire.control import ErrorReply
from tidemill_common.bus.protocol import ServiceBus

Answer = TypeVar("Answer")

REQUEST_TIMEOUT = 10.0  # seconds for a service to answer


class Session:
    """One workspace, as those see it who have a token for it."""

    def __init__(self, bus: ServiceBus, workspace: str, caller: Caller) -> None:
        self.bus = bus
        self.workspace = workspace
        self.caller = caller

    async def registry(self, verb: str, message: object, answer: type[Answer]) -> Answer:
        """Ask the registry; raises the error that it gives, or `ServiceError` when it gives nothing."""
        return await ask(self.bus, subjects.registry(self.workspace, verb), message, answer)

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
    """The sessions of this process, one for each workspace that somebody asked for."""

    def __init__(self, bus: ServiceBus) -> None:
        self._bus = bus
        self._sessions: dict[str, Session] = {}
        self._opening = asyncio.Lock()

    async def of(self, workspace: str) -> Session:
        """Return a workspace's session."""
        if (session := self._sessions.get(workspace)) is not None:
            return session
        async with self._opening:
            if workspace not in self._sessions:
                caller = Caller(self._bus, workspace)
                try:
                    await caller.open()
                except BusError as error:
                    raise explain(error) from error
                self._sessions[workspace] = Session(self._bus, workspace, caller)
        return self._sessions[workspace]

    async def close(self) -> None:
        """End them all."""
        for session in self._sessions.values():
            await session.caller.close()


async def ask(bus: ServiceBus, subject: str, message: object, answer: type[Answer]) -> Answer:
    """Ask a service and return its answer, checked against its type, or raise what it was refused with."""
    try:
        data = await bus.request(subject, coding.encode(message), timeout=REQUEST_TIMEOUT)
        return msgspec.msgpack.decode(data, type=answer)
    except NoResponder as error:
        service = subject.split(".")[1]
        raise exception.ServiceError(f"the {service} does not run", hint="try again in a moment") from error
    except RequestFailed as error:
        raise errors.to_exception(ErrorReply(error.code, error.message, error.hint)) from error
    except BusError as error:
        raise explain(error) from error
    except msgspec.DecodeError as error:
        raise exception.VersionError(f"the answer on {subject} cannot be read: {error}") from error
