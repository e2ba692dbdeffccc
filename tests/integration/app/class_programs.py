"""Classes that the tests run. Containers import this file, so it imports nothing of the tests."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import tidemill

app = tidemill.App("classes")


class Base:
    @tidemill.enter()
    def first(self) -> None:
        self.log = ["base"]

    @tidemill.method()
    def where(self) -> tuple[int, str]:
        return os.getpid(), os.environ.get("OPTION", "")


@app.cls()
class Model(Base):
    size: str = tidemill.parameter(default="small")

    @tidemill.enter()
    async def load(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.log.append(f"loaded {self.size}")

    @tidemill.method()
    def predict(self, x: int) -> tuple[list[str], int]:
        return self.log, x * 2

    @tidemill.method()
    async def on_the_loop(self) -> bool:
        return asyncio.get_running_loop() is self.loop

    @tidemill.method()
    def count(self, n: int) -> Iterator[int]:
        yield from range(n)

    @tidemill.method()
    async def count_async(self, n: int) -> AsyncIterator[int]:
        for number in range(n):
            yield number

    @tidemill.method()
    def calls_itself(self) -> list[Any]:
        inside = Model(size="inside")
        return [self.predict.local(1), inside.predict.remote(2), inside.where.remote(), os.getpid()]

    @tidemill.method()
    def gives_itself(self) -> list[Any]:
        optional = self.where.with_options(env={"OPTION": "also"})
        return [self.predict, self.count, optional, takes_method.remote(self.predict)]

    @tidemill.exit()
    def leave(self) -> None:
        print("left", self.size, flush=True)


@app.cls(max_containers=1)  # what one call tells, the next one hears
class AllAsync:
    @tidemill.enter()
    async def begin(self) -> None:
        self.told = asyncio.Event()

    @tidemill.method()
    async def tell(self) -> None:
        self.told.set()

    @tidemill.method()
    async def hear(self) -> bool:
        return self.told.is_set()

    @tidemill.exit()
    async def leave(self) -> None:
        print("left async", flush=True)


@app.cls()
class Broken:
    @tidemill.enter()
    def fails(self) -> None:
        raise FileNotFoundError("the weights")

    @tidemill.method()
    def never(self) -> None: ...


@app.cls()
class Busy:
    @tidemill.method()
    def sleeps(self) -> None:
        time.sleep(60)

    @tidemill.exit()
    def leave(self) -> None:
        print("left busy", flush=True)


@app.function()
def option() -> str:
    return os.environ.get("OPTION", "none")


@app.function()
def takes(model: Any) -> Any:
    return model.predict.remote(4)


@app.function()
def takes_method(method: Any) -> Any:
    return method.remote(4)


def make_serialized() -> Any:
    offset = 100

    @app.cls(serialized=True)
    class Serialized:
        start: int = tidemill.parameter()

        @tidemill.method()
        def add(self, x: int) -> int:
            return self.start + offset + x

        @tidemill.method()
        def add_twice(self, x: int) -> int:
            return self.add.remote(x) + self.start  # type: ignore[no-any-return]

    return Serialized


Serialized = make_serialized()
