"""The services of docker-compose.yml as processes of this machine, where no container engine runs.

Each has a network namespace of its own on a common bridge, with the names of the others in its
`/etc/hosts`, and its volumes and configuration at the paths that the file names: ports, addresses and
commands are the file's. What differs is the root file system, which is this machine's.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from compose_file import ROOT, Service
from running_stacks import wait_until

from tidemill_local.broker import program
from tidemill_local.database_cluster import Cluster, binaries

_NETWORK = "10.231.0"
_NOBODY = "65534"


def missing() -> str:
    """Return what this machine lacks for it, or nothing."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    lacking = [name for name in ("ip", "setpriv", "wget") if shutil.which(name) is None]
    return f"not installed: {', '.join(lacking)}" if lacking else ""


class ComposeStage:
    """Starts services, in the order that they need, and what runs beside them."""

    def __init__(self, services: Mapping[str, Service], configs: Mapping[str, Any], folder: Path) -> None:
        self._services = services
        self._configs = configs
        self._folder = folder
        self._prefix = f"tm{os.getpid()}"
        self._hosts = {name: number for number, name in enumerate([*services, "client"], start=2)}
        self._started: set[str] = set()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    # --- the network

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """Make the namespaces, and take them away again with everything in them."""
        hub = self._namespace("hub")
        try:
            _ip("netns", "add", hub)
            _ip("-n", hub, "link", "add", "br0", "type", "bridge")
            _ip("-n", hub, "link", "set", "br0", "up")
            for name in self._hosts:
                self._join(name, hub)
            yield
        finally:
            for process in self.processes.values():
                process.kill()
                process.wait()
            for name in ("hub", *self._hosts):
                subprocess.run(
                    ["ip", "netns", "del", self._namespace(name)], check=False, capture_output=True
                )
                shutil.rmtree(Path("/etc/netns", self._namespace(name)), ignore_errors=True)

    def _join(self, name: str, hub: str) -> None:
        namespace, number = self._namespace(name), self._hosts[name]
        hosts = Path("/etc/netns", namespace, "hosts")
        hosts.parent.mkdir(parents=True)
        lines = [
            "127.0.0.1 localhost",
            *(f"{_NETWORK}.{number} {host}" for host, number in self._hosts.items()),
        ]
        hosts.write_text("\n".join(lines) + "\n")
        _ip("netns", "add", namespace)
        _ip("-n", namespace, "link", "set", "lo", "up")
        _ip("link", "add", "eth0", "netns", namespace, "type", "veth", "peer", f"veth{number}", "netns", hub)
        _ip("-n", hub, "link", "set", f"veth{number}", "master", "br0", "up")
        _ip("-n", namespace, "address", "add", f"{_NETWORK}.{number}/24", "dev", "eth0")
        _ip("-n", namespace, "link", "set", "eth0", "up")

    def _namespace(self, name: str) -> str:
        return f"{self._prefix}-{name}"

    # --- processes

    def up(self, name: str) -> None:
        """Start a service, after what it needs, and return when it is healthy or has done its work."""
        if name in self._started:
            return
        self._started.add(name)
        service = self._services[name]
        for needed, condition in service.needs.items():
            self.up(needed)
            if condition == "service_completed_successfully":
                process = self.processes.pop(needed)
                assert process.wait(60) == 0, self.log(needed)
        self.start(name)
        if "healthcheck" in service.record:
            wait_until(lambda: self.is_healthy(name), timeout=service.patience, what=f"for {name}")

    def start(self, name: str) -> None:
        """Start a service's command."""
        service = self._services[name]
        command = self._postgres(service) if service.image.startswith("postgres") else self._command(service)
        with (self._folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*self._inside(name), *command],
                env=self._environment(service.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )

    def stop(self, name: str) -> int:
        """Stop a service as an engine does, within its grace; return its exit status."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(self._services[name].grace)

    def is_healthy(self, name: str) -> bool:
        """Return what the service's own check says."""
        process = self.processes[name]
        assert process.poll() is None, f"{name} ended: {self.log(name)}"
        service = self._services[name]
        return self.run(name, *service.healthcheck, environment=service.environment).returncode == 0

    def run(
        self, name: str, *command: str, environment: Mapping[str, str], **options: Any
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program to its end, beside a service or as a client."""
        return subprocess.run(
            ["ip", "netns", "exec", self._namespace(name), *command],
            env=self._environment(environment),
            **({"capture_output": True, "text": True, "timeout": 60, "check": False, "cwd": "/"} | options),
        )

    def log(self, name: str) -> str:
        """Return the end of what a service wrote."""
        return (self._folder / f"{name}.log").read_text(errors="replace")[-3000:]

    def _command(self, service: Service) -> list[str]:
        return [str(program()), *service.command] if service.image.startswith("nats") else service.command

    def _environment(self, own: Mapping[str, str]) -> dict[str, str]:
        path = [str(Path(sys.executable).parent), str(binaries()), os.environ["PATH"]]
        return {"PATH": ":".join(path), "HOME": str(self._folder), "LANG": "C.UTF-8", **own}

    def _inside(self, name: str) -> list[str]:
        """Return what puts a command into a service's network and gives it its volumes."""
        service = self._services[name]
        steps = ["mount -t tmpfs none /srv"]
        for volume, path in service.volumes.items():
            if path.startswith("/srv/"):
                source = self._folder / volume
                source.mkdir(exist_ok=True)
                steps.append(f"mkdir {path} && mount --bind {source} {path}")
        configs = (
            (self._configs[used["source"]]["file"], used) for used in service.record.get("configs", ())
        )
        steps += [f"cp {ROOT / file} {used['target']}" for file, used in configs]
        script = " && ".join([*steps, 'exec "$@"'])
        return ["ip", "netns", "exec", self._namespace(name), "sh", "-c", script, "sh"]

    # --- PostgreSQL, whose image does more than run it

    def _postgres(self, service: Service) -> Sequence[str]:
        """Make the cluster that the image would make; return the command that serves it."""
        folder = self._folder / service.name
        folder.mkdir()
        cluster = Cluster(folder / "data", folder / "log")
        cluster.initialize(service.environment["POSTGRES_PASSWORD"])
        with (folder / "data/pg_hba.conf").open("a") as file:
            file.write("host all all all scram-sha-256\n")
        self._create_database(cluster, service.environment)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, int(_NOBODY), int(_NOBODY))
        keep = "-all,+dac_override"
        as_nobody = [f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
        as_nobody += [f"--inh-caps={keep}", f"--ambient-caps={keep}"]
        options = ["-c", "listen_addresses=*", "-c", f"unix_socket_directories={folder}"]
        return ["setpriv", *as_nobody, str(binaries() / "postgres"), "-D", str(folder / "data"), *options]

    def _create_database(self, cluster: Cluster, environment: Mapping[str, str]) -> None:
        cluster.spawn(durable=False)
        try:
            cluster.wait_ready()
            statement = f'CREATE DATABASE "{environment["POSTGRES_DB"]}"'
            cluster.execute(statement, environment["POSTGRES_PASSWORD"])
        finally:
            cluster.stop()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
