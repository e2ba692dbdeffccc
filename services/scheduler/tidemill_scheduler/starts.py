"""What became of a pool's starts: failures in a row, why the last one failed, whether to give up.

A worker tells of a failed start by an event. An event can be lost, so a container that a report shows no
more before it was ever ready counts too, half a second later; until then nothing is started in its place.
"""

from tidemill._wire import failure
from tidemill._wire.scheduling import ContainerEvent
from tidemill._wire.specs import Pool
from tidemill_scheduler import endings
from tidemill_scheduler.decisions import READY, Failures, after_failure, gives_up
from tidemill_scheduler.replica import Replica
from tidemill_scheduler.workers import Container

WAIT = 0.5  # seconds for the event that tells why a container ended before it was ready
COUNTED = 1_000  # containers whose failure is remembered as counted


class Starts:
    """The starts of one pool. `doom` is the failure that its waiting inputs are to end with."""

    def __init__(self, replica: Replica, pool: Pool) -> None:
        self.failures = Failures()
        self.doom: bytes | None = None
        self.reason = ""
        self.failure = b""
        self._replica = replica
        self._pool = pool
        self._stillborn: dict[str, tuple[Container, float]] = {}  # and when the report came
        self._counted: set[str] = set()

    @property
    def uncertain(self) -> bool:
        """Whether a container ended early and nobody has said why yet."""
        return bool(self._stillborn)

    def ended_early(self, container: Container) -> None:
        """Note a container that a report shows no more before it was ever ready."""
        if container.container not in self._counted:
            self._stillborn[container.container] = container, self._replica.clock()

    def on_event(self, event: ContainerEvent) -> None:
        """Take in what a worker tells of a container's life."""
        fleet = self._replica.fleet
        stillborn, _ = self._stillborn.pop(event.container, (None, 0.0))
        known = stillborn or fleet.container(self._pool.id, event.container)
        if event.state == "started":
            fleet.started(event.container, event.worker)
        elif event.state == "failed" and not (known and known.was_ready):
            data = event.failure or failure.from_text("ExecutionError", event.reason or "it failed to start")
            self._failed(event.container, known, data, hopeless=event.final)
        if event.state != "started":
            fleet.forget(event.container, event.worker)

    def look(self) -> None:
        """Count what ended without a word; forget the failures once a later start succeeded."""
        now = self._replica.clock()
        for name, (container, when) in list(self._stillborn.items()):
            if now - when >= WAIT:
                del self._stillborn[name]
                data = failure.from_text("ExecutionError", "the container ended before it was ready")
                self._failed(name, container, data, hopeless=False)
        if self.failures.count and self._succeeded():
            self.failures = Failures()
            self._counted.clear()

    def _succeeded(self) -> bool:
        fleet, pool = self._replica.fleet, self._pool.id
        containers = (fleet.container(pool, view.container) for view in fleet.containers(pool))
        return any(one and one.was_ready and one.asked > self.failures.last for one in containers)

    def _failed(self, container: str, known: Container | None, data: bytes, *, hopeless: bool) -> None:
        if container in self._counted:
            return
        if len(self._counted) >= COUNTED:
            self._counted.clear()
        self._counted.add(container)
        now = self._replica.clock()
        self.failure, self.reason = endings.readable(data)
        self.failures = after_failure(self.failures, placed=known.asked if known else now, now=now)
        ready = sum(view.phase in READY for view in self._replica.fleet.containers(self._pool.id))
        if gives_up(self.failures, deployed=self._pool.deployed, ready=ready, hopeless=hopeless):
            self.doom = self.failure
        self._replica.log.warning(
            "container failed to start",
            pool=self._pool.id,
            container=container,
            in_a_row=self.failures.count,
            reason=self.reason,
        )
