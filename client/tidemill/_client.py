"""The connection of this process to a server, made at the first call and shared by everything."""

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from tidemill import _loop, _runtime, _sync, exception
from tidemill._bus.protocol import Bus, BusError, Disconnected, NoResponder, NotLetIn, RequestFailed
from tidemill._caller import Caller, explain
from tidemill._outage import Outage
from tidemill._server import Credentials, Server
from tidemill._tracebacks import EDGE
from tidemill._wire import coding, errors, subjects
from tidemill._wire.control import ErrorReply
from tidemill.config import config

A = TypeVar("A")

REQUEST_TIMEOUT = 30.0  # seconds
FIND_RESPONDER = 10.0  # seconds for which a request waits for its service to come (back) up
FIND_SERVER = 20.0  # seconds for which it waits for a connection that was lost
FIND_PAUSE = 0.2


def _from_env() -> "Client":
    """Return the client that this process shares.

    It finds its server through `TIDEMILL_SERVER_URL`, `TIDEMILL_TOKEN_ID` and `TIDEMILL_TOKEN_SECRET`,
    or through the active profile of the configuration file; else it uses the local stack that runs
    (`tidemill up`); else, where the `local` extra is installed, it starts a temporary one that ends with
    this process. Inside containers it goes over the worker.
    """
    with _shared.lock:
        client = _shared.client
        if client is None or client.is_closed():
            client = _shared.client = Client()
            client._shared = True
    return client


def _from_credentials(token_id: str, token_secret: str, *, server_url: str = "") -> "Client":
    """Return a client that uses these credentials.

    Args:
        token_id: the token's id.
        token_secret: its secret.
        server_url: `nats://host:port`; without it the configured one, else the local stack's.
    """
    return Client(Credentials(server_url or config["server_url"], token_id, token_secret))


