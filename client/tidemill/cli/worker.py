"""`tidemill worker`: the machines that run containers."""

import click

from tidemill.cli.asking import client, json_option
from tidemill.cli.groups import CommandTable

COMMANDS = {"list": ("tidemill.cli.worker:list_workers", "List the workers that are alive.")}


@click.group(cls=CommandTable, table=COMMANDS)
def worker() -> None:
    """Look at workers: what they are, have, and have left."""


@click.command("list")
@json_option
def list_workers(as_json: bool) -> None:
    """List the workers that are alive, with what is free of what they have.

    GPUs are told one by one by `tidemill status --verbose`.
    """
    from tidemill import _loop
    from tidemill._wire.scheduling import ListWorkers, WorkerList
    from tidemill.cli import listing

    found = _loop.wait(client().request("scheduler", "list_workers", ListWorkers(), WorkerList)).workers
    columns = ("Worker ID", "Host", "Runtime", "Cores", "MiB", "GPUs", "Labels", "Containers", "Version")
    rows = [
        (
            one.worker,
            one.host,
            f"{one.runtime} (draining)" if one.draining else one.runtime,
            f"{one.free.cpu:g} of {one.total.cpu:g}",
            f"{one.free.memory} of {one.total.memory}",
            ", ".join(
                f"{one.free.gpus.get(kind, 0)} of {count} {kind}" for kind, count in one.total.gpus.items()
            ),
            one.labels,
            len(one.containers),
            one.version,
        )
        for one in sorted(found, key=lambda state: state.worker)
    ]
    listing.show(columns, rows, as_json=as_json)
