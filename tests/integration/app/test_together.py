"""Inputs that run side by side, and batches, on a whole stack."""

from collections.abc import Iterator

import pytest
import together_programs as programs
from running_stacks import RunningStack
from waiting import wait_until

from tidemill import Client
from tidemill.exception import FunctionTimeoutError, RemoteError


@pytest.fixture(scope="module", autouse=True)
def running(stack: RunningStack) -> Iterator[None]:
    """The app, while it runs for the tests of this module."""
    info = stack.info
    with (
        Client.from_credentials(info.token_id, info.token_secret, server_url=info.server_url) as client,
        programs.app.run(client=client),
    ):
        yield


def test_inputs_of_different_calls_meet_in_one_container() -> None:
    calls = [programs.meets.spawn(x) for x in range(4)]
    results = [call.get(timeout=30) for call in calls]
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
        stuck.get(timeout=20)
    last = programs.meets.spawn(3)
    results = [call.get(timeout=40) for call in (*waiting, last)]
    assert [x for x, _, _ in results] == [0, 1, 2, 3]


def test_an_async_input_that_runs_too_long_ends_alone() -> None:
    tasks = programs.Tasks().run
    pid = tasks.remote(1)[1]
    slow = tasks.spawn(-1)
    with pytest.raises(FunctionTimeoutError):
        slow.get(timeout=20)
    assert tasks.remote(2) == (2, pid)


def test_a_batch_is_of_several_calls() -> None:
    calls = [programs.full.spawn(x) for x in range(3)]
    assert [call.get(timeout=30) for call in calls] == [(0, 3), (1, 3), (2, 3)]


def test_a_batch_that_is_not_full_starts_when_its_first_input_has_waited() -> None:
    assert programs.partial.remote(1, y=2) == 4
