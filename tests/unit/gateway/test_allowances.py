"""A limit is kept whatever gets lost and however many gateways there are; what it allows is let through."""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill._wire.limits import WORKSPACE, Grant, Limit, Want
from tidemill_common.token_bucket import Level
from tidemill_gateway.allowance import AWAY, IDLE, Allowance, Verdict
from tidemill_scheduler.leasing import Ledger

TICK = 0.005  # seconds


@dataclass
class World:
    """Gateways that ask one leader, which may be replaced, with answers that may get lost."""

    limit: Limit
    gateways: int
    now: float = 0.0
    answers: bool = True  # whether the leader can be asked
    loses: float = 0.0  # the share of answers that get lost
    admitted: int = 0
    refused: int = 0
    asked: int = 0
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.limit, Level.full(self.limit, 0.0))
        self.shares = [
            Allowance("k", WORKSPACE, f"gw{each}", self.limit, 0.0) for each in range(self.gateways)
        ]

    def request(self, gateway: int) -> bool:
        """Let one request come; return whether it is admitted."""
        share = self.shares[gateway]
        if share.look(self.now) is Verdict.ASK:
            share.waiting += 1
            self.ask(share)
            share.waiting -= 1
        if share.look(self.now) is Verdict.ADMIT:
            share.take(self.now)
            self.admitted += 1
            if share.is_asking(self.now):
                self.ask(share)
            return True
        self.refused += 1
        return False

    def ask(self, share: Allowance) -> None:
        self.asked += 1
        want = share.want(self.now)
        grant = self.ledger.lease(want, self.now) if self.answers else None
        if grant is None or self.chance.random() < self.loses:
            share.unanswered(self.now)
        else:
            share.granted(grant, self.now)

    def change_leader(self) -> None:
        """Have another go on with what the last one stored."""
        self.ledger = Ledger(self.limit, self.ledger.level)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for share in self.shares:
            share.give_back(self.now)
            if share.has_question(self.now):
                self.ask(share)


LIMITS = st.builds(Limit, st.floats(0.5, 5_000.0), st.floats(1.0, 2_000.0))
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["requests", "requests", "requests", "pass", "change"]),
        st.integers(0, 2),
        st.integers(1, 300),
        st.floats(0.001, 3.0),
    ),
    max_size=60,
)


@given(limit=LIMITS, steps=STEPS)
@settings(max_examples=60, deadline=None)
def test_no_more_is_admitted_than_there_was_and_than_came_in(
    limit: Limit, steps: list[tuple[str, int, int, float]]
) -> None:
    world = World(limit, gateways=3)
    for step, gateway, count, seconds in steps:
        if step == "requests":
            for _ in range(count):
                world.request(gateway)
        elif step == "pass":
            world.pass_time(seconds)
        else:
            world.change_leader()
        assert world.admitted <= limit.burst + limit.rate * world.now + 1e-6


@given(limit=LIMITS, steps=STEPS, loses=st.floats(0.0, 0.9))
@settings(max_examples=60, deadline=None)
def test_what_is_admitted_without_the_scheduler_is_owed_to_it(
    limit: Limit, steps: list[tuple[str, int, int, float]], loses: float
) -> None:
    """While it is away every gateway keeps the limit for itself, and no longer."""
    world = World(limit, gateways=3, loses=loses)
    for step, gateway, count, seconds in steps:
        world.answers = step != "change"
        for _ in range(count):
            world.request(gateway)
        if step == "pass":
            world.pass_time(seconds)
        assert world.admitted <= world.gateways * (limit.burst + limit.rate * world.now) + 1e-6


@pytest.mark.parametrize("limit", [Limit(200, 1000), Limit(5, 5), Limit(1000, 100), Limit(1, 1)])
@pytest.mark.parametrize("gateways", [1, 3])
def test_under_load_everything_that_a_limit_allows_is_let_through(gateways: int, limit: Limit) -> None:
    world = World(limit, gateways)
    burst = max(2, int(limit.rate * TICK * 3))
    while world.now < 3.0:
        for gateway in range(gateways):
            for _ in range(burst):
                world.request(gateway)
        world.pass_time(TICK)
    allowed = limit.burst + limit.rate * world.now
    assert allowed - limit.rate * 0.2 - 2 <= world.admitted <= allowed
    assert world.asked < gateways * (world.now / TICK + 60)  # refusals ask nobody


def test_a_steady_caller_rarely_waits_for_the_scheduler() -> None:
    world = World(Limit(200, 1_000), gateways=2)
    waited = 0
    for _ in range(1_000):
        waited += world.shares[0].look(world.now) is Verdict.ASK
        assert world.request(0)
        world.pass_time(1 / 150)
    assert waited <= 2
    assert world.asked < 200


def test_what_one_gateway_does_not_use_another_gets() -> None:
    limit = Limit(1, 100)
    world = World(limit, gateways=2)
    for _ in range(20):
        world.request(0)
    before = world.admitted
    world.pass_time(IDLE + 0.1)
    while world.request(1):
        pass
    assert before == 20
    assert world.admitted in (101, 102)  # all of the burst, and what came in since


def test_tokens_are_given_back_once_however_often_it_is_told() -> None:
    ledger = Ledger(Limit(1, 100), Level.full(Limit(1, 100), 0.0))
    granted = ledger.lease(Want("k", WORKSPACE, "gw", waiting=10), 0.0)
    assert granted == Grant(10, 90.0)
    for _ in range(3):
        ledger.lease(Want("k", WORKSPACE, "gw", returned=4), 0.0)
    assert ledger.level.tokens == 94
    ledger.lease(Want("k", WORKSPACE, "stranger", returned=50), 0.0)
    assert ledger.level.tokens == 94
    ledger.lease(Want("k", WORKSPACE, "gw", returned=1_000), 0.0)  # more than it ever took
    assert ledger.level.tokens == 100


def test_a_changed_limit_holds_for_what_is_there() -> None:
    ledger = Ledger(Limit(10, 100), Level.full(Limit(10, 100), 0.0))
    ledger.change(Limit(1, 5), 0.0)
    assert ledger.lease(Want("k", WORKSPACE, "gw", waiting=50), 0.0).tokens == 5


def test_a_scheduler_that_is_back_hears_what_was_taken_meanwhile() -> None:
    world = World(Limit(10, 100), gateways=1, answers=False)
    for _ in range(30):
        assert world.request(0)
    world.answers = True
    world.pass_time(AWAY + 0.01)
    world.request(0)
    came_in = 10 * (AWAY + 0.01)
    assert world.ledger.level.tokens <= 100 - 31 + came_in
    assert world.shares[0].look(world.now) is not Verdict.REFUSE
