"""`tidemill dead`: inputs that were given up, and trying them again."""

import json
from dataclasses import asdict

import click

from tidemill._wire.calls import DeadDetails, DeadList, GetDead, ListDead, ReplayDead, Replayed
from tidemill.cli.times import clock, span


@click.group()
def dead() -> None:
    """Look at inputs that were given up, and try them again."""


@dead.command("list")
@click.option("--app", "app_ref", default="", metavar="APP", help="Only those of an app, by name or id.")
@click.option("--function", default="", metavar="NAME", help="Only those of a function.")
@click.option("--limit", "-n", type=click.IntRange(1, 1_000), default=50, show_default=True, help="How many.")
@click.option("--before", default="", metavar="CURSOR", help="Go on where a page ended.")
@click.option("--env", "-e", default="", help="The environment of the app.")
@click.option("--json", "as_json", is_flag=True, help="Write everything as JSON.")
def list_dead(app_ref: str, function: str, limit: int, before: str, env: str, as_json: bool) -> None:
    """List what was given up in the last 30 days, newest first."""
    from tidemill import _client, _loop
    from tidemill._logs import find_app

    async def ask() -> DeadList:
        client = _client.current()
        app_id = await find_app(client, app_ref, env) if app_ref else ""
        request = ListDead(app_id, function, limit, before)
        return await client.request("registry", "list_dead", request, DeadList)

    found = _loop.wait(ask())
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
        return
    _table(found)
    if found.next:
        click.echo(f"There are more: go on with --before {found.next}", err=True)


@dead.command()
@click.argument("input_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Write everything as JSON.")
def info(input_id: str, as_json: bool) -> None:
    """Show why an input (in-...) was given up, with every attempt."""
    from tidemill import _client, _loop

    request = _client.current().request("registry", "get_dead", GetDead(input_id), DeadDetails)
    found = _loop.wait(request)
    if as_json:
        record = {**asdict(found), "tries": [tried._asdict() for tried in found.tries]}
        click.echo(json.dumps(record, indent=2))
        return
    letter = found.letter
    click.echo(f"{letter.input_id}  {letter.function}")
    click.echo(f"  reason    {letter.reason}")
    click.echo(f"  given up  {clock(letter.time)}")
    click.echo(f"  call      {letter.call}")
    click.echo(f"  arguments {found.size:,} bytes")
    if letter.replayed_as:
        click.echo(f"  replayed  {letter.replayed_as}")
    for tried in found.tries:
        ran = span(tried.started, tried.finished)
        click.echo(f"  attempt {tried.attempt} on {tried.container or '-'}, {ran}: {tried.reason}")
    if found.traceback:
        click.echo(f"\n{found.traceback.rstrip()}")


@dead.command()
@click.argument("input_ids", metavar="ID...", nargs=-1, required=True)
def replay(input_ids: tuple[str, ...]) -> None:
    """Run inputs again, each once, with the present code of their functions.

    Writes the id of the new call, whose result is kept for seven days. An input that was replayed before
    is not run again.
    """
    from tidemill import _client, _loop

    for input_id in input_ids:
        request = _client.current().request("registry", "replay_dead", ReplayDead(input_id), Replayed)
        done = _loop.wait(request)
        if done.again:
            click.echo(f"{input_id} was replayed before", err=True)
        click.echo(done.call)


def _table(found: DeadList) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=500)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("input", "function", "given up", "attempts", "replayed as", "reason"):
        table.add_column(column, overflow="fold")
    for each in found.letters:
        row = (each.input_id, each.function, clock(each.time), str(each.attempts), each.replayed_as or "-")
        table.add_row(*row, each.reason)
    console.print(table)
