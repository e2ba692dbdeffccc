"""`tidemill dead`: inputs that were given up, and trying them again."""

from typing import Any

import click

from tidemill._wire.calls import DeadDetails, DeadInfo, DeadList, GetDead, ListDead, ReplayDead, Replayed
from tidemill.cli import listing
from tidemill.cli.asking import ask, client, environment_option, json_option
from tidemill.cli.groups import CommandTable
from tidemill.cli.times import attempt, clock, span

_HERE = "tidemill.cli.dead"
COMMANDS = {
    "list": (f"{_HERE}:list_dead", "List what was given up."),
    "info": (f"{_HERE}:info", "Show why an input was given up."),
    "replay": (f"{_HERE}:replay", "Run inputs again."),
}


@click.group(cls=CommandTable, table=COMMANDS)
def dead() -> None:
    """Look at inputs that were given up, and try them again."""


@click.command("list")
@click.option("--app", "app_ref", default="", metavar="APP", help="Only those of an app, by name or id.")
@click.option("--function", default="", metavar="NAME", help="Only those of a function.")
@click.option("--limit", "-n", type=click.IntRange(1, 1_000), default=50, show_default=True, help="How many.")
@click.option("--before", default="", metavar="CURSOR", help="Go on where a page ended.")
@environment_option
@json_option
def list_dead(
    app_ref: str, function: str, limit: int, before: str, environment: str | None, as_json: bool
) -> None:
    """List what was given up in the last 30 days, newest first."""
    from tidemill import _loop
    from tidemill._logs import find_app

    app_id = _loop.wait(find_app(client(), app_ref, environment or "")) if app_ref else ""
    found = ask("list_dead", ListDead(app_id, function, limit, before), DeadList)
    if as_json:
        listing.show_json([_as_json(each) for each in found.letters])
    else:
        _table(found)
    if found.next:
        click.echo(f"There are more: go on with --before {found.next}", err=True)


@click.command()
@click.argument("input_id", metavar="ID")
@json_option
def info(input_id: str, as_json: bool) -> None:
    """Show why an input (in-...) was given up, with every attempt."""
    found = ask("get_dead", GetDead(input_id), DeadDetails)
    letter = found.letter
    if as_json:
        more = {"tries": list(map(attempt, found.tries)), "traceback": found.traceback, "size": found.size}
        listing.show_json(_as_json(letter) | more)
        return
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


@click.command()
@click.argument("input_ids", metavar="ID...", nargs=-1, required=True)
def replay(input_ids: tuple[str, ...]) -> None:
    """Run inputs again, each once, with the present code of their functions.

    Writes the id of the new call, whose result is kept for seven days. An input that was replayed before
    is not run again.
    """
    for input_id in input_ids:
        done = ask("replay_dead", ReplayDead(input_id), Replayed)
        if done.again:
            click.echo(f"{input_id} was replayed before", err=True)
        click.echo(done.call)


def _table(found: DeadList) -> None:
    columns = ("Input ID", "Function", "Given up at", "Attempts", "Replayed as", "Reason")
    rows = [
        (
            each.input_id,
            each.function,
            listing.time(each.time),
            each.attempts,
            each.replayed_as,
            each.reason,
        )
        for each in found.letters
    ]
    listing.show(columns, rows, as_json=False)


def _as_json(letter: DeadInfo) -> dict[str, Any]:
    return {
        "input_id": letter.input_id,
        "call_id": letter.call,
        "index": letter.index,
        "app_id": letter.app_id,
        "function": letter.function,
        "reason": letter.reason,
        "given_up_at": listing.time(letter.time),
        "attempts": letter.attempts,
        "readable": letter.readable,
        "replayed_as": letter.replayed_as,
    }