class Client:
    """A connection to a Tidemill server.

    Nothing is sent before it is needed: making a client does not connect. One client serves any number
    of threads and event loops. `from_env()` gives the one that everything uses by default.

    Example:
        with Client.from_credentials("ak-main-01ja8m3k9x4q7w2v5y6z0b1c2d", "secret") as client:
            Function.from_name("my-app", "square", client=client).remote(3)
    """

    def __init__(self, credentials: Credentials | None = None) -> None:
        """Make a client; without credentials it finds its server as `from_env` describes."""
        self._server = Server(credentials)
        self._shared = False
        self._closed = False
        self._connecting: asyncio.Lock | None = None
        self._bus: Bus | None = None
        self._leaving: asyncio.Task[None] | None = None  # a session that the server has ended
        self._forget_exit: Callable[[], None] = _nothing
        self.caller: Caller | None = None  # there once connected
        _loop.on_fork(self)

    # --- making one

    from_env = _sync.Immediate(_from_env)
    from_credentials = _sync.Immediate(_from_credentials)

    # --- its life

    async def _hello(self) -> None:
        await (await self.connect()).bus.flush()

    async def _close(self) -> None:
        self._closed = True
        self._forget_exit()
        caller, self.caller = self.caller, None
        bus, self._bus = self._bus, None
        if caller is not None:
            await caller.close()
        if bus is not None:
            await _close_own(bus)
        self._server.leave()

    @_sync.method
    async def hello(self) -> None:
        """Connect if that has not happened and wait for the server's answer.

        Raises:
            ConnectionError: no server can be reached.
            AuthError: it does not know these credentials.
        """
        await self._hello()

    @_sync.method
    async def close(self) -> None:
        """Close the connection. Calls that are under way fail with `ClientClosed`."""
        await self._close()

    def is_closed(self) -> bool:
        """Return whether this client was closed."""
        return self._closed

    def __enter__(self) -> Self:
        with EDGE:
            _loop.wait(self._hello())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._shared:  # the process's own serves others too, and is closed at exit
            _loop.wait(self._close())

    async def __aenter__(self) -> Self:
        with EDGE:
            await _loop.bridge(self._hello())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._shared:
            await _loop.bridge(self._close())

    def forked(self) -> None:
        """Forget the connection: it belongs to the parent."""
        _loop.leave_behind((self.caller, self._bus, self._server.forget()))
        self.caller = self._bus = self._connecting = None
        self._forget_exit = _nothing
        _loop.on_fork(self)

    # --- for the rest of the SDK, on the loop

    async def connect(self) -> Caller:
        """Return the session on the bus, connected."""
        if self._closed:
            raise exception.ClientClosed("the client was closed")
        if self.caller is not None:
            return self.caller
        self._connecting = self._connecting or asyncio.Lock()
        async with self._connecting:
            if self.caller is None:
                self.caller = await self._open_session()
        return self.caller

    async def _open_session(self) -> Caller:
        bus, workspace = await self._server.open_bus(self._shut_out)
        caller = Caller(bus, workspace)
        try:
            await caller.open()
            if self._closed:
                raise exception.ClientClosed("the client was closed")
        except BusError as error:
            await _close_own(bus)
            raise explain(error) from error
        except BaseException:
            await _close_own(bus)
            raise
        self._bus = bus
        if _runtime.container is None:
            Outage(bus, caller, self._server.is_down)
        self._forget_exit = _loop.at_exit(self._close)
        return caller

    async def request(
        self,
        service: str,
        verb: str,
        message: object,
        answer: type[A],
        *,
        timeout: float = REQUEST_TIMEOUT,
        patience: float = FIND_RESPONDER,
    ) -> A:
        """Ask a service (`registry`, `scheduler`) and return its answer, or raise the error that it gave.

        A service that is not there is waited for, up to `patience` seconds, and so is a connection that is
        lost; then the request is sent again. It may have been carried out before: what that leaves behind
        (an app without a client) expires.

        Raises:
            ServiceError: nobody answers.
            ConnectionError: no server can be reached.
        """
        caller = await self.connect()
        bus, subject = caller.bus, subjects.request(service, caller.workspace, verb)
        data = coding.encode(message)
        clock = asyncio.get_running_loop().time
        missed: float | None = None  # since when it cannot be delivered
        while True:
            try:
                return coding.decode(answer, await bus.request(subject, data, timeout=timeout))
            except NotLetIn as error:  # for good
                raise explain(error) from error
            except (NoResponder, Disconnected) as error:
                missed = missed or clock()
                is_away = isinstance(error, Disconnected)
                if self._closed or clock() - missed > (FIND_SERVER if is_away else patience):
                    raise (explain(error) if is_away else _missing(service)) from error
                await asyncio.sleep(FIND_PAUSE)
            except RequestFailed as error:
                raise errors.to_exception(ErrorReply(error.code, error.message, error.hint)) from None
            except BusError as error:
                raise explain(error) from error
            except ValueError as error:
                raise exception.VersionError(f"the answer of {subject} cannot be read: {error}") from error

    def _shut_out(self) -> None:
        """The token is good no more: end what waits, and let the next call find out for itself."""
        caller, self.caller = self.caller, None
        if caller is not None:
            self._forget_exit()
            message = "the server does not let this client in any more"
            caller.fail_all(exception.AuthError(message, hint="the token was revoked or has expired"))
            self._leaving = asyncio.create_task(caller.close(), name="leave the session")

    def check_lasting(self) -> None:
        """Refuse to start a temporary stack for what is to stay.

        Raises:
            ConnectionError: no server runs.
        """
        if self.caller is None and _runtime.container is None:
            self._server.check_lasting()

    async def find_server(self) -> Credentials:
        """Return where this client's server is, and what it shows it; a temporary stack may be started."""
        return await self._server.find()


def _missing(service: str) -> exception.ServiceError:
    return exception.ServiceError(f"the {service} does not run", hint="look with `tidemill status`")


async def _close_own(bus: Bus) -> None:
    if _runtime.container is None:  # there it is the container's, and others may use it
        await bus.close()


class _Shared:
    """The client that this process shares, once somebody asked for it."""

    def __init__(self) -> None:
        self.client: Client | None = None
        self.lock = threading.Lock()
        _loop.on_fork(self)

    def forked(self) -> None:
        """Take a lock that nobody holds."""
        self.lock = threading.Lock()
        _loop.on_fork(self)


_shared = _Shared()


def _nothing() -> None:
    pass


def current(client: Client | None = None) -> Client:
    """Return the given client, else the one that this process shares."""
    return client if client is not None else _from_env()
