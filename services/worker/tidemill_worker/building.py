"""One build of an image: who waits for it, what it says, what it may know."""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from tidemill import exception
from tidemill._wire.specs import ImageSpec
from tidemill_worker.uv import Ran, Say

REMEMBERED = 2_000  # lines that whoever comes later to a build still hears

Reveal = Callable[[Sequence[str]], Awaitable[dict[str, str]]]
Fetch = Callable[[str], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Order:
    """Who wants an image: its workspace, where lines go, and how to get secrets and blobs of its own."""

    holder: str
    workspace: str
    say: Say
    reveal: Reveal
    fetch: Fetch


@dataclass(slots=True)
class Voice:
    """What a build says, to everybody who waits for it."""

    _listeners: list[Say] = field(default_factory=list)
    _lines: deque[str] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def join(self, say: Say) -> None:
        """Have somebody hear what was said and what is going to be."""
        for line in self._lines:
            say(line)
        self._listeners.append(say)

    def leave(self, say: Say) -> None:
        """Let somebody go."""
        self._listeners.remove(say)

    def __call__(self, line: str) -> None:
        self._lines.append(line)
        for say in self._listeners:
            say(line)


async def revealed(spec: ImageSpec, numbers: Sequence[int], order: Order) -> dict[str, str]:
    """Return the variables of the secrets that one layer names."""
    return await order.reveal([spec.secrets[number] for number in numbers]) if numbers else {}


def check(ran: Ran, layer: str) -> None:
    """Raise `ImageBuildError` with the last lines of what a layer's program said, if it failed."""
    if ran.status:
        told = ran.complaints or ran.output[-2000:]
        raise exception.ImageBuildError(f"{layer} failed with status {ran.status}\n{told}".rstrip())
