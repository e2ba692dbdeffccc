"""What the worker decides, without a worker."""

import dataclasses
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill._wire.scheduling import Capacity
from tidemill._wire.specs import (
    Batching,
    Concurrency,
    FunctionSpec,
    Pool,
    Resources,
    RetryPolicy,
    Source,
    Web,
)
from tidemill_worker.decisions import (
    Appetite,
    Exit,
    Fate,
    Grant,
    Killed,
    Verdict,
    appetite,
    at_once,
    fit,
    gives_up,
    is_to_blame,
    retry_delay,
    shares,
    slots,
    splits,
    superfluous,
    verdict,
    wanted,
)


def pool(resources: Resources, capability: str = "cpu") -> Pool:
    spec = FunctionSpec("f", Source(), resources=resources)
    return Pool("po-1", "ap-1", "app", "fu-1", "main", "main", capability, 0, "INPUTS_cpu_0", "tm", spec)


FREE = Capacity(2.0, 1_000, {"H100": 2, "L4": 1})


@pytest.mark.parametrize(
    ("end", "fate", "said"),
    [
        (Exit(7), Fate.FAILED, "exited with status 7 during the input"),
        (Exit(0), Fate.FAILED, "exited with status 0 during the input"),
        (Exit(-signal.SIGSEGV), Fate.FAILED, "crashed (segmentation fault)"),
        (Exit(-signal.SIGTERM), Fate.FAILED, "was ended by signal SIGTERM"),
        (Exit(-signal.SIGKILL), Fate.LOST, ""),
        (Exit(None), Fate.LOST, ""),
        (Exit(-signal.SIGKILL, Killed.TIMEOUT), Fate.TIMED_OUT, ""),
        (Exit(-signal.SIGKILL, Killed.CANCEL), Fate.CANCELLED, ""),
        (Exit(-signal.SIGKILL, Killed.STOP), Fate.LOST, ""),
        (Exit(None, Killed.VIOLATION), Fate.FAILED, "broke the protocol"),
        (Exit(3, Killed.TIMEOUT), Fate.TIMED_OUT, ""),
        (Exit(None, Killed.EXCESS, "wrote 18 MiB"), Fate.FAILED, "the container wrote 18 MiB"),
    ],
)
def test_what_a_function_does_to_itself_is_its_failure_and_the_rest_is_not(
    end: Exit, fate: Fate, said: str
) -> None:
    found = verdict(end)
    assert found.fate is fate
    assert said in found.message


def test_every_reason_to_kill_has_a_fate() -> None:
    assert all(verdict(Exit(None, why)) for why in Killed)


def test_nobody_knows_which_of_several_inputs_crashed_a_container() -> None:
    assert is_to_blame(Verdict(Fate.FAILED), 1)
    assert not is_to_blame(Verdict(Fate.FAILED), 2)
    assert is_to_blame(Verdict(Fate.TIMED_OUT), 2)


def test_a_policy_without_retries_has_none() -> None:
    assert retry_delay(RetryPolicy(), 0) is None


def test_delays_grow_to_their_maximum_and_are_never_under_a_second() -> None:
    policy = RetryPolicy(max_retries=5, backoff_coefficient=3.0, initial_delay=0.5, max_delay=10.0)
    assert [retry_delay(policy, failures) for failures in range(6)] == [1.0, 1.5, 4.5, 10.0, 10.0, None]


def test_the_ninth_loss_in_a_row_is_the_last() -> None:
    assert [gives_up(losses) for losses in (0, 7, 8, 9)] == [False, False, True, True]


@pytest.mark.parametrize(
    ("seconds", "single_use", "expected"),
    [
        (None, False, Appetite(1, 1)),
        (1.0, False, Appetite(1, 1)),
        (0.01, False, Appetite(1, 2)),
        (0.0001, False, Appetite(2, 2)),
        (0.0001, True, Appetite(1, 1)),
    ],
)
def test_only_short_work_is_fetched_ahead(
    seconds: float | None, single_use: bool, expected: Appetite
) -> None:
    spec = FunctionSpec("f", Source(), single_use_containers=single_use)
    assert appetite(spec, seconds) == expected


def test_of_short_work_with_large_payloads_more_is_fetched_ahead() -> None:
    spec = FunctionSpec("f", Source())
    assert appetite(spec, 0.0001, 1 << 20) == Appetite(4, 8)
    assert appetite(spec, 0.01, 1 << 20) == Appetite(1, 2)
    assert appetite(dataclasses.replace(spec, web=Web("asgi")), 0.0001, 1 << 20) == Appetite(1, 2)


def test_what_runs_together_is_fetched_for_all_places() -> None:
    side_by_side = FunctionSpec("f", Source(), concurrency=Concurrency(8, 4))
    assert (appetite(side_by_side, 0.0001), slots(side_by_side)) == (Appetite(8, 8), 8)
    alone = dataclasses.replace(side_by_side, single_use_containers=True)
    assert (appetite(alone, 0.0001), slots(alone)) == (Appetite(1, 1), 1)
    batched = FunctionSpec("f", Source(), batching=Batching(5, 100))
    assert (appetite(batched, None), slots(batched)) == (Appetite(1, 10), 1)


