"""What a type checker sees of everything that an app declares: read by `test_typing`, never run."""

from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator, Iterator
from typing import Any, assert_type

import tidemill
from tidemill import App, FunctionCall

app = tidemill.App("types")


@app.function(timeout=3)
def plain(x: int, y: str = "") -> list[int]:
    return [x]


@app.function()
async def coroutine(x: int) -> str:
    return ""


@app.function()
def generator(n: int) -> Iterator[int]:
    yield n


@app.function()
async def async_generator(n: int) -> AsyncIterator[int]:
    yield n


@app.local_entrypoint()
def main(n: int) -> None: ...


assert_type(plain.remote(1, y="2"), list[int])
assert_type(plain.local(1), list[int])
assert_type(plain.spawn(1), FunctionCall[list[int]])
assert_type(coroutine.remote(1), str)
_ = assert_type(coroutine.local(1), Coroutine[Any, Any, str])
assert_type(generator.remote_gen(1), Generator[int, None, None])
assert_type(async_generator.remote_gen.aio(1), AsyncGenerator[int, None])
assert_type(main(1), None)
plain.remote("x")  # type: ignore[arg-type]
plain.remote()  # type: ignore[call-arg]
main("x")  # type: ignore[arg-type]
app.function(timeout="x")  # type: ignore[arg-type]
app.function(nonsense=1)  # type: ignore[call-arg]
tidemill.nonsense  # type: ignore[attr-defined]
tidemill.Image.nonsense("x")  # type: ignore[attr-defined]

with app.run() as running:
    assert_type(running, App)


async def asynchronous() -> None:
    async with app.run() as running:
        assert_type(running, App)
    assert_type(await plain.remote.aio(1), list[int])
