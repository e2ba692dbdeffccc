"""Classes: what they declare, what is refused, and objects in this process."""

import asyncio
import pickle
from typing import Any

import pytest
from declared_classes import Base, Model, WithAsyncHook, app

import tidemill as modal
from tidemill import Cls, Function
from tidemill._wire.specs import Batching, ClassSpec, Concurrency, MethodSpec, Parameter
from tidemill._wire.variants import Changes
from tidemill.exception import ExecutionError, InvalidError

declaring: Any = modal.App("declaring")


def spec_of(name: str) -> Any:
    return app._declared[name][0].template


def test_a_class_is_published_with_its_methods_and_parameters() -> None:
    spec = spec_of("Model")
    assert spec.name == "Model"
    assert spec.cls == ClassSpec(
        (
            MethodSpec("inherited"),
            MethodSpec("overridden"),
            MethodSpec("predict"),
            MethodSpec("later", is_async=True),
            MethodSpec("stream", is_generator=True, is_async=True),
        ),
        (
            Parameter("size", "str"),
            Parameter("number", "int", False, 3),
            Parameter("flag", "bool", False, False),
            Parameter("raw", "bytes", False, b"\0"),
        ),
    )
    assert not spec.is_async
    assert isinstance(Model, Cls)
    assert app.registered_classes == {"Model": Model, "WithAsyncHook": WithAsyncHook}
    assert app.registered_functions == {}


def test_hooks_run_once_before_the_first_local_call_of_a_method() -> None:
    model = Model(size="s")
    assert model.plain() == "plain s"  # needs no hook
    assert model.predict.local(2) == ("s", 6, ["first", "second"])
    assert asyncio.run(model.later.local()) == ["first", "second"]
    assert model.overridden.local() == "derived base"
    assert WithAsyncHook().read.local() == 5


async def test_an_async_generator_is_local_too() -> None:
    assert [piece async for piece in Model(size="s").stream.local(3)] == [0, 1, 2]


def test_what_is_no_method_is_found_on_the_class() -> None:
    assert Model.CONSTANT == 7
    with pytest.raises(AttributeError, match=r"predict is a method: it needs an object, as in Model\(\)"):
        Model.predict
    with pytest.raises(AttributeError, match="nothing"):
        Model.nothing
    with pytest.raises(AttributeError, match="set_later has no value"):
        Model(size="s").set_later


