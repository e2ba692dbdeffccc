"""How often requests may come: limits as the registry tells them, tokens as the scheduler leases them.

A request is decided here and now from what was leased ahead. Only one that finds nothing leased waits for
the scheduler, which is asked about all limits in one question at a time.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from tidemill._bus.protocol import BusError
from tidemill._wire import coding, ids, limits, subjects
from tidemill._wire.limits import (
    APP,
    DEFAULT,
    TOKEN,
    WORKSPACE,
    LeaseTokens,
    Limit,
    LimitRecord,
    TokensLeased,
    Want,
)
from tidemill_common import streams
from tidemill_common.bus.protocol import ServiceBus
from tidemill_common.logging import Logger
from tidemill_gateway.allowance import Allowance, Verdict

LEASE_TIMEOUT = 0.5  # seconds that a request waits for the scheduler at most, a few times over
ROUNDS = 4  # answers of the scheduler that a request waits for
MAX_WAITING = 4_096  # requests for the tokens of one limit
MAX_KEYS = 100_000  # names of limits whose keys are remembered
SWEEP = 0.5  # seconds between looks for tokens that are not used


@dataclass(frozen=True, slots=True)
class Origin:
    """What a request is counted under: its workspace, the app it asks and the token it comes with."""

    workspace: str
    environment: str = ""
    app: str = ""
    token: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that comes too soon: under which limit, and in how many seconds another may."""

    kind: str
    limit: Limit
    wait: float


