"""What may be asked of the registry."""

from typing import Any

import pytest

from tidemill._wire.specs import (
    Autoscaling,
    Batching,
    ClassSpec,
    FunctionSpec,
    ImageSpec,
    MethodSpec,
    Parameter,
    Resources,
    RetryPolicy,
    Source,
    Web,
)
from tidemill.exception import InvalidError
from tidemill_registry import checks

TWO_METHODS = ClassSpec((MethodSpec("a"), MethodSpec("b")))


def spec(name: str = "f", **fields: Any) -> FunctionSpec:
    return FunctionSpec(name=name, source=Source(module="m", qualname=name), **fields)


def layered(operation: str, arguments: object) -> ImageSpec:
    return ImageSpec(((operation, arguments),))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (FunctionSpec("f", Source()), "names neither"),
        (spec("f g"), "not a name"),
        (spec(batching=Batching(0, 1)), "a batch has"),
        (spec(batching=Batching(1, 600_001)), "a batch has"),
        (spec(cls=ClassSpec((MethodSpec("a b"),))), "a class has up to 1,000 methods"),
        (spec(cls=ClassSpec((MethodSpec("a"), MethodSpec("a")))), "a class has up to 1,000 methods"),
        (spec(cls=ClassSpec((), (Parameter("x", "float"),))), "a class has up to 100 parameters"),
        (spec(cls=TWO_METHODS, batching=Batching(1, 1)), "no other methods"),
        (spec(cls=TWO_METHODS, web=Web("asgi")), "a class answers the web by its methods"),
        (spec(cls=ClassSpec((MethodSpec("a", web=Web("what")),))), "no web function of the kind 'what'"),
        (spec(image=layered("from_id", {})), "layer 1 of its image, 'from_id' has no 'image'"),
        (spec(image=layered("from_id", {"image": 1})), r"Expected `str`, got `int` - at `\$.image`"),
        (spec(image=layered("debian_slim", {"python_version": 3.12})), "at `\\$.python_version`"),
        (spec(image=layered("debian_slim", [])), "Expected `object`, got `array`"),
        (spec(image=layered("pip_install", {"packages": "numpy"})), "at `\\$.packages`"),
        (spec(image=layered("run_commands", {"commands": [], "secrets": [0]})), "one of 0 secrets"),
        (spec(image=layered("run_function", {"function": {"key": "k", "number": 0}})), "one of 0 functions"),
        (spec(image=layered("add_local_dir", {"files": []})), "form of another operation"),
        (spec(image=layered("new", {"data": b"bytes"})), "its image has no key"),
        (spec(""), "not a name"),
        (spec("f" * 257), "not a name"),
        (spec(timeout=0.0), "timeout"),
        (spec(timeout=float("nan")), "timeout"),
        (spec(timeout=90_000.0), "timeout"),
        (spec(startup_timeout=-1.0), "startup_timeout"),
        (spec(resources=Resources(cpu=0.0)), "cpu"),
        (spec(resources=Resources(cpu=float("inf"))), "cpu"),
        (spec(resources=Resources(cpu=2.0, cpu_limit=1.0)), "limit of cpu"),
        (spec(resources=Resources(memory=0)), "memory"),
        (spec(resources=Resources(memory=256, memory_limit=128)), "limit of memory"),
        (spec(resources=Resources(ephemeral_disk=0)), "ephemeral_disk"),
        (spec(resources=Resources(gpus=(("H100.x", 1),))), "GPU"),
        (spec(resources=Resources(gpus=(("H100", 0),))), "GPU"),
        (spec(resources=Resources(gpus=(("H100", 1),) * 11)), "GPU"),
        (spec(autoscaling=Autoscaling(min_containers=-1)), "min_containers"),
        (spec(autoscaling=Autoscaling(min_containers=3, max_containers=2)), "max_containers"),
        (spec(autoscaling=Autoscaling(max_containers=0)), "max_containers"),
        (spec(autoscaling=Autoscaling(buffer_containers=-1)), "buffer_containers"),
        (spec(autoscaling=Autoscaling(scaledown_window=-1.0)), "scaledown_window"),
        (spec(retries=RetryPolicy(max_retries=-1)), "max_retries"),
        (spec(retries=RetryPolicy(backoff_coefficient=-1.0)), "backoff_coefficient"),
        (spec(retries=RetryPolicy(initial_delay=float("nan"))), "delays"),
    ],
)
def test_a_function_that_cannot_be_is_refused_with_what_is_wrong(wrong: FunctionSpec, words: str) -> None:
    with pytest.raises(InvalidError, match=words):
        checks.check_functions([spec("good"), wrong])


def test_two_functions_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidError, match="two functions"):
        checks.check_functions([spec("f"), spec("f")])


def test_too_many_functions_are_refused() -> None:
    with pytest.raises(InvalidError, match="at most"):
        checks.check_functions([spec(f"f{number}") for number in range(checks.MAX_FUNCTIONS + 1)])


@pytest.mark.parametrize("name", ["f", "Cls.*", "outer.<locals>.f", "fonction_été", "f-1"])
def test_names_of_functions_may_be_what_python_calls_them(name: str) -> None:
    checks.check_functions([spec(name, image=ImageSpec((("debian_slim", {}),)))])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"state": "running"}, "cannot be made 'running'"),
        ({"state": "stopped"}, "cannot be made"),
        ({"state": "deployed", "name": None}, "needs a name"),
        ({"name": "a b"}, "not a name"),
        ({"name": "x" * 65}, "not a name"),
        ({"description": "x" * 5_000}, "description"),
        ({"description": "a\0b"}, "NUL"),
        ({"tags": {"k": "v\0"}}, "NUL"),
        ({"tags": {f"k{number}": "v" for number in range(101)}}, "tags"),
    ],
)
def test_an_app_that_cannot_be_is_refused(fields: dict[str, Any], words: str) -> None:
    good: dict[str, Any] = {"name": "app", "state": "ephemeral", "description": "", "tags": {}}
    checks.check_app(**good)
    with pytest.raises(InvalidError, match=words):
        checks.check_app(**(good | fields))
