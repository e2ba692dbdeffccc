"""What a type checker sees of a function: read by `test_typing`, never run."""

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

import tidemill
from tidemill.function_call import FunctionCall

app = tidemill.App("typed")


@app.function()
def add(a: int, b: str = "") -> float:
    return a


@app.function(timeout=3)
async def fetch(url: str) -> bytes:
    return url.encode()


@app.function()
def count(n: int) -> Iterator[str]:
    yield from map(str, range(n))


@app.function()
async def ticks(n: int) -> AsyncIterator[bytes]:
    yield b"." * n


@app.cls()
class Model:
    @tidemill.enter()
    def begin(self) -> None:
        self.factor = 2

    @tidemill.method()
    def predict(self, x: int) -> str:
        return str(self.factor * x)

    @tidemill.method()
    async def later(self, x: int) -> float:
        return x / 2

    @tidemill.method()
    def each(self, n: int) -> Iterator[str]:
        yield from map(str, range(n))


def methods() -> None:
    assert_type(Model().predict.remote(1), str)
    assert_type(list(Model().predict.map([1])), list[str])
    assert_type(Model().later.spawn(x=1).get(), float)
    assert_type(list(Model().each.remote_gen(3)), list[str])
    Model().predict.remote("x")  # type: ignore[arg-type]


def blocking() -> None:
    assert_type(add.remote(1, b="x"), float)
    assert_type(fetch.remote("x"), bytes)
    assert_type(add.local(1), float)
    assert_type(add.spawn(1), FunctionCall[float])
    assert_type(add.spawn(1).get(timeout=1), float)
    assert_type(list(add.map([1])), list[float])
    assert_type(list(add.map([1], return_exceptions=True)), list[float | BaseException])
    assert_type(list(add.starmap([(1, "x")])), list[float])
    assert_type(list(count.remote_gen(3)), list[str])
    assert_type(add.experimental_spawn_map([1]), FunctionCall[float])
    assert_type(list(add.experimental_spawn_map([1]).iter()), list[float])
    assert_type(add.hydrate().remote(1), float)
    assert_type(add.get_web_url(), str | None)


async def awaiting() -> None:
    assert_type(await add.remote.aio(1), float)
    assert_type(await fetch.remote.aio(url="x"), bytes)
    assert_type(await fetch.local("x"), bytes)
    assert_type(await add.spawn.aio(1), FunctionCall[float])
    assert_type(await (await fetch.spawn.aio("x")).get.aio(), bytes)
    assert_type([x async for x in fetch.map.aio(["x"])], list[bytes])
    assert_type([x async for x in fetch.map(["x"])], list[bytes])
    assert_type([x async for x in ticks.remote_gen.aio(3)], list[bytes])
    await add.for_each.aio([1])
    await add.spawn_map.aio([1])


async def wrong() -> None:
    add.remote("x")  # type: ignore[arg-type]
    add.remote(1, c=2)  # type: ignore[call-arg]
    await add.remote.aio()  # type: ignore[call-arg]
    fetch.spawn(1)  # type: ignore[arg-type]
    await fetch.spawn.aio(1)  # type: ignore[arg-type]
    count.remote_gen("x")  # type: ignore[arg-type]
    add.local("x")  # type: ignore[arg-type]
