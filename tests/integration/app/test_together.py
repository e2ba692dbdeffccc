"""Inputs that run side by side, and batches, on a whole stack."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import together_program as programs
from running_stacks import RunningStack
from waiting import wait_until

import tidemill
from tidemill import Client, Cls
from tidemill.exception import FunctionTimeoutError, RemoteError


@pytest.fixture(scope="module", autouse=True)
def running(stack: RunningStack) -> Iterator[Client]:
    """The app, while it runs for the tests of this module."""
    info = stack.info
    with (
        Client.from_credentials(info.token_id, info.token_secret, server_url=info.server_url) as client,
        programs.app.run(client=client),
    ):
        yield client


def test_inputs_of_different_calls_meet_in_one_container() -> None:
    calls = [programs.meets.spawn(x) for x in range(4)]
    results = [call.get(timeout=60) for call in calls]
    assert [x for x, _, _ in results] == [0, 1, 2, 3]
    assert len({pid for _, pid, _ in results}) == 1
    assert len({input_id for _, _, input_id in results}) == 4


def test_to_cancel_a_thread_ends_its_container_and_what_ran_beside_it_runs_again() -> None:
    stuck = programs.meets.spawn(-1)
    waiting = [programs.meets.spawn(x) for x in range(3)]
    stats = programs.meets.get_current_stats
    wait_until(lambda: stats().num_running_inputs == 4, what="for four inputs to run")
    stuck.cancel()
    with pytest.raises(RemoteError):
        stuck.get(timeout=60)
    last = programs.meets.spawn(3)
    results = [call.get(timeout=60) for call in (*waiting, last)]
    assert [x for x, _, _ in results] == [0, 1, 2, 3]


def test_an_async_input_that_runs_too_long_ends_alone() -> None:
    tasks = programs.Tasks().run
    pid = tasks.remote(1)[1]
    slow = tasks.spawn(-1)
    with pytest.raises(FunctionTimeoutError):
        slow.get(timeout=60)
    assert tasks.remote(2) == (2, pid)


def test_a_batch_is_of_several_calls() -> None:
    calls = [programs.full.spawn(x) for x in range(3)]
    assert [call.get(timeout=60) for call in calls] == [(0, 3), (1, 3), (2, 3)]


def test_a_batch_that_is_not_full_starts_when_its_first_input_has_waited() -> None:
    assert programs.partial.remote(1, y=2) == 4


def test_methods_of_every_kind_run_side_by_side_in_one_container() -> None:
    mixed: Any = programs.Mixed()
    calls = [each.spawn() for each in (mixed.waits, mixed.waits_async, mixed.yields, mixed.yields_async)]
    first, second, (third,), (fourth,) = (call.get(timeout=60) for call in calls)
    assert len({pid for pid, _ in (first, second, third, fourth)}) == 1
    assert len({input_id for _, input_id in (first, second, third, fourth)}) == 4


def test_options_concurrency_and_batches_are_given_in_any_combination() -> None:
    mixed: Any = programs.Mixed
    optional = mixed.with_options(env={"OPTION": "on"}, scaledown_window=2)
    assert optional.with_concurrency(max_inputs=2)(size="x").what.remote() == (2, "x", "on", "")
    again = optional.with_options(env={"OTHER": "also"}).with_options(timeout=30)
    assert again(size="y").what.remote() == (4, "y", "", "also")
    sizes: Any = programs.sizes
    batched = sizes.with_batching(max_batch_size=2, wait_ms=60_000).with_options(env={"OPTION": "on"})
    calls = [batched.spawn(x) for x in range(2)]
    assert [call.get(timeout=60) for call in calls] == [(2, "on")] * 2
    assert sizes.remote(1) == (1, "")
    batches: Any = programs.Batches
    calls = [batches.with_batching(max_batch_size=2, wait_ms=60_000)().sizes.spawn(x) for x in range(2)]
    assert [call.get(timeout=60) for call in calls] == [2, 2]


def test_a_container_says_how_much_it_takes() -> None:
    narrow: Any = programs.Mixed(size="narrow")  # type: ignore[operator]
    assert narrow.narrow.remote() == 1
    assert max(narrow.crowd.map(range(8))) == 1
    pids = [narrow.last.remote(), narrow.pid.remote()]
    assert pids[0] != pids[1]


def test_objects_of_one_set_of_parameters_are_kept_warm() -> None:
    kept: Any = programs.Mixed(size="kept")  # type: ignore[operator]
    assert kept.update_autoscaler(min_containers=1).min_containers == 1
    wait_until(lambda: kept.pid.get_current_stats().num_total_runners == 1, what="for a container")
    kept.update_autoscaler(min_containers=0, scaledown_window=2)
    wait_until(lambda: kept.pid.get_current_stats().num_total_runners == 0, what="for it to end")


def test_a_deployed_class_that_fails_to_start_is_tried_again_ever_later_and_says_why(
    running: Client, caplog: pytest.LogCaptureFixture
) -> None:
    app = tidemill.App("flaky-classes").include(programs.app)
    app.deploy(client=running)
    try:
        tried = Cls.from_name("flaky-classes", "Flaky", client=running)().works.remote()
    finally:
        app.stop(client=running)
    pauses = [later - earlier for earlier, later in itertools.pairwise(tried)]
    assert len(pauses) == 4
    assert all(pause >= 0.095 * 2**number for number, pause in enumerate(pauses))
    assert "RuntimeError: attempt" in caplog.text
