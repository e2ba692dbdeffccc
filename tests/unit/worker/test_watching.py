"""How often a worker looks at what containers have written."""

from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from tidemill_worker.sandbox import watching
from tidemill_worker.sandbox.cgroups import Cgroups
from tidemill_worker.sandbox.watching import Watch, Watched

MIB = 1 << 20


@pytest.mark.parametrize(("took", "looks"), [(0.0, 3), (1.0, 1)])
async def test_a_look_is_put_off_by_what_it_cost_and_not_by_how_long_it_waited(
    took: float, looks: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = count()  # of a machine on which a second goes by wherever anybody looks at it
    monkeypatch.setattr(watching, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    told: list[str] = []

    async def measure(_: Path) -> tuple[int, float]:
        return 2 * MIB, took

    watch = Watch(Cgroups({}, 0), measure)
    watched = Watched(1, None, 1, tmp_path)
    for _ in range(3):
        await watch._look_at_folder("co-1", watched, tmp_path, lambda _one, what, _final: told.append(what))
    assert told == ["wrote 2 MiB, more than its ephemeral disk of 1 MiB"] * looks