def test_another_class_can_be_derived_from_one() -> None:
    class Derived(Model):  # type: ignore[misc,valid-type]
        pass

    assert issubclass(Derived, Base)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({}, InvalidError, "Model lacks the parameter 'size'"),
        ({"size": 3}, TypeError, "expected str for the parameter 'size', not int"),
        ({"size": "s", "number": True}, TypeError, "expected int for the parameter 'number', not bool"),
        ({"size": "s", "number": 1 << 63}, InvalidError, "more than 64 bits"),
        ({"size": "s", "raw": "text"}, TypeError, "expected bytes for the parameter 'raw', not str"),
        ({"size": "s", "set_later": 1}, TypeError, "unexpected keyword argument 'set_later'"),
        ({"size": "x" * 70_000}, InvalidError, "has a length of 70,000"),
    ],
)
def test_parameters_that_cannot_be(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Model(**given)
    with pytest.raises(TypeError, match="by keyword"):
        Model("s")  # type: ignore[misc]


def test_a_parameter_that_is_its_default_makes_no_other_variant() -> None:
    assert Model(size="s", number=3)._variant._key == Model(size="s")._variant._key
    assert Model(size="s", number=4)._variant._key != Model(size="s")._variant._key
    assert WithAsyncHook()._variant._key is None
    assert WithAsyncHook.with_options(cpu=2)()._variant._key is not None


def test_options_add_up_and_stay_where_nothing_is_given() -> None:
    cls = Model.with_options(cpu=2, env={"A": "1"}).with_options(timeout=9, env={}, secrets=[])
    changes = cls.with_concurrency(max_inputs=5)._given.changes
    assert (changes.cpu, changes.timeout, changes.env) == ((2.0, None), 9.0, {"A": "1"})
    assert (changes.memory, changes.concurrency) == (None, Concurrency(5, 5))
    batches = cls.with_concurrency(max_inputs=5)._given.with_changes(Changes(batching=Batching(2, 1)))
    assert (batches.changes.concurrency, batches.changes.batching) == (None, Batching(2, 1))
    with pytest.raises(InvalidError, match="max_containers has to be a whole number"):
        Model.with_options(max_containers=0)
    with pytest.raises(InvalidError, match="a class with a batched method has no other methods"):
        Model.with_batching(max_batch_size=3, wait_ms=1)


def test_objects_and_classes_travel_without_their_code() -> None:
    copy = pickle.loads(pickle.dumps(Model(size="s")))
    assert repr(copy) == "Model(size='s')"
    with pytest.raises(ExecutionError, match="the code of Model is not in this process"):
        copy._here()
    function = pickle.loads(pickle.dumps(Model(size="s").predict))
    assert (function.name, function._of.given.parameters) == ("Model.predict", {"size": "s"})


def test_methods_need_an_app_that_runs() -> None:
    with pytest.raises(ExecutionError, match=r"Model.predict is called outside of a running app"):
        Model(size="s").predict.remote(1)


def constructor() -> Any:
    class Constructed:
        def __init__(self) -> None: ...

    return declaring.cls(serialized=True)(Constructed)


def local_class() -> Any:
    class Local:
        pass

    return declaring.cls()(Local)


def untyped() -> Any:
    class Untyped:
        size = modal.parameter()

    return declaring.cls(serialized=True)(Untyped)


def oddly_typed() -> Any:
    class Odd:
        size: list[str] = modal.parameter()

    return declaring.cls(serialized=True)(Odd)


def wrong_default() -> Any:
    class Wrong:
        size: int = modal.parameter(default="large")

    return declaring.cls(serialized=True)(Wrong)


def hook_and_method() -> Any:
    return modal.method()(modal.enter()(lambda self: None))


def concurrent_method() -> Any:
    return modal.concurrent(max_inputs=2)(modal.method()(lambda self: None))


def method_of_concurrent() -> Any:
    return modal.method()(modal.concurrent(max_inputs=2)(lambda self: None))


def twice_batched() -> Any:
    class Twice:
        @modal.method()
        @modal.batched(max_batch_size=2, wait_ms=1)
        def one(self, x: list[int]) -> list[int]:
            return x

        @modal.method()
        def two(self, x: int) -> int:
            return x

    return declaring.cls(serialized=True)(Twice)


def batched_and_concurrent() -> Any:
    decorated = modal.concurrent(max_inputs=2)(modal.batched(max_batch_size=2, wait_ms=1)(add))
    return declaring.function()(decorated)


def add(x: list[int]) -> list[int]:
    return x


def batched_default() -> Any:
    return modal.batched(max_batch_size=2, wait_ms=1)(lambda x=1: x)


def batched_generator() -> Any:
    def generator(x: list[int]) -> Any:
        yield x

    return modal.batched(max_batch_size=2, wait_ms=1)(generator)


def function_on_method() -> Any:
    return declaring.function()(modal.method()(add))


def method_on_function() -> Any:
    return modal.method()(declaring.function()(add))


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (constructor, "has a constructor"),
        (local_class, "is not at the top of its module"),
        (untyped, "the parameter 'size' of Untyped has no type"),
        (oddly_typed, "the parameter 'size' of Odd is list"),
        (wrong_default, "expected int for the parameter 'size', not str"),
        (hook_and_method, "cannot be both @enter"),
        (concurrent_method, "all methods share the containers"),
        (method_of_concurrent, "all methods share the containers"),
        (twice_batched, "a class with a batched method has no other methods"),
        (batched_and_concurrent, "cannot also be concurrent"),
        (batched_default, "cannot have a default"),
        (batched_generator, "is a generator: it cannot be batched"),
        (function_on_method, "is for methods of classes"),
        (method_on_function, "is a function of its own"),
        (lambda: modal.enter()(lambda self, x: x), "it can only take self"),
        (lambda: modal.concurrent(max_inputs=0), "from 1 to 1,000"),
        (lambda: modal.concurrent(max_inputs=2, target_inputs=3), "target_inputs .3. is above max_inputs"),
        (lambda: modal.batched(max_batch_size=1_001, wait_ms=1), "from 1 to 1,000"),
        (lambda: modal.batched(max_batch_size=2, wait_ms=600_001), "from 0 to 600,000"),
        (lambda: modal.method(add), "@method without parentheses"),  # type: ignore[arg-type]
        (lambda: modal.enter(add), "@enter without parentheses"),  # type: ignore[arg-type]
        (lambda: declaring.cls(add), "@app.cls without parentheses"),
        (lambda: declaring.cls()(add), "is for classes"),
    ],
)
def test_what_cannot_be_declared(declare: Any, message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        declare()


def test_concurrency_and_batches_are_published() -> None:
    own = modal.App("own")
    own.function()(modal.concurrent(max_inputs=10, target_inputs=6)(add))
    assert own._declared["add"][0].template.concurrency == Concurrency(10, 6)
    own = modal.App("own")
    own.function()(modal.batched(max_batch_size=4, wait_ms=50)(add))
    assert own._declared["add"][0].template.batching == Batching(4, 50)


def test_a_method_is_not_found_as_a_function() -> None:
    with pytest.raises(InvalidError, match=r"'Model\.predict' is a method"):
        Function.from_name("app", "Model.predict")
