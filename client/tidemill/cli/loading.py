"""The fresh process in which `tidemill serve` imports the user's code, once for every change of it.

It stores what the code brings along, writes what is to be published to a pipe, and ends. Errors are shown
here, as `tidemill run` shows them. It ends with the process that started it: the pipe that it holds open
tells.
"""

import asyncio
import contextlib
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tidemill._dataclass import dataclass
from tidemill.cli.reference import Reference

if TYPE_CHECKING:
    from tidemill._client import Client
    from tidemill._server import Credentials
    from tidemill._serving import Loaded

KILL = 5.0  # seconds that a process has to end


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be loaded, under which name, for which environment."""

    reference: Reference
    name: str | None
    environment: str


# --- in the process that serves


async def load(order: Order, client: "Client") -> "Loaded | None":
    """Have a fresh process import the code; None if that failed, which it has shown. Cancelling ends it."""
    from tidemill._serving import Loaded
    from tidemill._wire import coding

    their_end, our_end = os.pipe()
    result, told = os.pipe()
    try:
        environment = {**os.environ, **_as_variables(await client.find_server())}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "tidemill.cli.loading", str(their_end), str(told)),
            coding.encode(order).hex(),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(their_end, told),
            env=environment,
            start_new_session=True,  # a Ctrl-C at the terminal is for us
        )
        os.close(told)
        told = -1
        try:
            data = await _read(result)
            return coding.decode(Loaded, data) if await process.wait() == 0 else None
        except BaseException:
            await _end(process)
            raise
    finally:
        for descriptor in (their_end, our_end, result, told):
            if descriptor >= 0:
                os.close(descriptor)


def _as_variables(server: "Credentials") -> dict[str, str]:
    """Return the variables by which a process finds the server that we use, a temporary one too."""
    return {
        "TIDEMILL_SERVER_URL": server.server_url,
        "TIDEMILL_TOKEN_ID": server.token_id,
        "TIDEMILL_TOKEN_SECRET": server.token_secret,
    }


async def _read(descriptor: int) -> bytes:
    """Return everything that comes through a pipe until its last writer has gone."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    with os.fdopen(os.dup(descriptor), "rb") as pipe:
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        try:
            return await reader.read()
        finally:
            transport.close()


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), KILL)
        except TimeoutError:
            process.kill()
            await process.wait()


# --- in the fresh process


def main() -> NoReturn:
    """Load what the arguments say, and end the process."""
    from tidemill._wire import coding
    from tidemill.cli import errors
    from tidemill.exception import Error

    parent, told, order = int(sys.argv[1]), int(sys.argv[2]), bytes.fromhex(sys.argv[3])
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    os.set_inheritable(told, False)  # nothing that the user's code starts keeps the pipe open
    os.set_inheritable(parent, False)
    try:
        loaded = _load(coding.decode(Order, order))
    except Error as error:
        errors.show(str(error), error.hint)
        sys.exit(1)
    if loaded is None:
        sys.exit(1)
    with os.fdopen(told, "wb") as pipe:
        pipe.write(coding.encode(loaded))
    sys.exit(0)


def _end_with(parent: int) -> None:
    os.read(parent, 1)
    os._exit(1)


def _load(order: Order) -> "Loaded | None":
    from tidemill import _alias, _client, _loop, _plan, _serving
    from tidemill.cli import reference

    begun = time.time()
    named = order.reference
    # Files that change twice in a second would be taken for what was compiled first.
    sys.dont_write_bytecode = True
    _alias.install()
    sys.argv[:] = [named.source]
    module = reference.load_or_tell(named)
    if module is None:
        return None
    app = reference.find_app(module, named)
    plan = _plan.pack(app, order.name, order.environment)
    specs = _loop.wait(_plan.send(plan, _client.current()))
    own = getattr(module, "__file__", None)
    paths = {str(path) for path in plan.paths} | ({str(Path(own).absolute())} if own else set())
    return _serving.Loaded(
        plan.name,
        plan.description,
        plan.environment,
        dict(plan.tags),
        specs,
        tuple(sorted(paths)),
        begun,
    )


if __name__ == "__main__":
    main()
