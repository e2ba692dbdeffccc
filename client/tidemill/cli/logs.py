"""`tidemill app logs` and `tidemill container logs`: what containers printed, on standard output."""

import datetime
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tidemill.cli.asking import client, environment_option
from tidemill.cli.times import moment

if TYPE_CHECKING:
    from tidemill._log_entries import LogEntry

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_TAIL = 100
SOURCES = ("stdout", "stderr", "system")


def _choosing(command: F) -> F:
    """Add the options that choose lines."""
    for option in reversed(
        (
            click.option("-f", "--follow", is_flag=True, help="Go on with what is printed from now on."),
            click.option("--since", default="", metavar="TIME", help="From: 2h (ago), or a date and time."),
            click.option("--until", default="", metavar="TIME", help="Until, in the same notation."),
            click.option(
                "-n",
                "--tail",
                type=click.IntRange(1, 20_000),
                help=f"Only so many of the last lines. Default {DEFAULT_TAIL}, without a range of time.",
            ),
            click.option("--search", default="", metavar="TEXT", help="Only lines that contain this text."),
            click.option("-s", "--source", type=click.Choice(SOURCES), help="Only lines of this source."),
        )
    ):
        command = option(command)
    return command


@click.command("logs")
@click.argument("app", metavar="APP")
@_choosing
@click.option("--function", default="", metavar="NAME", help="Only lines of a function, by name or id.")
@click.option("--function-call", default="", metavar="ID", help="Only lines of a call.")
@click.option("--container", default="", metavar="ID", help="Only lines of a container.")
@click.option("--timestamps", is_flag=True, help="Put the time in front of each line.")
@click.option("--show-function-id", is_flag=True, help="Put the function's id in front of each line.")
@click.option("--show-function-call-id", is_flag=True, help="Put the call's id in front of each line.")
@click.option("--show-container-id", is_flag=True, help="Put the container's id in front of each line.")
@environment_option
def app_logs(
    app: str, function: str, function_call: str, container: str, environment: str | None, **options: Any
) -> None:
    """Show what the containers of an app printed: the last 100 lines, or those of a range of time.

    APP is the name of a deployed app or an app's id (ap-...).
    """
    from dataclasses import replace

    from tidemill import _logs

    connection = client()

    async def find() -> "_logs.Origin":
        origin = await _logs.of_app(connection, app, environment or "")
        names = {function_id: name for name, function_id in origin.functions.items()}
        selection = replace(
            origin.selection,
            function=names.get(function, function),
            call=function_call,
            container=container,
        )
        return replace(origin, selection=selection)

    _show(find, **options)


@click.command("logs")
@click.argument("container_id", metavar="ID")
@_choosing
@click.option("--all", "everything", is_flag=True, help="Everything it printed, up to 20,000 lines.")
@click.option("--timestamps", is_flag=True, help="Put the time in front of each line.")
def container_logs(container_id: str, everything: bool, **options: Any) -> None:
    """Show what a container (co-...) printed: the last 100 lines, or those of a range of time."""
    from tidemill import _logs

    if everything and (options["tail"] or options["follow"]):
        raise click.UsageError("--all goes with neither --tail nor --follow")

    connection = client()

    async def find() -> "_logs.Origin":
        return await _logs.of_container(connection, container_id)

    _show(find, everything=everything, **options)


def _show(
    find: "Callable[[], Any]",
    *,
    follow: bool,
    since: str,
    until: str,
    tail: int | None,
    search: str,
    source: str | None,
    timestamps: bool,
    everything: bool = False,
    show_function_id: bool = False,
    show_function_call_id: bool = False,
    show_container_id: bool = False,
) -> None:
    from tidemill._logs import Logs

    if follow and (since or until):
        raise click.UsageError("--follow goes with neither --since nor --until")
    logs, source = Logs(find), source or ""
    begin, end = _time(since), _time(until)
    if follow:
        entries = logs.stream(tail=tail or DEFAULT_TAIL, search=search, source=source)
    elif tail or not (since or until or everything):
        entries = logs.tail(tail or DEFAULT_TAIL, since=begin, until=end, search=search, source=source)
    else:
        entries = logs.fetch(since=begin, until=end, search=search, source=source)
    ids = {
        "function_id": show_function_id,
        "function_call_id": show_function_call_id,
        "container_id": show_container_id,
    }
    columns = [name for name, shown in ids.items() if shown]
    for entry in entries:
        sys.stdout.write(_line(entry, columns, timestamps=timestamps))
        if follow:
            sys.stdout.flush()


def _line(entry: "LogEntry", columns: list[str], *, timestamps: bool) -> str:
    """Return a line as it is shown; it ends with a line break, whether it did or not."""
    before = [entry.timestamp.astimezone().isoformat(" ", "milliseconds")] if timestamps else []
    before += [entry.context_ids.get(column, "-") for column in columns]
    text = entry.message if entry.message.endswith("\n") else f"{entry.message}\n"
    return " ".join([*before, text])


def _time(given: str) -> datetime.datetime | None:
    return datetime.datetime.fromtimestamp(moment(given), datetime.UTC) if given else None