def test_a_crash_that_any_of_several_inputs_may_have_caused_is_a_loss() -> None:
    assert verdict(Exit(-signal.SIGSEGV), 1).fate is Fate.FAILED
    assert verdict(Exit(-signal.SIGSEGV), 2).fate is Fate.LOST
    assert verdict(Exit(None, Killed.TIMEOUT), 2).fate is Fate.TIMED_OUT


def test_a_container_gets_no_more_requests_than_it_may_answer_at_once() -> None:
    web = FunctionSpec("f", Source(), web=Web("asgi"))
    assert appetite(web, 0.0001) == Appetite(1, 2)
    many = FunctionSpec("f", Source(), web=Web("asgi"), concurrency=Concurrency(8, 8))
    assert appetite(many, 0.0001) == Appetite(8, 8)


def test_no_more_is_pulled_than_there_is_room_for() -> None:
    assert wanted(Appetite(1, 1), 4, 1) == 3
    assert wanted(Appetite(2, 2), 4, 1) == 7
    assert wanted(Appetite(1, 1), 1, 5) == 0
    assert wanted(Appetite(2, 2), 0, 0) == 0


def test_work_is_taken_back_only_when_it_would_wait_for_long() -> None:
    assert not splits(0, 10.0, 10.0)
    assert not splits(64, 0.00001, 0.0)
    assert splits(2, 0.01, 0.0)
    assert splits(64, 0.00001, 0.5)
    assert not splits(3, None, 0.0)


def test_idle_containers_can_begin_with_what_runs_in_them_at_once() -> None:
    plain = FunctionSpec("f", Source())
    assert at_once(plain, 3) == 3
    assert at_once(dataclasses.replace(plain, concurrency=Concurrency(10, 8)), 2) == 20
    assert at_once(dataclasses.replace(plain, batching=Batching(4, 100)), 2) == 8
    assert at_once(plain, 0) == 0


@given(st.integers(1, 500), st.integers(0, 50))
def test_shares_are_even_and_leave_nothing_out(count: int, takers: int) -> None:
    found = shares(count, takers)
    assert [index for share in found for index in range(count)[share]] == list(range(count))
    sizes = [share.stop - share.start for share in found]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1
    assert len(found) == max(1, min(count, takers))


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (Resources(cpu=2.0, memory=1_000), Grant()),
        (Resources(cpu=3.0), "it asks for 3 cores, there are 2"),
        (Resources(memory=1_001), "it asks for 1001 MiB, 1000 are free"),
        (Resources(gpus=(("H100", 2),)), Grant("H100", 2)),
        (Resources(gpus=(("H100", 3), ("L4", 1))), Grant("L4", 1)),
        (Resources(gpus=(("any", 1),)), Grant("L4", 1)),
        (Resources(gpus=(("A100", 1),)), "no A100 is free"),
    ],
)
def test_a_container_gets_what_it_asks_for_or_is_refused_with_the_reason(
    resources: Resources, expected: Grant | str
) -> None:
    assert fit(pool(resources), FREE, FREE, overcommit=False) == expected


def test_a_capability_without_a_list_asks_for_one_gpu_of_each_kind_it_names() -> None:
    asked = pool(Resources(), "gpu-A100+gpu-L4")
    assert fit(asked, FREE, FREE, overcommit=False) == Grant("L4", 1)


def test_only_cores_can_be_promised_twice() -> None:
    full = Capacity(0.0, 1_000)
    total = Capacity(2.0, 2_000)
    assert fit(pool(Resources(cpu=1.0)), full, total, overcommit=True) == Grant()
    assert isinstance(fit(pool(Resources(cpu=1.0, memory=1_500)), full, total, overcommit=True), str)
    assert isinstance(fit(pool(Resources(cpu=3.0)), full, total, overcommit=True), str)


def test_templates_end_when_nobody_uses_them_and_the_least_used_when_they_are_too_many_or_too_large() -> None:
    one = {"new": (1000.0, 30), "older": (900.0, 30), "oldest": (800.0, 30)}
    assert superfluous(one, 1000.0, most=9, memory=100) == []
    assert superfluous(one, 1000.0, most=2, memory=100) == ["oldest"]
    assert superfluous(one, 1000.0, most=9, memory=60) == ["oldest"]
    assert superfluous(one, 1000.0, most=9, memory=10) == ["older", "oldest"], "the newest stays"
    assert superfluous(one, 1550.0, most=9, memory=100) == ["older", "oldest"]
    assert superfluous(one, 1601.0, most=9, memory=100) == ["new", "older", "oldest"]
    assert superfluous({}, 0.0, most=9) == []
