"""One pool's loop: look at its consumer, decide, act, wait for a bell.

    demand, report, event, time ──> bell ──> look ──> decide ──> place / stop / tell

The loop is the only one that decides about its pool, so that nothing is started twice. From a bell to
the order to a worker it polls nothing: one question to the consumer lies between.
"""

import asyncio
from typing import Protocol

from tidemill._bus.protocol import BusError
from tidemill._wire import coding, subjects
from tidemill._wire.control import Trouble
from tidemill._wire.messages import Status
from tidemill._wire.scheduling import ContainerEvent, PoolStatus
from tidemill._wire.specs import Pool
from tidemill_common import streams
from tidemill_common.bus.protocol import ConsumerState
from tidemill_scheduler import endings, rollouts
from tidemill_scheduler.decisions import (
    COMING,
    READY,
    Decision,
    Look,
    Situation,
    Stretch,
    decide,
    follow,
)
from tidemill_scheduler.placements import Placer
from tidemill_scheduler.placing import Order, choose, explain, reclaim, unfit
from tidemill_scheduler.queues import Backlog
from tidemill_scheduler.replica import Replica
from tidemill_scheduler.starts import WAIT, Starts
from tidemill_scheduler.warming import Warm, joined, raised
from tidemill_scheduler.workers import Container, Spare

LOOK_EVERY = 0.02  # seconds between two looks at a consumer, however many bells ring
LOOK_EVERY_ASLEEP = 0.002  # the same where nothing runs and nothing was seen to wait
LOOK_EVERY_SERVED = 0.05  # the same where nothing more could be started, or nothing more is needed
EXPECT = (0.002, 0.005, 0.01, 0.02, 0.05)  # looks again when a bell of demand was ahead of its input
PLACE_AT_ONCE = 64  # containers placed by one decision
TELL_AFTER = 0.5  # seconds before callers hear that no worker fits: one may just be starting
TELL_EVERY = 1.0
FULL_PAUSE = 0.25  # seconds to the next look when no worker took anything; a report rings before
FIRST_ERROR_PAUSE, ERROR_PAUSE = 0.2, 1.0
MORE_THAN_TIMEOUT = 10.0  # seconds on top of it for an input of a container that makes way
ROOM_EVERY = 1.0  # seconds for containers that make room to end, before others are told to
LEAVING = 2.0  # seconds for callers and gateways to hear that another version serves
LINGER, LINGER_FAILED = 10.0, 120.0  # seconds for which a loop without work goes on


class Peers(Protocol):
    """What a pool's loop may ask of the others."""

    def spare(self, pool: str) -> dict[str, Spare]:
        """Return what each other pool could do without."""

    def ended(self, scaler: "Scaler") -> None:
        """Forget a loop that has ended."""


