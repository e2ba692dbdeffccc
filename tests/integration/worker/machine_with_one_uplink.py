"""Be a machine with a network of its own, one way out, and one container: print what that reaches.

The machine is network namespaces: what is switched on in them is not switched on here.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tidemill._container import sandbox, syscalls
from tidemill_worker.sandbox import network
from tidemill_worker.sandbox.forwarding import TREE, Forwarding
from tidemill_worker.sandbox.network import Pairs

OUTSIDE = "198.18.7.2"


def ip(text: str) -> None:
    subprocess.run(["ip", *text.split()], check=True)


def apart(do: Callable[[socket.socket], None]) -> tuple[int, socket.socket]:
    """Do something in a child with a network of its own; return its pid and a socket to it."""
    ours, theirs = socket.socketpair()
    if pid := os.fork():
        theirs.close()
        assert ours.recv(1), "it is there"
        return pid, ours
    try:
        ours.close()
        syscalls.unshare(syscalls.NEWNET)
        theirs.sendall(b"!")
        do(theirs)
    finally:
        os._exit(0)


def outside(told: socket.socket) -> None:
    """Answer one who asks with the address that it comes from."""
    told.recv(1)
    with socket.create_server((OUTSIDE, 80)) as server:
        told.sendall(b"!")
        connection, (address, _) = server.accept()
        connection.sendall(address.encode())
        told.recv(1)  # the machine is gone: with us goes its way out


def container(told: socket.socket) -> None:
    """Ask the machine outside; pass on what it answers."""
    sandbox._configure_network(**json.loads(told.recv(65536)))
    with socket.create_connection((OUTSIDE, 80), 10) as sock:
        told.sendall(sock.recv(100))


def switches() -> list[str]:
    return [(TREE / name).read_text().strip() for name in ("ip_forward", "conf/uplink/forwarding")]


def main() -> None:
    syscalls.unshare(syscalls.NEWNET)
    (TREE / "ip_forward").write_text("0")  # whatever it is on the machine that we are on
    pid, beyond = apart(outside)
    ip(f"link add uplink type veth peer name far netns {pid}")
    ip("address add 198.18.7.1/30 dev uplink")
    ip("link set uplink up")
    subprocess.run(
        [
            "nsenter",
            "-t",
            str(pid),
            "-n",
            "sh",
            "-c",
            f"ip address add {OUTSIDE}/30 dev far; ip link set far up",
        ],
        check=True,
    )
    beyond.sendall(b"!")
    assert beyond.recv(1)
    with tempfile.TemporaryDirectory() as folder:
        forwarding = Forwarding(Path(folder, "workers"))
        Path(folder, "workers").mkdir()
        before = switches()
        pairs = Pairs.open(9, forwarding, (), network.PRIVATE)
        inside, asking = apart(container)
        asking.sendall(json.dumps(pairs.give("co", inside)).encode())
        answer = asking.recv(100).decode()
        during = switches()
        pairs.close()
        forwarding.give_back(lambda: False)
        left = os.listdir(folder)
    print(json.dumps([before, answer, during, switches(), left]))


if __name__ == "__main__":
    sys.exit(main())
