"""What `tidemill status --verbose` says of each worker's runtime."""

import io

from rich.console import Console

from tidemill._wire import isolation
from tidemill._wire.scheduling import Capacity, WorkerState
from tidemill.cli import status


def worker(name: str, unheld: dict[str, str], note: str = "") -> WorkerState:
    room = Capacity(1.0, 1, {})
    return WorkerState(
        name, ("cpu",), {}, room, room, (), (), "any", 1, "host", "1", unheld=unheld, note=note
    )


def test_each_worker_has_a_column_with_what_it_holds_back() -> None:
    workers = (
        worker("wo-1", {"disk": isolation.WATCHED}),
        worker("wo-2", {"disk": isolation.OPEN}, "no sandbox: why"),
    )
    found = status.Status("", "", None, "", (), workers)
    told = io.StringIO()
    status._show_isolation(found, Console(file=told, width=200))
    lines = [line.split() for line in told.getvalue().splitlines()]
    assert ["fill", "the", "disk", "watched", "open"] in lines
    assert len([line for line in lines if line[-2:] == ["held", "held"]]) == len(isolation.ROWS) - 1
    assert ["wo-2", "no", "sandbox:", "why"] in lines
