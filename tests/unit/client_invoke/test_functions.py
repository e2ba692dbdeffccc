"""`Function` and `FunctionCall` where no server is needed."""

import dataclasses
import pickle
from collections.abc import Iterator
from typing import Any

import cloudpickle
import pytest

from tidemill import _runtime, exception
from tidemill._handled import Lookup
from tidemill._runtime import Container, CurrentInput
from tidemill._single import origin
from tidemill._wire.control import FunctionHandle
from tidemill.function_call import FunctionCall
from tidemill.functions import Function

HANDLE = FunctionHandle("fu-1", "double", "ap-1", "po-1", "tm.inputs.cpu.0.main.cpu.po-1")


def double(x: int) -> int:
    """Return twice as much."""
    return 2 * x


def numbers() -> Iterator[int]:
    yield 1


@pytest.fixture
def function() -> Function[..., Any, Any]:
    return Function(double, name="double", is_generator=False)


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = Container("co-1", "ap-1", "app", "double", "main", {"double": HANDLE})
    monkeypatch.setattr(_runtime, "container", inside)


def test_a_function_keeps_what_the_raw_one_has(function: Function[..., Any, Any]) -> None:
    assert function.local(4) == 8
    assert function.get_raw_f() is double
    assert function.__doc__ == "Return twice as much."
    assert function.__name__ == "double"
    assert repr(function) == "Function('double')"


def test_a_function_that_was_not_declared_here_has_no_code_and_no_app() -> None:
    found = Function.from_name("app", "double")
    for use in (found.get_raw_f, lambda: found.local(1), lambda: found.app):
        with pytest.raises(exception.ExecutionError, match="this process"):
            use()


def test_a_hydrated_function_has_an_id(function: Function[..., Any, Any]) -> None:
    with pytest.raises(exception.ExecutionError):
        function.object_id
    function._hydrate(HANDLE, None)
    assert function.object_id == "fu-1"
    assert function.is_hydrated
    function._unhydrate("ap-1")
    assert not function.is_hydrated


@pytest.mark.parametrize("first_to_end", ["ap-1", "ap-2"])
def test_of_two_runs_that_share_a_function_either_may_end_first(
    function: Function[..., Any, Any], first_to_end: str
) -> None:
    other = dataclasses.replace(HANDLE, app_id="ap-2", function_id="fu-2")
    function._hydrate(HANDLE, None)
    function._hydrate(other, None)
    assert function.object_id == "fu-2"
    function._unhydrate(first_to_end)
    last = HANDLE if first_to_end == "ap-2" else other
    assert function.object_id == last.function_id
    function._unhydrate(last.app_id)
    assert not function.is_hydrated


@pytest.mark.usefixtures("container")
def test_in_a_container_a_function_of_the_same_app_is_known_by_its_name(
    function: Function[..., Any, Any],
) -> None:
    assert function.object_id == "fu-1"
    other: Function[..., Any, Any] = Function(double, name="other", is_generator=False)
    with pytest.raises(exception.ExecutionError, match="other"):
        other.remote(1)


def test_a_hydrated_function_travels_with_its_handle(function: Function[..., Any, Any]) -> None:
    function._hydrate(HANDLE, None)
    arrived = pickle.loads(pickle.dumps(function))
    assert arrived.object_id == "fu-1"
    assert arrived.name == "double"


def test_a_deployed_function_travels_as_its_name_and_is_looked_up_where_it_arrives(
    function: Function[..., Any, Any],
) -> None:
    lookup = Lookup("app", "double", "dev")
    function._hydrate(HANDLE, None, lookup)
    arrived = pickle.loads(pickle.dumps(function))
    assert arrived._lookup == lookup
    assert not arrived.is_hydrated
    function._unhydrate("ap-1")
    assert pickle.loads(pickle.dumps(function))._lookup is None


def test_what_was_found_by_name_travels_with_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_ENVIRONMENT", "dev")
    newest, pinned = (Function.from_name("app", "double", version=version) for version in (None, 3))
    for found in (newest, pinned):
        found._handle = HANDLE
    data = pickle.dumps((newest, pinned))
    monkeypatch.setenv("TIDEMILL_ENVIRONMENT", "main")
    newest, pinned = pickle.loads(data)
    assert newest._lookup == Lookup("app", "double", "dev")
    assert not newest.is_hydrated
    assert pinned._lookup == Lookup("app", "double", "dev", 3)
    assert pinned.is_hydrated


@pytest.mark.usefixtures("container")
def test_a_function_that_leaves_its_container_is_looked_up_by_its_id(
    function: Function[..., Any, Any],
) -> None:
    assert pickle.loads(pickle.dumps(function))._lookup == Lookup(function_id="fu-1")


def test_a_function_that_is_not_published_yet_travels_by_name(
    function: Function[..., Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = cloudpickle.dumps(lambda: function)
    inside = Container("co-1", "ap-1", "app", "double", "main", {"double": HANDLE})
    monkeypatch.setattr(_runtime, "container", inside)
    assert pickle.loads(data)().object_id == "fu-1"


def test_generators_are_known_before_anything_is_sent() -> None:
    f: Function[..., Any, Any] = Function(numbers, name="numbers", is_generator=True)
    f._hydrate(FunctionHandle("fu-1", "numbers", "ap-1", "po-1", HANDLE.prefix, True), None)
    assert f.is_generator
    with pytest.raises(exception.InvalidError, match=r"generator, which \.remote cannot call"):
        f.remote()


def test_web_functions_are_called_through_their_url(function: Function[..., Any, Any]) -> None:
    url = "https://main--app-double.example"
    function._hydrate(
        FunctionHandle(
            "fu-1", "double", "ap-1", "po-1", HANDLE.prefix, web_url=url, web_label="main--app-double"
        ),
        None,
    )
    with pytest.raises(exception.InvalidError) as caught:
        function.remote(1)
    assert url in caught.value.hint


def test_a_call_knows_the_input_that_made_it() -> None:
    assert origin() == ("", "")
    token = _runtime.current_input.set(CurrentInput("fc-2", 3, "in-2-3", "fc-1"))
    try:
        assert origin() == ("in-2-3", "fc-1")
    finally:
        _runtime.current_input.reset(token)


def test_function_calls_are_equal_by_id_and_travel_as_it() -> None:
    call = FunctionCall.from_id("fc-01")
    assert pickle.loads(pickle.dumps(call)) == call
    assert len({call, FunctionCall.from_id("fc-01"), FunctionCall.from_id("fc-02")}) == 2
    for wrong in ("", "in-1", "fc-a.b", "fc-*", 3):
        with pytest.raises(exception.InvalidError):
            FunctionCall.from_id(wrong)  # type: ignore[arg-type]
