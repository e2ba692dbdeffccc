"""What an output means to the one who called."""

import pytest

from tidemill import exception
from tidemill._outcome import Failed, Outcome
from tidemill._wire import failure, payload
from tidemill._wire.messages import Format, Status


class Odd(Exception):
    """Has a constructor that pickle cannot call again."""

    def __init__(self, a: int, *, b: int) -> None:
        super().__init__(f"{a} and {b}")


def test_a_success_is_its_value() -> None:
    outcome = Outcome(Status.SUCCESS, *payload.encode({"a": (1, None)}))
    assert not outcome.failed
    assert outcome.read() == {"a": (1, None)}


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (Status.TIMEOUT, "FunctionTimeoutError", exception.FunctionTimeoutError),
        (Status.FAILURE, "InternalFailure", exception.InternalFailure),
        (Status.CANCELLED, "InputCancellation", exception.RemoteError),
        (Status.FAILURE, "Exotic", exception.RemoteError),
    ],
)
def test_each_kind_of_end_has_its_error(status: Status, kind: str, expected: type[exception.Error]) -> None:
    outcome = Outcome(status, Format.FAILURE, failure.from_text(kind, "so it was"))
    assert outcome.failed
    with pytest.raises(expected):
        outcome.read()


def test_an_exception_that_cannot_be_rebuilt_is_told_as_what_it_was() -> None:
    data = failure.from_exception(Odd(1, b=2))
    with pytest.raises(exception.ExecutionError, match="1 and 2"):
        Outcome(Status.FAILURE, Format.FAILURE, data).read()


def test_a_value_that_cannot_be_read_here_is_an_execution_error() -> None:
    data = b"\x80\x04\x8c\x07missing\x8c\x04gone\x93."  # a pickle that names missing.gone
    with pytest.raises(exception.ExecutionError, match="missing"):
        Outcome(Status.SUCCESS, Format.PICKLE, data).read()


def test_nothing_of_a_restricted_function_is_unpickled() -> None:
    plain = Outcome(Status.SUCCESS, *payload.encode([1]), restricted=True)
    assert plain.read() == [1]
    pickled = Outcome(Status.SUCCESS, Format.PICKLE, payload.pickle(Odd), restricted=True)
    with pytest.raises(exception.ExecutionError, match="restricted"):
        pickled.read()
    failed = Outcome(Status.FAILURE, Format.FAILURE, failure.from_exception(ValueError("x")), restricted=True)
    with pytest.raises(exception.RemoteError, match="ValueError: x"):
        failed.read()


def test_a_failure_that_is_none_is_told() -> None:
    with pytest.raises(exception.ExecutionError, match="cannot be read"):
        Outcome(Status.FAILURE, Format.FAILURE, b"\xc1").read()


def test_an_end_that_this_side_decided_on_raises_its_cause() -> None:
    end = Failed(exception.ClientClosed("closed"))
    assert end.failed
    with pytest.raises(exception.ClientClosed):
        end.read()
