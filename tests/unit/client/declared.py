"""Functions of a module, to be declared by the tests: only such functions can be imported by a container."""

from collections.abc import AsyncIterator, Iterator
from typing import Any


def plain(x: int = 0) -> int:
    return x


def needs_argument(x: int) -> int:
    return x


async def coroutine() -> int:
    return 1


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


def returns_generator() -> Any:
    return generator()


class Holder:
    def method(self) -> None:
        pass
