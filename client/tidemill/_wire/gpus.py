"""Types of GPUs: what a request for one means, and which of those at hand it gets.

A request is a type and a count. `A100` is one of either memory, `H100` may be answered with an H200 (`H100!`
may not), `B200+` with anything newer, `any` with whatever there is.
"""

from collections.abc import Iterable, Iterator, Mapping

from tidemill._dataclass import dataclass
from tidemill._wire.specs import Pool

ANY = "any"
# The types that have names in requests, by what they can do: `any` takes the least of them first.
KNOWN = (
    "T4", "L4", "A10", "L40S", "A100-40GB", "A100-80GB", "RTX-PRO-6000", "H100", "H200", "B200", "B300",
)  # fmt: skip
_MEANS = {
    "A10G": ("A10",),
    "A100": ("A100", "A100-40GB", "A100-80GB"),
    "H100": ("H100", "H200"),
    "B200+": ("B200", "B300"),
}
_ORDER = {kind: place for place, kind in enumerate(KNOWN)}

Wanted = tuple[str, int]  # a type as it is asked for, and how many of it


@dataclass(frozen=True, slots=True)
class Offer:
    """GPUs of one type that answer a request. `rank` says how welcome they are: less is better."""

    rank: tuple[int, int]
    kind: str
    count: int


def alternatives(pool: Pool) -> tuple[Wanted, ...]:
    """Return what a pool asks for, most wanted first; nothing for one that needs no GPU."""
    if pool.spec.resources.gpus:
        return pool.spec.resources.gpus
    if pool.capability == "cpu":
        return ()
    return tuple((part.removeprefix("gpu-"), 1) for part in pool.capability.split("+"))


def choose(wanted: Iterable[Wanted], there: Mapping[str, int]) -> Offer | None:
    """Return the best of what is there, by type, that answers a request; None where nothing does."""
    for place, (asked, count) in enumerate(wanted):
        for second, kind in enumerate(_kinds(asked, there)):
            if there.get(kind, 0) >= count:
                return Offer((place, second), kind, count)
    return None


def _kinds(asked: str, there: Mapping[str, int]) -> Iterator[str]:
    """Yield the types that a request for one may be answered with, best first."""
    if asked.lower() == ANY:
        yield from sorted(there, key=lambda kind: (_ORDER.get(kind, -1), kind))
    elif asked in _MEANS:
        yield from _MEANS[asked]
    else:
        yield asked.rstrip("!+")


def in_words(wanted: Iterable[Wanted]) -> str:
    """Return a request as text: `2 x H100 or A100`."""
    return " or ".join(f"{count} x {kind}" if count > 1 else kind for kind, count in wanted)


def named(kind: str) -> str:
    """Return the name of a type as those who have it are to write it: `A10` for `a10g`."""
    kind = kind.upper()
    return _MEANS[kind][0] if kind in _MEANS else kind
