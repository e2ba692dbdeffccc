"""The server that a client uses: the one that is named, the local stack that runs, or one that is started."""

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from tidemill import _loop, _runtime, exception
from tidemill._bus.protocol import Bus, Disconnected, NotLetIn
from tidemill._dataclass import dataclass
from tidemill._wire import ids
from tidemill.config import config

if TYPE_CHECKING:
    from tidemill import _stack
    from tidemill._bus.nats import NatsBus

CREDENTIALS_HINT = "check TIDEMILL_TOKEN_ID and TIDEMILL_TOKEN_SECRET, or the profile in use"
UNDECIDED = "the server lets nobody in now: the registry does not answer it"
REGISTRY_HINT = "look with `tidemill status`, or try again in a moment"
NO_SERVER_HINT = "start one with `tidemill up`"
CONFIGURED_HINT = "check that it runs, and TIDEMILL_SERVER_URL or the profile in use (`tidemill config show`)"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where the server is and who we are."""

    server_url: str
    token_id: str
    token_secret: str


class Server:
    """Where a client connects to. In a container that is the container's worker."""

    def __init__(self, given: Credentials | None) -> None:
        """Make it; without credentials, or without a URL in them, the server is still to be found."""
        self._given = given
        self._temporary: _stack.TemporaryStack | None = None

    # --- where it is

    async def find(self) -> Credentials:
        """Return where the server is, and what it is shown; a temporary stack may be started."""
        given = self._given
        if given is not None and given.server_url:
            return given
        if url := config["server_url"]:
            return Credentials(url, config["token_id"], config["token_secret"])
        stack = await self._find_stack()
        if given is not None:
            return Credentials(stack.server_url, given.token_id, given.token_secret)
        return stack

    async def _find_stack(self) -> Credentials:
        """Return the local stack that runs, or one that is started for the life of the client."""
        from tidemill import _output, _stack

        started = self._temporary
        info = started.info if started is not None and started.is_alive else _stack.find()
        if info is None:
            output = _output.current()
            progress = output.status if output is not None else None
            temporary = self._temporary = await asyncio.to_thread(_stack.start_temporary, progress)
            info = temporary.info
        return Credentials(info.server_url, info.token_id, info.token_secret)

    def check_lasting(self) -> None:
        """Refuse what would start a temporary stack; `ConnectionError`."""
        from tidemill import _stack

        if not (self._is_named or _stack.find()):
            raise exception.ConnectionError("no server is running", hint=NO_SERVER_HINT)

    def is_down(self) -> bool:
        """Return whether it is the stack on this machine that stays, and that runs no more."""
        from tidemill import _stack

        return not self._is_named and self._temporary is None and not _stack.is_running()

    @property
    def _is_named(self) -> bool:
        return bool((self._given is not None and self._given.server_url) or config["server_url"])

    # --- the connection to it

    async def open_bus(self, on_shut_out: Callable[[], None]) -> tuple[Bus, str]:
        """Return a connection, and the workspace that it is for.

        Raises:
            AuthError: the server does not know the credentials.
            ConnectionError: it cannot be reached.
        """
        if _runtime.container is not None:
            return _bus_of(_runtime.container), _runtime.container.workspace
        from tidemill._bus.lean import import_nats

        import_nats()  # while a temporary stack may be starting
        found = await self.find()
        bus = await self._connect(found)
        try:
            workspace = ids.workspace_of_token(found.token_id)
        except ValueError as error:
            await bus.close()
            raise exception.AuthError(str(error), hint=CREDENTIALS_HINT) from error
        bus.on_shut_out = on_shut_out
        return bus, workspace

    async def _connect(self, found: Credentials) -> "NatsBus":
        from tidemill._bus import nats

        name = f"tidemill client {os.getpid()}"
        try:
            return await nats.connect(found.server_url, found.token_id, found.token_secret, name=name)
        except NotLetIn as error:
            if not error.final:
                raise exception.ConnectionError(UNDECIDED, hint=REGISTRY_HINT) from error
            raise exception.AuthError(
                f"{found.server_url} does not know these credentials", hint=CREDENTIALS_HINT
            ) from error
        except Disconnected as error:
            is_given = self._given is not None or config["server_url"]
            hint = CONFIGURED_HINT if is_given else NO_SERVER_HINT
            raise exception.ConnectionError(str(error), hint=hint) from error

    # --- the stack that was started for it

    def leave(self) -> None:
        """Let a temporary stack end with this process."""
        if (temporary := self.forget()) is not None:
            _loop.after_exit(temporary.stop)

    def forget(self) -> "_stack.TemporaryStack | None":
        """Return the temporary stack, which is no more this one's."""
        temporary, self._temporary = self._temporary, None
        return temporary


def _bus_of(container: _runtime.Container) -> Bus:
    """Return the bus over this container's worker."""
    bus = container.connect()
    if bus is None:
        raise exception.ConnectionError("this process has no connection to its container's worker")
    return bus