class RateLimits:
    """The limits of all workspaces, and this gateway's share of their tokens."""

    def __init__(
        self, bus: ServiceBus, log: Logger, clock: Callable[[], float] = time.monotonic, name: str = ""
    ) -> None:
        self._bus = bus
        self._log = log
        self._clock = clock
        self._name = name or ids.new(ids.GATEWAY)
        self._limits: dict[str, Limit] = {}
        self._keys: dict[tuple[str, ...], str] = {}
        self._allowances: dict[str, Allowance] = {}
        self._of: dict[Origin, list[Allowance]] = {}  # as long as no limit changes, and none is forgotten
        self._to_ask: dict[str, Allowance] = {}
        self._bell = asyncio.Event()
        self._answered = asyncio.Event()  # replaced at every answer
        self._away = False
        self._refusing_until = float("-inf")

    # --- requests

    async def admit(self, origin: Origin) -> Refusal | None:
        """Take the tokens of a request, or return why there are none."""
        decided = self.decide(origin)
        if not isinstance(decided, list):
            return decided
        for allowance in decided:
            allowance.waiting += 1
        try:
            return await self._wait(origin, decided)
        finally:
            for allowance in decided:
                allowance.waiting -= 1

    def decide(self, origin: Origin) -> Refusal | list[Allowance] | None:
        """Decide about a request now if that is possible, else return what the scheduler must be asked."""
        now = self._clock()
        allowances = self._allowances_of(origin, now)
        if (refused := self._refused(allowances, now)) is not None:
            return refused
        if undecided := [each for each in allowances if each.look(now) is Verdict.ASK]:
            return undecided
        for allowance in allowances:
            allowance.take(now)
            if allowance.is_asking(now):
                self._ask_about(allowance)
        return None

    @property
    def is_refusing(self) -> bool:
        """Whether a request was refused whose limit may still refuse others."""
        return self._clock() < self._refusing_until

    def refusal(self, origin: Origin) -> Refusal | None:
        """Return why a request is refused, where that is known now; nothing is taken for it."""
        now = self._clock()
        return self._refused(self._allowances_of(origin, now), now)

    def _refused(self, allowances: Sequence[Allowance], now: float) -> Refusal | None:
        for allowance in allowances:
            if allowance.waiting >= MAX_WAITING or allowance.look(now) is Verdict.REFUSE:
                if allowance.has_question(now):
                    self._ask_about(allowance)
                wait = allowance.wait(now)
                self._refusing_until = max(self._refusing_until, now + wait)
                return Refusal(allowance.kind, allowance.limit, wait)
        return None

    async def _wait(self, origin: Origin, undecided: list[Allowance]) -> Refusal | None:
        for _ in range(ROUNDS):
            answered = self._answered
            for allowance in undecided:
                self._ask_about(allowance)
            await answered.wait()
            decided = self.decide(origin)
            if not isinstance(decided, list):
                return decided
            undecided = decided
        first = undecided[0]
        return Refusal(first.kind, first.limit, first.wait(self._clock()))

    def _allowances_of(self, origin: Origin, now: float) -> list[Allowance]:
        found = self._of.get(origin)
        if found is None:
            if len(self._of) > MAX_KEYS:
                self._of.clear()
            found = self._of[origin] = self._find_allowances(origin, now)
        return found

    def _find_allowances(self, origin: Origin, now: float) -> list[Allowance]:
        wanted = [(WORKSPACE, "", "")]
        if origin.app:
            wanted.append((APP, origin.environment, origin.app))
        if origin.token:
            wanted.append((TOKEN, "", origin.token))
        found = []
        for kind, environment, name in wanted:
            limit = self.limit_of(origin.workspace, kind, environment, name)
            if limit is not None:
                key = self._key(origin.workspace, kind, environment, name)
                found.append(self._allowance(key, kind, limit, now))
        return found

    def limit_of(self, workspace: str, kind: str, environment: str = "", name: str = "") -> Limit | None:
        """Return the limit that holds, None where there is none."""
        found = self._limits.get(self._key(workspace, kind, environment, name))
        return DEFAULT if found is None and kind == WORKSPACE else found

    def _key(self, *named: str) -> str:
        key = self._keys.get(named)
        if key is None:
            if len(self._keys) > MAX_KEYS:
                self._keys.clear()
            key = self._keys[named] = limits.key(*named)
        return key

    def _allowance(self, key: str, kind: str, limit: Limit, now: float) -> Allowance:
        allowance = self._allowances.get(key)
        if allowance is None:
            allowance = self._allowances[key] = Allowance(key, kind, self._name, limit, now)
        allowance.limit = limit
        return allowance

    # --- the scheduler

    def _ask_about(self, allowance: Allowance) -> None:
        self._to_ask[allowance.key] = allowance
        self._bell.set()

    async def run(self) -> None:
        """Follow the limits, ask the scheduler and give back what is not used, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(), name="limits")
            tasks.create_task(self._ask(), name="lease tokens")
            tasks.create_task(self._sweep(), name="give tokens back")

    async def _follow(self) -> None:
        async for key, value in self._bus.bucket(streams.LIMITS).watch():
            self._of.clear()
            try:
                if value is not None:
                    self._limits[key] = coding.decode(LimitRecord, value).limit
                else:
                    self._limits.pop(key, None)
            except ValueError as error:
                self._log.error("a limit's record cannot be read", key=key, error=str(error))

    async def _ask(self) -> None:
        while True:
            await self._bell.wait()
            self._bell.clear()
            found, self._to_ask = self._to_ask.values(), {}
            now = self._clock()
            # What was leased since it was put down may be enough by now.
            if asked := [allowance for allowance in found if allowance.has_question(now)]:
                await self._ask_once(asked)
            answered, self._answered = self._answered, asyncio.Event()
            answered.set()

    async def _ask_once(self, asked: Sequence[Allowance]) -> None:
        now = self._clock()
        try:
            leased = await self._lease([allowance.want(now) for allowance in asked])
        except (BusError, msgspec.DecodeError, TimeoutError) as error:
            self._tell_away(error)
            now = self._clock()
            for allowance in asked:
                allowance.unanswered(now)
            return
        self._tell_away(None)
        now = self._clock()
        for allowance, grant in zip(asked, leased.grants, strict=True):
            allowance.granted(grant, now)

    @property
    def is_alone(self) -> bool:
        """Whether the scheduler did not answer when it was asked last."""
        return self._away

    async def _lease(self, wants: Sequence[Want]) -> TokensLeased:
        subject = subjects.internal("scheduler", "lease_tokens")
        message = coding.encode(LeaseTokens(tuple(wants)))
        async with asyncio.timeout(LEASE_TIMEOUT):
            data = await self._bus.request(subject, message, timeout=LEASE_TIMEOUT)
        return msgspec.msgpack.decode(data, type=TokensLeased)

    def _tell_away(self, error: Exception | None) -> None:
        if error is not None and not self._away:
            why = str(error) or type(error).__name__
            self._log.warning("the scheduler leases no tokens: limits are kept by this gateway", error=why)
        self._away = error is not None

    # --- what is not used

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            now = self._clock()
            for key, allowance in [*self._allowances.items()]:
                allowance.give_back(now)
                if allowance.has_question(now):
                    self._ask_about(allowance)
                elif allowance.is_forgotten(now):
                    del self._allowances[key]
                    self._of.clear()

    async def close(self) -> None:
        """Give everything back."""
        now = self._clock()
        for allowance in self._allowances.values():
            allowance.give_back(now, idle=0.0)
        if left := [each for each in self._allowances.values() if each.owes()]:
            await self._ask_once(left)
