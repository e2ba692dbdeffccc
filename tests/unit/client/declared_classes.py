"""Classes as users declare them."""

import asyncio
from collections.abc import AsyncIterator

import tidemill as modal

app = modal.App("declared-classes")


class Base:
    log: list[str]

    @modal.enter()
    def first(self) -> None:
        self.log = ["first"]

    @modal.method()
    def inherited(self) -> str:
        return "base"

    @modal.method()
    def overridden(self) -> str:
        return "base"


@app.cls()
class Model(Base):
    size: str = modal.parameter()
    number: int = modal.parameter(default=3)
    flag: bool = modal.parameter(default=False)
    raw: bytes = modal.parameter(default=b"\0")
    set_later: int = modal.parameter(init=False)
    CONSTANT = 7

    @modal.enter()
    def second(self) -> None:
        self.log.append("second")

    @modal.method()
    def predict(self, x: int) -> tuple[str, int, list[str]]:
        return self.size, self.number * x, self.log

    @modal.method()
    def overridden(self) -> str:
        return "derived " + self.inherited.local()

    @modal.method()
    async def later(self) -> list[str]:
        await asyncio.sleep(0)
        return self.log

    @modal.method()
    async def stream(self, n: int) -> AsyncIterator[int]:
        for number in range(n):
            yield number

    @modal.exit()
    def leave(self) -> None:
        self.log.append("left")

    def plain(self) -> str:
        return f"plain {self.size}"


@app.cls()
class WithAsyncHook:
    @modal.enter()
    async def begin(self) -> None:
        self.value = 5

    @modal.method()
    def read(self) -> int:
        return self.value
