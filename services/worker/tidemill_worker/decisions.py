"""What the worker decides, as functions of values: no clock, no process, no broker."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from itertools import pairwise
from typing import TypeVar

from tidemill._wire import gpus
from tidemill._wire.scheduling import Capacity
from tidemill._wire.specs import FunctionSpec, Pool, RetryPolicy

MAX_LOSSES = 8  # in a row; one more is given up
MIN_RETRY_DELAY = 1.0  # seconds

PREFETCH_BELOW = 0.02  # seconds of a chunk below which each container has another one waiting for it here
DEPTH_BELOW = 0.002  # the same below which a second chunk is handed to the container itself
LARGE = 256 << 10  # bytes of such a chunk above which it takes far longer to bring it here than to run it
SPLIT_ABOVE = 0.005  # seconds of waiting work above which an idle container takes its part of it

STARTUP = 30.0  # seconds that every container gets to become ready, unless it says otherwise
UNUSED = 600.0  # seconds without a new container after which a template ends

_EPSILON = 1e-9

Key = TypeVar("Key")


class Phase(StrEnum):
    """What a container is doing."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    STOPPING = "stopping"


class Killed(Enum):
    """Why the worker itself ended a container."""

    TIMEOUT = "its input ran for too long"
    CANCEL = "its input was cancelled and did not stop"
    STARTUP = "it did not become ready in time"
    STOP = "it was told to stop"
    VIOLATION = "it broke the protocol"
    STALLED = "nobody read the values of its generator"
    EXCESS = "it went beyond a limit"


@dataclass(frozen=True, slots=True)
class Exit:
    """How a container ended: its runner's exit status (negative: a signal; None: nobody knows).

    `exhausted` says what the kernel, or the worker for `EXCESS`, ended it for, as `was killed at its memory
    limit of 64 MiB`.
    """

    status: int | None
    killed: Killed | None = None
    exhausted: str = ""


class Fate(Enum):
    """What becomes of an input that was running when its container ended."""

    FAILED = "failed"
    TIMED_OUT = "timed out"
    CANCELLED = "cancelled"
    LOST = "lost"
    SPARED = "spared"  # it had no part in the end: it runs again with nothing used up


@dataclass(frozen=True, slots=True)
class Verdict:
    """The fate of the input that was running, and what its caller is told."""

    fate: Fate
    message: str = ""


_BY_KILL = {
    Killed.TIMEOUT: Verdict(Fate.TIMED_OUT),
    Killed.CANCEL: Verdict(Fate.CANCELLED),
    Killed.STARTUP: Verdict(Fate.LOST),
    Killed.STOP: Verdict(Fate.LOST),
    Killed.VIOLATION: Verdict(Fate.FAILED, "the container broke the protocol with its worker"),
    Killed.STALLED: Verdict(Fate.FAILED, "nobody read the values of the generator for 60 s"),
}

_CRASHES = {
    signal.SIGSEGV: "segmentation fault",
    signal.SIGBUS: "bus error",
    signal.SIGILL: "illegal instruction",
    signal.SIGFPE: "floating point exception",
    signal.SIGABRT: "aborted",
}


def verdict(end: Exit, running: int = 1) -> Verdict:
    """Return what the end of a container means for each of the inputs that it was running.

    What the function did to itself is its failure; what was done to it from outside is a loss, and so is a
    crash that any of several inputs may have caused.
    """
    if end.killed in _BY_KILL:
        return _BY_KILL[end.killed]
    if end.exhausted:
        return Verdict(Fate.FAILED, f"the container {end.exhausted}")
    if end.status is None or end.status == -signal.SIGKILL or running > 1:
        return Verdict(Fate.LOST)
    return Verdict(Fate.FAILED, f"the container {ending(end.status)} during the input")


def is_to_blame(found: Verdict, inputs: int) -> bool:
    """Return whether the input that seems to have run is the one that the verdict is about.

    A container that crashes takes with it what it had not sent yet, so that of several inputs of a chunk
    nobody knows which one it was: each of them runs again alone, with nothing used up.
    """
    return found.fate is not Fate.FAILED or inputs == 1


def ending(status: int) -> str:
    """Return an exit status in words: `exited with status 7`."""
    if status >= 0:
        return f"exited with status {status}"
    number = -status
    if number in _CRASHES:
        return f"crashed ({_CRASHES[signal.Signals(number)]})"
    name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
    return f"was ended by signal {name}"


def retry_delay(policy: RetryPolicy, failures: int) -> float | None:
    """Return the seconds before the next try of an input that has just failed, or None for no other.

    `failures` counts those before this one.
    """
    if failures >= policy.max_retries:
        return None
    delay = policy.initial_delay * policy.backoff_coefficient**failures
    return max(MIN_RETRY_DELAY, min(policy.max_delay, delay))


def gives_up(losses: int) -> bool:
    """Return whether an input that was just lost is not tried again; `losses` counts those before."""
    return losses >= MAX_LOSSES


