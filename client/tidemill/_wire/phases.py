"""What the time of an input went for: pure, for records, command line and API.

    queued ─ queue ─ ordered ─ place ─ placed ─ image ─ start ─ import ─ enter ─ ready ─ queue ─ started ─ run

An input waits for a container that is there, or for the start of one. The moments of a container's start are
told with the first inputs that it took; which part of them an input waited for follows from its own times.
"""

from collections.abc import Sequence
from itertools import pairwise

# Between the moments of a start: the order to a worker, its taking it, image and code at hand, the process
# there, the module imported, the hooks run.
OF_START = ("place", "image", "start", "import", "enter")
MOMENTS = len(OF_START) + 1


def of(
    queued: float | None, started: float | None, finished: float | None, moments: Sequence[float] = ()
) -> dict[str, float]:
    """Return the seconds of each phase of an input, of which some times may not be known.

    All are unix times. `moments` are those of its container's start, none if it was not waited for.
    """
    found: dict[str, float] = {}
    if queued and started:
        spans = pairwise(moments) if len(moments) == MOMENTS else ()
        found = {
            name: round(max(0.0, min(end, started) - max(begin, queued)), 6)
            for name, (begin, end) in zip(OF_START, spans, strict=False)
        }
        if not any(found.values()):
            found = {}
        found = {"queue": round(max(0.0, started - queued - sum(found.values())), 6), **found}
    if started and finished:
        found["run"] = round(max(0.0, finished - started), 6)
    return found


def back_from(waited: float, ready: float, seconds: Sequence[float]) -> dict[str, float]:
    """Return the phases of a wait that ended `ready` seconds after a container was.

    `seconds` are those of the phases of its start, as far as they are known: the last ones.
    """
    left = max(0.0, waited - ready)
    found: dict[str, float] = {}
    for name, length in zip(reversed(OF_START), reversed(seconds), strict=False):
        found[name] = min(left, max(0.0, length))
        left -= found[name]
    return {"queue": min(waited, max(0.0, ready)) + left, **dict(reversed(found.items()))}