class Scaler:
    """The loop of one pool, under one term."""

    def __init__(self, replica: Replica, placer: Placer, peers: Peers, pool: Pool) -> None:
        self.pool = pool
        self.wants_room = False  # it would start more than the workers can take now
        self.task: asyncio.Task[None] | None = None  # its run, owned by the leader
        self._replica = replica
        self._placer = placer
        self._peers = peers
        self._clock = replica.clock
        self._bell = asyncio.Event()
        self._room_rang = False
        self._demanded: float | None = None
        self._expecting = len(EXPECT)
        self._has_consumer = False
        self._look = Look(float("-inf"), 0, 0, 0)
        self._waiting = 0  # messages that are not finished
        self._stretch = Stretch()
        self._desired = 0
        self._starts = Starts(replica, pool)
        self._room_made = float("-inf")
        self._error = ""
        self._unfit_since: float | None = None
        self._told = float("-inf")
        self._trouble = ""
        self._warm: Warm | None = None  # what is to be there before anybody calls
        self._left = self._clock() if pool.superseded else float("-inf")  # when another version took over

    # --- bells

    def ring(self, *, demand: bool = False, room: bool = False) -> None:
        """Wake the loop: `demand` when a caller said that there is work, `room` when a worker has some."""
        if demand:
            self._demanded = self._demanded or self._clock()
            self._expecting = 0
        self._room_rang = self._room_rang or room
        self._bell.set()

    def ended_early(self, container: Container) -> None:
        """Note a container that a report shows no more before it was ever ready."""
        self._starts.ended_early(container)
        self._bell.set()

    def on_event(self, event: ContainerEvent) -> None:
        """Take in what a worker tells of a container's life."""
        self._starts.on_event(event)
        self.ring(room=event.state == "started")

    def warm(self, count: int, seconds: float) -> Warm:
        """Keep so many containers for a while, whether anybody calls or not."""
        self._warm = joined(self._warm, Warm(count, self._clock() + seconds))
        self._bell.set()
        return self._warm

    # --- the loop

    async def run(self) -> None:
        """Serve the pool until it has had no work and no containers for a while."""
        while True:
            self._bell.clear()
            self._room_rang = False
            try:
                again_in = await self._step()
                self._error = ""
            except BusError as error:
                again_in = self._complain(error)
            except Exception:
                # One pool's defect must not end the loops of the others.
                self._replica.log.exception("a decision failed", pool=self.pool.id)
                again_in = TELL_EVERY
            if again_in is None and await self._is_over():
                self._peers.ended(self)
                return
            await self._rest(again_in)

    def _complain(self, error: BusError) -> float:
        """Tell an error once, and return when to try again."""
        if str(error) == self._error:
            return ERROR_PAUSE
        self._error = str(error)
        self._replica.log.warning("a pool waits for the bus", pool=self.pool.id, error=self._error)
        return FIRST_ERROR_PAUSE

    async def _is_over(self) -> bool:
        linger = LINGER_FAILED if self._starts.failures.count else LINGER
        try:
            async with asyncio.timeout(linger):
                await self._bell.wait()
        except TimeoutError:
            # Without an await in between: a bell that rings from here on finds no loop and makes one.
            return not self._bell.is_set() and not self._replica.fleet.containers(self.pool.id)
        return False

    async def _rest(self, again_in: float | None) -> None:
        """Wait for a bell or the time, but let bells that follow each other quickly be one."""
        if again_in is not None:
            try:
                async with asyncio.timeout(again_in):
                    await self._bell.wait()
            except TimeoutError:
                return
        pause = self._look.at + self._look_every() - self._clock()
        if pause > 0:
            await asyncio.sleep(pause)

    def _look_every(self) -> float:
        """Return the least seconds between two looks at the consumer, however many bells ring."""
        served = self._look.ready and not self._look.excess
        if served or (self.wants_room and not self._room_rang):
            return LOOK_EVERY_SERVED
        return LOOK_EVERY if self._look.excess else LOOK_EVERY_ASLEEP

    async def _step(self) -> float | None:
        """Look, decide and act; return the seconds to the next look, None when there is nothing to do."""
        if self._starts.doom is not None:
            await self._give_up(self._starts.doom)
        self._starts.look()
        situation = await self._situation()
        rollout = rollouts.Rollout.of(self.pool, held=self._is_held())
        plan = rollouts.plan(situation, decide(situation), rollout)
        decision = plan.decision
        self._desired = decision.desired
        if decision.stop:
            await self._placer.stop(decision.stop, "idle")
        await self._make_way(plan)
        again_in = decision.again_in
        self.wants_room = self.wants_room and bool(decision.start)
        if self._starts.uncertain:
            again_in = WAIT  # first learn why, or that it was a failure
        elif decision.start and not await self._start(situation, decision):
            again_in = max(again_in or 0.0, FULL_PAUSE)
        expect = self._expect(situation)
        if expect is None or decision.start:
            self._demanded = None
        again = [again_in, expect, self._tell(situation, decision), self._look_after_warm(situation)]
        if (left := self._left + LEAVING - self._clock()) > 0:
            again.append(left)
        return min((one for one in again if one is not None), default=None)

    async def _situation(self) -> Situation:
        state = await self._consumer()
        now = self._clock()
        containers = self._replica.fleet.containers(self.pool.id)
        ready = sum(view.phase in READY for view in containers)
        waiting, done = state.pending + state.ack_pending, state.delivered - state.ack_pending
        self._waiting = waiting
        each = self.pool.spec.together
        self._look = Look(now, -(-waiting // each), done // each, ready)
        self._stretch = follow(self._stretch, self._look)
        limits = rollouts.limits(self.pool)
        return Situation(
            limits if self._warm is None else raised(limits, self._warm.count),
            containers,
            self._look,
            self._stretch,
            self._starts.failures,
            now,
            single_use=self.pool.spec.single_use_containers,
            is_full=self.wants_room,
        )

    def _look_after_warm(self, situation: Situation) -> float | None:
        """Say when what was wanted ahead is there, or cannot be; return when it is no longer wanted."""
        warm = self._warm
        if warm is None:
            return None
        wanted = raised(situation.limits, warm.count).min_containers  # asked for since it was looked, perhaps
        if situation.count(READY) >= wanted or self._starts.failures.count or self.wants_room:
            warm.done.set()
        if warm.until <= situation.now:
            self._warm = None
            return 0.0
        return warm.until - situation.now

    async def _consumer(self) -> ConsumerState:
        """Return the state of the pool's consumer, made again if it went away meanwhile."""
        spec = streams.pool_consumer(self.pool)
        if self._has_consumer:
            if state := await self._replica.bus.consumer_state(spec.stream, spec.name):
                return state
            self._replica.metrics.repairs.labels("consumer").inc()
        state = await self._replica.bus.ensure_consumer(spec)
        self._has_consumer = True
        return state

    def _expect(self, situation: Situation) -> float | None:
        """Return when to look again because demand was heard and nothing is there yet."""
        if situation.look.backlog or situation.look.ready or self._expecting >= len(EXPECT):
            return None
        self._expecting += 1
        return EXPECT[self._expecting - 1]

    # --- acting

    async def _start(self, situation: Situation, decision: Decision) -> int:
        """Place what was decided as far as it fits; return how many containers were accepted."""
        first = bool(situation.look.backlog) and not situation.count(READY | COMING)
        directory, fleet = self._replica.directory, self._replica.fleet
        order = Order(self.pool, directory.image(self.pool.id), min(decision.start, PLACE_AT_ONCE), first)
        choice = choose(order, fleet.views(directory.image))
        if self._demanded is not None and choice.assignments:
            self._replica.metrics.placing.observe(self._clock() - self._demanded)
        placed = await asyncio.gather(*(self._placer.place(order, one) for one in choice.assignments))
        if any(placed):
            self._replica.log.info(
                "containers placed",
                pool=self.pool.id,
                accepted=sum(placed),
                wanted=decision.start,
                ready=situation.look.ready,
                backlog=situation.look.backlog,
            )
        short = choice.without_room + placed.count(False)
        self.wants_room = sum(placed) < decision.start
        if short and situation.look.backlog:
            await self._make_room(short)
        return sum(placed)

    async def _make_room(self, short: int) -> None:
        """Stop containers that idle in other pools; the report that they ended rings this pool."""
        if self._clock() - self._room_made < ROOM_EVERY:
            return
        fleet, directory = self._replica.fleet, self._replica.directory
        idle = fleet.idle(self._peers.spare(self.pool.id))
        if chosen := reclaim(self.pool, short, fleet.views(directory.image), idle):
            self._room_made = self._clock()
            await self._placer.stop(tuple(chosen), "room")

    def _is_held(self) -> bool:
        """Return whether idle containers stay although another pool took this one's place.

        They do while that one is short of its minimum, and for a moment in which not everybody who calls
        has heard of it.
        """
        if not self.pool.superseded:
            return False
        successor = self._replica.directory.serving(self.pool.function_id)
        if successor is None:
            return False
        is_short = self._replica.fleet.ready(successor.id) < successor.minimum
        return is_short or self._clock() < self._left + LEAVING

    async def _make_way(self, plan: rollouts.Plan) -> None:
        """Stop what is out of date; what is interrupted runs again at once, in a container of this pool."""
        if plan.kill:
            await self._placer.stop(plan.kill, "replaced", graceful=False)
        if plan.drain:
            finish = self.pool.spec.timeout + MORE_THAN_TIMEOUT
            await self._placer.stop(plan.drain, "replaced", finish=finish)

    # --- trouble

    def _tell(self, situation: Situation, decision: Decision) -> float | None:
        """Tell the callers what keeps their inputs waiting; return when to look again, if anything does."""
        trouble = self._what_is_wrong(situation, decision)
        self._trouble = trouble.message if trouble else ""
        if trouble is None:
            self._unfit_since = None
            return None
        now = self._clock()
        since = self._unfit_since = self._unfit_since or now
        due = max(since + TELL_AFTER, self._told + TELL_EVERY)
        if now < due:
            return due - now
        self._told = now
        self._replica.bus.publish(subjects.trouble(self.pool.workspace, self.pool.id), coding.encode(trouble))
        return TELL_EVERY

    def _what_is_wrong(self, situation: Situation, decision: Decision) -> Trouble | None:
        if not situation.look.backlog or situation.look.ready:
            return None
        if self._starts.failures.count and self.pool.deployed:
            message = f"its containers fail to start: {self._starts.reason}"
            return Trouble(self.pool.id, message, "they are tried again", failure=self._starts.failure)
        views = self._replica.fleet.views(self._replica.directory.image)
        if decision.start and all(view.draining or unfit(self.pool, view) for view in views):
            return Trouble(self.pool.id, *explain(self.pool, views))
        return None

    async def _give_up(self, data: bytes) -> None:
        """Fail what waits: the callers at once, and the inputs themselves for whoever asks later."""
        message = f"its containers fail to start: {self._starts.reason}"
        trouble = Trouble(self.pool.id, message, final=True, failure=data)
        self._replica.bus.publish(subjects.trouble(self.pool.workspace, self.pool.id), coding.encode(trouble))
        count = await endings.end_pool(self._replica, self.pool, endings.Ending(Status.FAILURE, data))
        self._starts.doom = None
        self._replica.log.error("pool given up", pool=self.pool.id, messages=count, reason=message)

    # --- what others may know

    @property
    def backlog(self) -> Backlog:
        """Return what waited or ran when the consumer was looked at last."""
        return Backlog(self.pool.workspace, self.pool.id, self._look.backlog)

    @property
    def spare(self) -> Spare:
        """Return how many of the pool's containers exceed what it needs now."""
        containers = self._replica.fleet.containers(self.pool.id)
        live = sum(view.phase in READY | COMING for view in containers)
        count = max(0, live - max(rollouts.limits(self.pool).min_containers, self._look.backlog))
        return Spare(count, self.pool.spec.resources)

    def update(self, pool: Pool) -> None:
        """Take a new record of the pool."""
        if pool.superseded and not self.pool.superseded:
            self._left = self._clock()
        self.pool = pool
        self._bell.set()

    def status(self) -> PoolStatus:
        """Return what `tidemill status` shows of the pool."""
        containers = self._replica.fleet.containers(self.pool.id)
        return PoolStatus(
            self.pool.id,
            self.pool.app_name,
            self.pool.spec.name,
            self._desired,
            sum(view.phase in READY for view in containers),
            sum(view.phase in COMING for view in containers),
            self._waiting,
            self._trouble,
        )
