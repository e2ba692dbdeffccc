"""Variants: pools of a function or class with options or parameters that a caller gives."""

from dataclasses import dataclass, field, fields, replace
from typing import Any

from tidemill._wire.specs import Batching, Concurrency, RetryPolicy


@dataclass(frozen=True, slots=True)
class Changes:
    """Options in place of those that were declared. None leaves one as it is; `secrets` are ids."""

    cpu: tuple[float, float | None] | None = None
    memory: tuple[int, int | None] | None = None
    gpus: tuple[tuple[str, int], ...] | None = None
    env: dict[str, str] | None = None
    secrets: tuple[str, ...] | None = None
    retries: RetryPolicy | None = None
    timeout: float | None = None
    max_containers: int | None = None
    buffer_containers: int | None = None
    scaledown_window: float | None = None
    labels: dict[str, tuple[str, ...]] | None = None
    options: dict[str, Any] | None = None
    concurrency: Concurrency | None = None
    batching: Batching | None = None

    def then(self, later: "Changes") -> "Changes":
        """Return these and later ones, which count where both say something.

        A function runs inputs side by side or in batches: of the two the later one counts, too.
        """
        names = (each.name for each in fields(later))
        said = {name: value for name in names if (value := getattr(later, name)) is not None}
        if later.concurrency is not None or later.batching is not None:
            said = {"concurrency": None, "batching": None} | said
        return replace(self, **said)


@dataclass(frozen=True, slots=True)
class GetVariant:
    """`tm.registry.<ws>.get_variant`: the pool like `pool` with other options or parameters.

    Made when it is first asked for, and gone when nobody has asked for a week. Who goes on to use one asks
    again now and then. Answered by its `FunctionHandle`.
    """

    pool: str
    parameters: dict[str, Any] = field(default_factory=dict)
    changes: Changes = Changes()


@dataclass(frozen=True, slots=True)
class GetUrlVariant:
    """`tm.registry.<ws>.get_url_variant`: the pool of the class `pool` with parameters that a URL names.

    There are few of them at a time; one that nobody has asked for within a minute makes room for another.
    Who uses one asks every 15 seconds. Answered by its `FunctionHandle`; `resource_exhausted` refuses.
    """

    pool: str
    parameters: dict[str, Any] = field(default_factory=dict)