def given_up(policy: RetryPolicy, *, crashed: bool) -> str:
    """Return why an input that failed and is not tried again is given up, empty where it is not.

    What a function raises or how long it takes, when no retry was asked for, is its answer.
    """
    if policy.max_retries:
        return f"failed {policy.max_retries + 1} times: no retry is left"
    return "its container crashed" if crashed else ""


# --- side by side


def together(spec: FunctionSpec) -> bool:
    """Return whether a container of such a pool has several inputs at once, side by side or in a batch."""
    return slots(spec) > 1 or spec.batching is not None


def slots(spec: FunctionSpec) -> int:
    """Return how many inputs run side by side in a container."""
    return 1 if spec.single_use_containers else spec.concurrency.max_inputs


# --- how much to take


@dataclass(frozen=True, slots=True)
class Appetite:
    """How many chunks a pool may hold here per container: in the container, and in all."""

    depth: int
    each: int


def appetite(spec: FunctionSpec, chunk_seconds: float | None, chunk_bytes: float = 0.0) -> Appetite:
    """Return how much a container may hold, by the time that its pool's chunks lately took, and their size.

    Where inputs run at once, each is a chunk of its own; the next batch comes together while one runs.
    """
    if spec.batching is not None:
        return Appetite(1, 2 * spec.batching.max_batch_size)
    if (most := slots(spec)) > 1:
        return Appetite(most, most)
    if spec.single_use_containers or chunk_seconds is None or chunk_seconds >= PREFETCH_BELOW:
        return Appetite(1, 1)
    runs_what_it_has = bool(spec.webs)  # at once: a container has no queue of requests
    if chunk_seconds >= DEPTH_BELOW or runs_what_it_has:
        return Appetite(1, 2)
    return Appetite(4, 8) if chunk_bytes > LARGE else Appetite(2, 2)


def wanted(allowance: Appetite, containers: int, held: int) -> int:
    """Return how many more chunks to pull for this many containers when `held` are here already."""
    return max(0, containers * allowance.each - held)


def at_once(spec: FunctionSpec, idle: int) -> int:
    """Return how many chunks so many idle containers could begin with now."""
    return idle * (spec.batching.max_batch_size if spec.batching else slots(spec))


def splits(unstarted: int, input_seconds: float | None, silent: float) -> bool:
    """Return whether work that waits in a busy container is worth taking back for an idle one.

    `silent` is the time since the busy container last finished an input.
    """
    if not unstarted:
        return False
    expected = (input_seconds or 0.0) * unstarted
    return max(expected, silent) > SPLIT_ABOVE


def shares(count: int, takers: int) -> list[slice]:
    """Return how `count` inputs are divided over `takers` containers, as evenly as can be."""
    takers = max(1, min(count, takers))
    size, rest = divmod(count, takers)
    bounds = [number * size + min(number, rest) for number in range(takers + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


# --- what fits


@dataclass(frozen=True, slots=True)
class Grant:
    """What a container gets: GPUs of one type, or none."""

    gpu: str = ""
    count: int = 0


def fit(pool: Pool, free: Capacity, total: Capacity, *, overcommit: bool) -> Grant | str:
    """Return what a container of a pool would get, or why it cannot be taken."""
    resources = pool.spec.resources
    if total.cpu + _EPSILON < resources.cpu:
        return f"it asks for {resources.cpu:g} cores, there are {total.cpu:g}"
    if free.cpu + _EPSILON < resources.cpu and not overcommit:
        return f"it asks for {resources.cpu:g} cores, {max(0.0, free.cpu):g} are free"
    if free.memory < resources.memory:
        return f"it asks for {resources.memory} MiB, {free.memory} are free"
    return _gpus(pool, free.gpus)


def _gpus(pool: Pool, free: Mapping[str, int]) -> Grant | str:
    wanted = gpus.alternatives(pool)
    if not wanted:
        return Grant()
    offer = gpus.choose(wanted, free)
    return Grant(offer.kind, offer.count) if offer else f"no {gpus.in_words(wanted)} is free"


def startup_limit(spec: FunctionSpec) -> float:
    """Return the seconds that a container of a function gets to become ready."""
    return spec.startup_timeout or max(spec.timeout, STARTUP)


def superfluous(
    templates: Mapping[Key, tuple[float, int]], now: float, *, most: int, memory: int = 0
) -> list[Key]:
    """Return which templates are to end: by when each was used last, and the bytes that it takes.

    Those that nobody used for long go, then the least used ones, until no more than `most` are left with no
    more than `memory` bytes; the one that was used last stays.
    """
    kept, taken, ended = 0, 0, []
    for key, (used, size) in sorted(templates.items(), key=lambda each: -each[1][0]):
        fits = kept < most and taken + size <= memory
        if now - used <= UNUSED and (fits or not kept):
            kept, taken = kept + 1, taken + size
        else:
            ended.append(key)
    return ended
