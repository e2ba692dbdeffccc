"""A name that stands for a function, for a class, for a function again: who has it by name goes along."""

from collections.abc import Callable, Iterator

import pytest
from running_stacks import RunningStack, wait_until

import tidemill
from tidemill import App, Client, Cls, Function
from tidemill.exception import InvalidError, NotFoundError


@pytest.fixture
def other(stack: RunningStack) -> Iterator[Client]:
    """Another client, as of a program that deploys."""
    with stack.client() as client:
        yield client


def with_function(app: App, value: int) -> None:
    app.function(serialized=True, name="Thing")(lambda: value)


def with_class(app: App, value: int) -> None:
    class Thing:
        factor: int = tidemill.parameter(default=1)

        @tidemill.method()
        def get(self) -> int:
            return value * self.factor

    Thing.__qualname__ = "Thing"  # the name of a class is how it is called in its module
    app.cls(serialized=True)(Thing)


def with_generator(app: App, value: int) -> None:
    def thing() -> Iterator[int]:
        yield value

    app.function(serialized=True, name="Thing")(thing)


def test_a_name_is_a_function_then_a_class_and_back(client: Client, other: Client, name: str) -> None:
    def deploy(make: Callable[[App, int], None], value: int) -> None:
        app = App(name)
        make(app, value)
        app.deploy(client=other)

    def function(version: int | None = None) -> Function[..., int, int]:
        return Function.from_name(name, "Thing", version=version, client=client)

    def cls(version: int | None = None) -> Cls:
        return Cls.from_name(name, "Thing", version=version, client=client)

    kept = function()
    deploy(with_function, 1)
    assert kept.remote() == 1
    object_id = kept.object_id

    deploy(with_class, 2)
    thing = cls()(factor=10)
    assert thing.get.remote() == 20
    wait_until(lambda: is_refused(kept, "Thing is a class"))

    deploy(with_generator, 3)
    wait_until(lambda: is_refused(kept, "Thing is a generator"))
    assert list(kept.remote_gen()) == [3]
    wait_until(lambda: is_refused(thing.get, "Thing is a function, not a class"))
    with pytest.raises(InvalidError, match="Thing is a function, not a class"):
        cls().hydrate()

    deploy(with_function, 1)
    wait_until(lambda: not is_refused(kept, "Thing is a generator"))
    assert (kept.remote(), kept.object_id) == (1, object_id)
    deploy(with_class, 2)
    wait_until(lambda: not is_refused(thing.get, "Thing is a function, not a class"))
    wait_until(lambda: not is_refused(cls()().get, "Thing is a function, not a class"))
    assert (thing.get.remote(), cls()().get.remote()) == (20, 2)

    assert [function(1).remote(), list(function(3).remote_gen()), function(4).remote()] == [1, [3], 1]
    assert [cls(version)(factor=5).get.remote() for version in (2, 5)] == [10, 10]

    App(name).deploy(client=other)
    for each in (kept, thing.get):
        wait_until(lambda each=each: is_missing(each))


def is_missing(function: Function[..., int, int]) -> bool:
    try:
        function.remote()
    except NotFoundError as error:
        return "Thing" in str(error)
    except InvalidError:  # it still knows of what the name stood for before
        return False
    return False


def is_refused(function: Function[..., int, int], words: str) -> bool:
    try:
        function.remote()
    except InvalidError as error:
        return words in str(error)
    return False
