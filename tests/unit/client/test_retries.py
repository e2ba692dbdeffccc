import declared
import pytest

from tidemill import App, Retries, retries
from tidemill._wire.specs import RetryPolicy
from tidemill.exception import InvalidError


def test_a_number_means_retries_one_second_apart() -> None:
    assert retries.read(3) == RetryPolicy(3, 1.0, 1.0, 60.0)


def test_nothing_means_no_retries() -> None:
    app = App("a")
    app.function()(declared.plain)
    assert app._declared["plain"][0].template.retries == RetryPolicy()


def test_a_policy_becomes_the_platforms_record() -> None:
    given = Retries(max_retries=5, backoff_coefficient=3, initial_delay=2, max_delay=10)
    assert retries.read(given) == RetryPolicy(5, 3.0, 2.0, 10.0)


def test_delays_grow_up_to_the_longest() -> None:
    policy = Retries(max_retries=9, initial_delay=2.0, backoff_coefficient=2.0, max_delay=10.0)
    assert [policy.delay(retry) for retry in (1, 2, 3, 4)] == [2.0, 4.0, 8.0, 10.0]


def test_no_retry_comes_within_a_second() -> None:
    policy = Retries(max_retries=9, initial_delay=0.0)
    assert policy.delay(1) == 1.0
    assert Retries(max_retries=9, initial_delay=0.1).delay(2) == 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_retries": -1},
        {"max_retries": 1.5},
        {"max_retries": True},
        {"max_retries": 1, "backoff_coefficient": 0.5},
        {"max_retries": 1, "backoff_coefficient": 10.5},
        {"max_retries": 1, "initial_delay": -1},
        {"max_retries": 1, "initial_delay": 61},
        {"max_retries": 1, "max_delay": 0.5},
        {"max_retries": 1, "max_delay": 61},
        {"max_retries": 1, "max_delay": float("nan")},
        {"max_retries": 1, "max_delay": "10"},
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidError):
        Retries(**wrong)


@pytest.mark.parametrize("wrong", ["3", 1.0, True, -1, object()])
def test_only_numbers_and_policies_are_retries(wrong: object) -> None:
    with pytest.raises(InvalidError):
        retries.read(wrong)


def test_the_first_argument_has_to_be_named() -> None:
    with pytest.raises(TypeError):
        Retries(3)
