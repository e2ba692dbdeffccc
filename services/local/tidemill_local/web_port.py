"""The port of the gateway: the same at every start where that can be, for URLs that stay."""

import socket
from contextlib import suppress
from pathlib import Path

HOST = "127.0.0.1"


def reserve(file: Path) -> socket.socket:
    """Return a socket that keeps a port for the gateway: the one that `file` names, else any free one.

    It does not listen: the gateway does, on the same port. Meanwhile nobody else is given it.
    """
    reserved = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        reserved.bind((HOST, _kept(file)))
    except OSError:  # somebody else has it now
        reserved.bind((HOST, 0))
    file.write_text(f"{reserved.getsockname()[1]}\n")
    return reserved


def _kept(file: Path) -> int:
    with suppress(OSError, ValueError):
        port = int(file.read_text())
        if 0 < port < 1 << 16:
            return port
    return 0


def url(port: int) -> str:
    """Return where web functions are found, with `{label}` in it.

    Browsers and curl know that `*.localhost` is this machine. Other programs ask the system, which may not.
    """
    try:
        socket.getaddrinfo("tidemill.localhost", port, proto=socket.IPPROTO_TCP)
    except OSError:
        return f"http://{HOST}:{port}/f/{{label}}"
    return f"http://{{label}}.localhost:{port}"
