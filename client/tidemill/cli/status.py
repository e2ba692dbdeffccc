"""`tidemill status`: the parts of a stack, its workers, and what they run."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click

from tidemill import _stack, exception
from tidemill._wire import isolation
from tidemill._wire.scheduling import WorkerState
from tidemill.cli.asking import json_option
from tidemill.config import config

_STYLES = {
    "serving": "green",
    "starting": "yellow",
    "restarting": "yellow",
    "stopping": "yellow",
    "gone": "red",
}
_WIDE = 500
# Told where the tier of a worker does not isolate.
_NOT_ISOLATED = "functions run without isolation, as the worker's own user"


@dataclass(frozen=True, slots=True)
class Status:
    """What there is to say about a stack."""

    server_url: str
    gateway_url: str
    pid: int | None
    folder: str
    parts: tuple[_stack.PartInfo, ...]
    workers: tuple[WorkerState, ...]


@click.command()
@json_option
@click.option("--verbose", "-v", is_flag=True, help="Show log files, room and containers too.")
@click.pass_context
def status(ctx: click.Context, as_json: bool, verbose: bool) -> None:
    """Show the stack's parts and its workers.

    Ends with 1 when no stack is running, or when a part of it does not serve.
    """
    found = _look()
    if found is None:
        if as_json:
            click.echo("null")
        raise exception.ConnectionError("no stack is running", hint="start one with `tidemill up`")
    if as_json:
        click.echo(json.dumps(_as_json(found), indent=2))
    else:
        _show(found, verbose=verbose)
    if any(part.state != "serving" for part in found.parts):
        ctx.exit(1)


def _look() -> Status | None:
    url: str = config["server_url"]
    stack = None if url else _stack.find()
    if stack is None:
        return Status(url, "", None, "", (), _workers()) if url else None
    parts = tuple(_checked(part) for part in stack.parts)
    nats_serves = any(part.name == "nats" and part.state == "serving" for part in parts)
    workers = _workers() if nats_serves else ()
    return Status(stack.server_url, stack.gateway_url, stack.pid, stack.folder, parts, workers)


def _checked(part: _stack.PartInfo) -> _stack.PartInfo:
    """Return a part as it is now: its process may have ended since the supervisor told."""
    from dataclasses import replace

    alive = part.pid is not None and _stack.is_alive(part.pid)
    return part if alive or part.state != "serving" else replace(part, state="gone")


def _workers() -> tuple[WorkerState, ...]:
    """Return the reports of the workers that are alive."""
    from tidemill import _client, _loop
    from tidemill._wire.scheduling import ListWorkers, WorkerList

    async def ask() -> tuple[WorkerState, ...]:
        client = _client.current()
        try:
            answer = await client.request(
                "scheduler", "list_workers", ListWorkers(), WorkerList, patience=0.0
            )
        except exception.ServiceError:  # the scheduler starts again: then nobody can say
            return ()
        return answer.workers

    return _loop.wait(ask())


def _as_json(found: Status) -> dict[str, Any]:
    return {
        "server_url": found.server_url,
        "gateway_url": found.gateway_url,
        "pid": found.pid,
        "folder": found.folder,
        "parts": [asdict(part) for part in found.parts],
        "workers": [_worker_as_json(worker) for worker in found.workers],
    }


def _worker_as_json(worker: WorkerState) -> dict[str, Any]:
    """Return a worker's report without what is for schedulers only."""
    record = asdict(worker)
    del record["leases"]
    return record


def _show(found: Status, *, verbose: bool) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDE)  # nothing is cut for who reads a file or a pipe
    if found.parts:
        columns = ("part", "state", "pid", "address", "version", *(("log",) if verbose else ()))
        rows = [_part_row(part, verbose=verbose) for part in found.parts]
        console.print(_table(columns, rows))
    columns = ("worker", "runtime", "capabilities", "containers", "version")
    columns += ("pid", "free cores", "free MiB") if verbose else ()
    console.print(_table(columns, [_worker_row(worker, verbose=verbose) for worker in found.workers]))
    if any(worker.runtime == "process" for worker in found.workers):
        console.print(f"runtime process: {_NOT_ISOLATED}", style="dim")
    if verbose:
        _show_details(found, console)


def _show_isolation(found: Status, console: Any) -> None:
    """Show what each worker's runtime holds back, as its self-test found."""
    if not found.workers:
        return
    rows = [
        (what, *(worker.unheld.get(name, isolation.HELD) for worker in found.workers))
        for name, what in isolation.ROWS.items()
    ]
    console.print(_table(("user code may try to", *(worker.worker for worker in found.workers)), rows))
    for worker in found.workers:
        if worker.note:
            console.print(f"{worker.worker}  {worker.note}")


def _show_gpus(found: Status, console: Any) -> None:
    """Show each GPU of each worker: what it is, and whether it can be given to a container."""
    rows = [
        (
            worker.worker,
            gpu.kind,
            gpu.name or "declared",
            f"{gpu.memory or '-'}",
            gpu.uuid or "-",
            gpu.state,
            gpu.note,
        )
        for worker in found.workers
        for gpu in worker.gpus
    ]
    if rows:
        console.print(_table(("worker", "GPU", "name", "MiB", "uuid", "state", ""), rows))
    for worker in found.workers:
        if worker.driver:
            console.print(f"{worker.worker}  driver {worker.driver}")


def _show_details(found: Status, console: Any) -> None:
    _show_isolation(found, console)
    _show_gpus(found, console)
    for worker in found.workers:
        for each in worker.containers:
            console.print(f"{each.container}  {each.state}  pool {each.pool}  pid {each.pid}")
    console.print(f"server   {found.server_url}")
    if found.folder:
        console.print(f"gateway  {found.gateway_url}\ndata     {found.folder}\npid      {found.pid}")


def _part_row(part: _stack.PartInfo, *, verbose: bool) -> tuple[str, ...]:
    style = _STYLES.get(part.state, "default")
    cells = (part.name, f"[{style}]{part.state}[/]", str(part.pid or "-"), part.address or "-", part.version)
    return (*cells, part.log) if verbose else cells


def _worker_row(worker: WorkerState, *, verbose: bool) -> tuple[str, ...]:
    runtime = f"{worker.runtime} (draining)" if worker.draining else worker.runtime
    cells = (
        worker.worker,
        runtime,
        " ".join(worker.capabilities),
        str(len(worker.containers)),
        worker.version,
    )
    room = (str(worker.pid), f"{worker.free.cpu:g}/{worker.total.cpu:g}", str(worker.free.memory))
    return (*cells, *room) if verbose else cells


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
