"""A web server that is not Python's: one file for Node.js, which answers, streams and speaks WebSocket."""

import os
import random
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import tidemill

app = tidemill.App("foreign")
SCRIPT = Path(__file__).with_name("foreign_server.mjs")


def free_port() -> int:
    """Return a port, of those that the system gives nobody: the process tier shares them with the machine."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            return port


PORT = int(os.environ.get("FOREIGN_PORT") or free_port())


@app.function(env={"FOREIGN_PORT": str(PORT), "FOREIGN_SCRIPT": str(SCRIPT)}, max_containers=1)
@tidemill.concurrent(max_inputs=10)
@tidemill.web_server(PORT, startup_timeout=60)
def server() -> None:
    subprocess.Popen(["node", os.environ["FOREIGN_SCRIPT"], str(PORT)])
