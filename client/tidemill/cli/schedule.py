"""`tidemill schedule`: when functions run by themselves, and letting one run now."""

from typing import TYPE_CHECKING

import click

from tidemill.cli import listing
from tidemill.cli.asking import ask, ask_pages, client, environment_option, json_option
from tidemill.cli.groups import CommandTable

if TYPE_CHECKING:
    from tidemill._wire.schedules import ScheduleInfo

_HERE = "tidemill.cli.schedule"
COMMANDS = {
    "list": (f"{_HERE}:list_schedules", "List schedules, and when they fire."),
    "info": (f"{_HERE}:info", "Show a schedule."),
    "run": (f"{_HERE}:run", "Call its function now."),
}


@click.group(cls=CommandTable, table=COMMANDS)
def schedule() -> None:
    """Look at schedules of functions. SCHEDULE is a schedule's id (sc-...)."""


schedule_argument = click.argument("schedule_id", metavar="SCHEDULE")


@click.command("list")
@click.option("--app", default="", metavar="APP", help="Only those of an app, by name or id.")
@click.option("--all-envs", is_flag=True, help="Those of all environments.")
@environment_option
@json_option
def list_schedules(app: str, all_envs: bool, environment: str | None, as_json: bool) -> None:
    """List the schedules of apps that run or are deployed, with their next and last firings."""
    from tidemill import config
    from tidemill._wire.schedules import ListSchedules, ScheduleList

    where = "" if all_envs else config.environment(environment)
    pages = ask_pages(
        "list_schedules", lambda cursor, size: ListSchedules(where, app, size, cursor), ScheduleList
    )
    columns = ("Schedule ID", "App", "Environment", "Function", "Schedule", "Next", "Last", "Last call")
    rows = [
        (
            each.schedule_id,
            each.app_name or each.app_id,
            each.environment,
            each.function,
            each.text,
            listing.time(each.next),
            listing.time(each.last),
            each.last_call,
        )
        for page in pages
        for each in page.schedules
    ]
    listing.show(columns, rows, as_json=as_json)


@click.command()
@schedule_argument
@json_option
def info(schedule_id: str, as_json: bool) -> None:
    """Show a schedule: its function, when it fires next, when it fired last and which call that was."""
    found = _find(schedule_id)
    record = {
        "Schedule ID": found.schedule_id,
        "App ID": found.app_id,
        "App": found.app_name,
        "Environment": found.environment,
        "Function": found.function,
        "Function ID": found.function_id,
        "Schedule": found.text,
        "Next": listing.time(found.next),
        "Last": listing.time(found.last),
        "Last call": found.last_call,
    }
    listing.show_record(record, as_json=as_json)


@click.command()
@schedule_argument
def run(schedule_id: str) -> None:
    """Call a schedule's function now, as its firings do. They come as before.

    Writes the id of the call, whose result is kept for seven days.
    """
    from tidemill.functions import Function

    function = Function.from_id(_find(schedule_id).function_id, client=client())
    click.echo(function.hydrate().spawn().object_id)


def _find(schedule_id: str) -> "ScheduleInfo":
    from tidemill._wire.schedules import ListSchedules, ScheduleList
    from tidemill.exception import NotFoundError

    found = ask("list_schedules", ListSchedules(schedule=schedule_id), ScheduleList).schedules
    if not found:
        raise NotFoundError(
            f"there is no schedule {schedule_id}", hint="`tidemill schedule list` shows those there are"
        )
    return found[0]
