"""What the autoscaler would do with an arrival trace: its decisions in a row, in virtual time.

    python -m tidemill_scheduler.simulation trace.csv --seconds 0.02 --min-containers 1

One worker, containers that start and work. The simulation knows only what the scheduler knows: bells, looks
at a queue, reports of containers. A trace has a line for each moment at which inputs arrive: seconds since
its beginning and, after a comma, how many (1 where nothing is said).
"""

import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import click

from tidemill._wire.specs import Autoscaling
from tidemill_scheduler.decisions import (
    COMING,
    READY,
    ContainerView,
    Failures,
    Look,
    Phase,
    Situation,
    Stretch,
    decide,
    follow,
)

CORES = 2
FREE_CORES = 1.0  # what caller, server and worker leave to functions that compute
STARTS_AT_ONCE = 8  # as a worker does with two cores
LOOK_EVERY = 0.02  # seconds, as in `scaling.py`


@dataclass(frozen=True, slots=True)
class Summary:
    """What a trace led to; times in seconds.

    `waiting` and `idle` add up over all inputs and all containers.
    """

    inputs: int
    waiting: float
    median_wait: float
    longest_wait: float
    containers_started: int
    most_containers: int
    busy: float
    idle: float


@dataclass
class Simulated:
    """One pool whose inputs take `seconds` each; a container starts in `start` on a core of its own."""

    seconds: float
    limits: Autoscaling = field(default_factory=Autoscaling)
    needs_cores: bool = False  # computes instead of sleeping
    slots: int = 16
    start: float = 0.012
    now: float = 0.0
    queue: deque[float] = field(default_factory=deque)
    views: dict[str, ContainerView] = field(default_factory=dict)
    completed: int = 0
    started: int = 0
    most: int = 0
    finished: float = 0.0
    busy: float = 0.0  # container-seconds
    idle: float = 0.0
    waits: list[float] = field(default_factory=list)
    ready_at: list[float] = field(default_factory=list)
    stopped_after: list[float] = field(default_factory=list)  # seconds that each one idled
    missing: list[int] = field(default_factory=list)  # at each start, inputs above the containers there are
    stretch: Stretch = field(default_factory=Stretch)
    _events: list[tuple[float, int, str, str]] = field(default_factory=list)
    _number: int = 0
    _looked: float = -1.0
    _look_due: float = float("inf")

    def arrive(self, at: float, count: int = 1) -> None:
        """Let inputs come at a time."""
        for _ in range(count):
            self._at(at, "arrive", "")

    def run(self, until: float) -> None:
        """Let time pass."""
        while self._events and self._events[0][0] <= until:
            when, _, kind, name = heapq.heappop(self._events)
            self._pass(when)
            getattr(self, f"_{kind}")(name)
        self._pass(until)

    def summary(self) -> Summary:
        """Return what has happened until now."""
        waits = sorted(self.waits)
        return Summary(
            inputs=len(waits),
            waiting=sum(waits),
            median_wait=waits[len(waits) // 2] if waits else 0.0,
            longest_wait=waits[-1] if waits else 0.0,
            containers_started=self.started,
            most_containers=self.most,
            busy=self.busy,
            idle=self.idle,
        )

    def _pass(self, when: float) -> None:
        phases = [view.phase for view in self.views.values()]
        self.busy += phases.count(Phase.BUSY) * (when - self.now)
        self.idle += phases.count(Phase.IDLE) * (when - self.now)
        self.now = when

    def _at(self, when: float, kind: str, name: str) -> None:
        self._number += 1
        heapq.heappush(self._events, (when, self._number, kind, name))

    def _bell(self) -> None:
        due = max(self.now, self._looked + LOOK_EVERY)
        if due < self._look_due:
            self._look_due = due
            self._at(due, "look", "")

    def _arrive(self, _: str) -> None:
        self.queue.append(self.now)
        self._work()
        self._bell()

    def _look(self, _: str) -> None:
        if self.now < self._look_due:
            return
        self._looked, self._look_due = self.now, float("inf")
        views = tuple(self.views.values())
        busy = sum(view.phase is Phase.BUSY for view in views)
        look = Look(
            self.now, len(self.queue) + busy, self.completed, sum(view.phase in READY for view in views)
        )
        self.stretch = follow(self.stretch, look)
        decision = decide(Situation(self.limits, views, look, self.stretch, Failures(), self.now))
        for name in decision.stop:
            self.stopped_after.append(self.now - self.views.pop(name).since)
        coming = sum(view.phase in COMING for view in views)
        room = min(STARTS_AT_ONCE - coming, self.slots - len(self.views))
        if decision.start:
            self.missing.append(look.backlog - len(views))
        for _n in range(max(0, min(decision.start, room))):
            self._place()
        if decision.again_in is not None:
            self._look_due = self.now + max(decision.again_in, 1e-6)
            self._at(self._look_due, "look", "")

    def _place(self) -> None:
        self.started += 1
        name = f"co-{self.started}"
        self.views[name] = ContainerView(name, Phase.STARTING, self.now)
        self.most = max(self.most, len(self.views))
        starting = sum(view.phase in COMING for view in self.views.values())
        self._at(self.now + self.start * max(1.0, starting / CORES), "ready", name)

    def _ready(self, name: str) -> None:
        took = self.now - self.views[name].since
        self.views[name] = ContainerView(name, Phase.IDLE, self.now, took=took)
        self.ready_at.append(self.now)
        self._work()
        self._bell()

    def _work(self) -> None:
        idle = [name for name, view in self.views.items() if view.phase is Phase.IDLE]
        for name in idle:
            if self.queue:
                self.waits.append(self.now - self.queue.popleft())
                self._enter(name, Phase.BUSY)
                self._at(self.now + self._takes(), "done", name)

    def _takes(self) -> float:
        busy = sum(view.phase is Phase.BUSY for view in self.views.values())
        return self.seconds * (max(1.0, busy / FREE_CORES) if self.needs_cores else 1.0)

    def _done(self, name: str) -> None:
        self.completed += 1
        self.finished = self.now
        self._enter(name, Phase.IDLE)
        self._work()

    def _enter(self, name: str, phase: Phase) -> None:
        self.views[name] = replace(self.views[name], phase=phase, since=self.now)


# --- the program


def read_trace(lines: Iterable[str]) -> list[tuple[float, int]]:
    """Return what a trace says: moments and numbers of inputs. `ValueError` names a line that is none."""
    trace = []
    for number, line in enumerate(lines, 1):
        if not (told := line.partition("#")[0].strip()):
            continue
        at, _, count = told.partition(",")
        try:
            trace.append((float(at), int(count or 1)))
        except ValueError:
            raise ValueError(f"line {number} is no moment and number of inputs: {told!r}") from None
    return trace


def replay(pool: Simulated, trace: Sequence[tuple[float, int]]) -> Summary:
    """Let a trace happen to a pool, until it has been idle for its window."""
    for at, count in trace:
        pool.arrive(at, count)
    last = max((at for at, _ in trace), default=0.0)
    while pool.completed < sum(count for _, count in trace):
        last += 1.0
        pool.run(until=last)
    pool.run(until=last + pool.limits.scaledown_window + 1.0)
    return pool.summary()


@click.command()
@click.argument("trace", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--seconds", type=float, required=True, help="That one input takes.")
@click.option("--start", type=float, default=0.012, show_default=True, help="Seconds to start a container.")
@click.option("--slots", type=click.IntRange(1), default=16, show_default=True, help="Containers that fit.")
@click.option("--min-containers", type=int, default=0)
@click.option("--max-containers", type=int)
@click.option("--buffer-containers", type=int, default=0)
@click.option("--scaledown-window", type=float, default=60.0, show_default=True)
def main(trace: Path, seconds: float, start: float, slots: int, **limits: float) -> None:
    """Tell how long inputs would wait, and containers idle, with these settings."""
    pool = Simulated(seconds, Autoscaling(**limits), slots=slots, start=start)  # type: ignore[arg-type]
    try:
        arrivals = read_trace(trace.read_text().splitlines())
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    for name, value in asdict(replay(pool, arrivals)).items():
        click.echo(f"{name:<20}{value:>12,.3f}" if isinstance(value, float) else f"{name:<20}{value:>12,}")


if __name__ == "__main__":
    main()
