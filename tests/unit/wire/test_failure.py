"""What `tidemill._wire.failure` promises: the caller sees the same error and where it came from."""

import threading
import traceback

import msgpack
import pytest

from tidemill import exception
from tidemill._wire import failure


class CustomError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return CustomError, (self.code,)


class UnreadableError(Exception):
    """Pickles, but cannot be read back: its constructor wants two arguments."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} {two}")


def raised(error: BaseException) -> BaseException:
    def inner() -> None:
        raise error

    try:
        inner()
    except BaseException as caught:
        return caught
    raise AssertionError


def round_trip(error: BaseException, **options: object) -> BaseException:
    return failure.to_exception(failure.from_exception(raised(error), **options))  # type: ignore[arg-type]


def test_the_same_type_comes_back_with_its_fields() -> None:
    back = round_trip(CustomError(7))
    assert isinstance(back, CustomError)
    assert back.code == 7
    assert str(back) == "code 7"


@pytest.mark.parametrize("error", [SystemExit(3), exception.FunctionTimeoutError("late"), KeyError("k")])
def test_base_exceptions_and_our_own_come_back(error: BaseException) -> None:
    back = round_trip(error)
    assert type(back) is type(error)
    assert back.args == error.args


def test_remote_frames_and_source_lines_are_in_the_traceback() -> None:
    back = round_trip(ValueError("no"), place="co-1")
    text = "".join(traceback.format_exception(back))
    assert "in inner" in text
    assert "raise error" in text
    assert "<co-1>:" in text


def test_hidden_frames_are_left_out() -> None:
    back = round_trip(ValueError("no"), hide=(__file__,))
    assert back.__traceback__ is None


def test_a_cause_comes_along() -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError as cause:
            raise ValueError("second") from cause
    except ValueError as error:
        back = failure.to_exception(failure.from_exception(error))
    assert isinstance(back.__cause__, KeyError)


def test_notes_come_along_once() -> None:
    error = ValueError("no")
    error.add_note("look here")
    assert round_trip(error).__notes__ == ["look here"]


def test_an_exception_whose_attributes_cannot_be_pickled_keeps_its_type() -> None:
    error = ValueError("held")
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    back = round_trip(error)
    assert type(back) is ValueError
    assert str(back) == "held"


def test_what_cannot_be_pickled_becomes_a_remote_error_that_names_it() -> None:
    back = round_trip(ValueError(threading.Lock()))
    assert isinstance(back, exception.RemoteError)
    assert str(back).startswith("ValueError: <unlocked _thread.lock object")


def raised_group(*parts: BaseException) -> BaseException:
    return raised(ExceptionGroup("several", [raised(part) for part in parts]))  # type: ignore[type-var]


def test_a_group_keeps_its_parts_and_where_they_were_raised() -> None:
    inner = raised_group(KeyError("two"))
    back = round_trip(raised_group(ValueError("one"), inner))
    assert isinstance(back, ExceptionGroup)
    assert back.message == "several"
    first, nested = back.exceptions
    assert (type(first), str(first)) == (ValueError, "one")
    assert isinstance(nested, ExceptionGroup)
    assert "in inner" in "".join(traceback.format_exception(first))
    assert "in inner" in "".join(traceback.format_exception(nested.exceptions[0]))


def test_one_part_that_cannot_be_pickled_does_not_spoil_its_group() -> None:
    back = round_trip(raised_group(ValueError(threading.Lock()), KeyError("fine")))
    assert isinstance(back, ExceptionGroup)
    assert [type(part) for part in back.exceptions] == [exception.RemoteError, KeyError]


def test_a_group_without_end_is_cut() -> None:
    group: BaseException = ValueError("x" * 100_000)
    for _ in range(6):
        group = BaseExceptionGroup("g", [group] * 10)
    assert len(failure.from_exception(group)) <= failure.MAX_FAILURE
    assert isinstance(failure.to_exception(failure.from_exception(group)), BaseExceptionGroup)


def test_causes_in_a_circle_end() -> None:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    back = round_trip(first)
    assert type(back) is ValueError
    assert type(back.__cause__) is KeyError


def test_notes_that_are_none_are_left_out() -> None:
    error = ValueError("odd")
    error.__notes__ = 5  # type: ignore[assignment]
    assert type(round_trip(error)) is ValueError


def test_a_pickle_that_ends_its_reader_does_not() -> None:
    record = msgpack.unpackb(failure.from_exception(ValueError("x")))
    record["pickle"] = b"cbuiltins\nexit\n(I3\ntR."
    back = failure.to_exception(msgpack.packb(record))
    assert isinstance(back, exception.ExecutionError)
    assert "SystemExit: 3" in str(back)


def test_what_cannot_be_read_back_tells_the_remote_traceback() -> None:
    back = round_trip(UnreadableError(1, 2))
    assert isinstance(back, exception.ExecutionError)
    assert "UnreadableError: 1 2" in str(back)


def test_without_pickle_only_the_text_travels() -> None:
    data = failure.from_exception(raised(CustomError(7)), allow_pickle=False)
    assert "pickle" not in msgpack.unpackb(data)
    assert str(failure.to_exception(data)) == "CustomError: code 7"


def test_a_huge_exception_keeps_its_type_and_is_cut() -> None:
    data = failure.from_exception(raised(ValueError("x" * (10 << 20))))
    assert len(data) <= failure.MAX_FAILURE
    back = failure.to_exception(data)
    assert type(back) is ValueError
    assert "characters left out" in str(back)


def test_what_is_huge_in_another_way_becomes_a_remote_error() -> None:
    error = ValueError("large")
    error.rows = list(range(3_000_000))  # type: ignore[attr-defined]
    error.args = (error.rows,)  # type: ignore[attr-defined]
    assert isinstance(round_trip(error), exception.RemoteError)


def test_a_broken_text_does_not_hide_the_failure() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert "cannot be shown" in failure.message_of(failure.from_exception(raised(Broken())))


def test_our_own_failures_are_named_by_class() -> None:
    back = failure.to_exception(failure.from_text("FunctionTimeoutError", "took too long"))
    assert type(back) is exception.FunctionTimeoutError
    assert str(back) == "took too long"
