"""`tidemill app`: apps, their versions, and what can be done with them."""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from tidemill.cli import listing
from tidemill.cli.asking import (
    ask,
    ask_pages,
    confirm,
    environment_option,
    json_option,
    strategy_option,
    yes_option,
)
from tidemill.cli.groups import CommandTable
from tidemill.exception import NotFoundError

if TYPE_CHECKING:
    from tidemill._wire.apps import AppDetails
    from tidemill._wire.deploying import AppDeployed

_HERE = "tidemill.cli.app"
COMMANDS = {
    "list": (f"{_HERE}:list_apps", "List apps that run or are deployed."),
    "info": (f"{_HERE}:info", "Show an app and its functions."),
    "history": (f"{_HERE}:history", "List the versions of an app."),
    "logs": ("tidemill.cli.logs:app_logs", "Show what an app's containers printed."),
    "rollback": (f"{_HERE}:rollback", "Deploy an earlier version again."),
    "rollover": (f"{_HERE}:rollover", "Replace an app's containers."),
    "stop": (f"{_HERE}:stop", "Stop an app."),
    "dashboard": (f"{_HERE}:dashboard", "Tell, and open, the page of an app."),
}


@click.group(cls=CommandTable, table=COMMANDS)
def app() -> None:
    """Look after apps. APP is a deployed app's name, or the id of any app."""


app_argument = click.argument("name", metavar="APP")


@click.command("list")
@click.option("--limit", type=click.IntRange(min=1), help="The most to list; all by default.")
@click.option("-a", "--all", "with_stopped", is_flag=True, help="List stopped apps too.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="Only apps that have this tag.")
@environment_option
@json_option
def list_apps(
    limit: int | None, with_stopped: bool, tags: tuple[str, ...], environment: str | None, as_json: bool
) -> None:
    """List the apps of an environment that run or are deployed, newest first."""
    from tidemill import config
    from tidemill._wire.deploying import AppPage, FindApps

    where, wanted = config.environment(environment), _pairs(tags)
    states = FindApps().states + (("stopped",) if with_stopped else ())
    pages = ask_pages(
        "find_apps",
        lambda cursor, size: FindApps(where, states, tags=wanted, limit=size, cursor=cursor),
        AppPage,
        limit,
    )
    columns = ["App ID", "Name", "State", "Version", "Functions", "Created at", "Stopped at", "Tags"]
    columns += ["Created by"]
    rows = [
        (
            each.app_id,
            each.name or each.description,
            each.state,
            each.version,
            each.functions,
            listing.time(each.created),
            listing.time(each.stopped),
            each.tags,
            each.created_by,
        )
        for page in pages
        for each in page.apps
    ]
    listing.show(columns, rows, as_json=as_json)


def _pairs(texts: Iterable[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if wrong := [name for name, separator, _ in pairs if not separator]:
        raise click.UsageError(f"not KEY=VALUE: {wrong[0]}")
    return {name: value for name, _, value in pairs}


@click.command()
@app_argument
@environment_option
@json_option
def info(name: str, environment: str | None, as_json: bool) -> None:
    """Show an app and the functions that it has now."""
    details = _details(name, environment)
    found = details.app
    record = {
        "App ID": found.app_id,
        "Name": found.name,
        "Description": found.description,
        "State": found.state,
        "Environment": found.environment,
        "Version": found.version,
        "Created at": listing.time(found.created),
        "Created by": found.created_by,
        "Stopped at": listing.time(found.stopped),
        "Stop reason": found.stop_reason,
        "Stopped by": found.stopped_by,
        "Tags": found.tags,
        "Functions": sorted(name for each in details.handles.values() for name in each.names()),
    }
    listing.show_record(record, as_json=as_json)


@click.command()
@app_argument
@environment_option
@json_option
def history(name: str, environment: str | None, as_json: bool) -> None:
    """List the versions of an app, newest first."""
    from tidemill import config
    from tidemill._wire.deploying import DeploymentList, ListDeployments

    where = config.environment(environment)
    pages = ask_pages(
        "list_deployments",
        lambda cursor, size: ListDeployments(name, where, size, cursor),
        DeploymentList,
    )
    columns = ["Version", "Current", "Time deployed", "Tag", "Strategy", "Client", "Deployed by"]
    columns += ["Rolled back to", "Functions"]
    rows = [
        (
            f"v{each.version}",
            each.current,
            listing.time(each.created),
            each.tag,
            each.strategy,
            each.client_version,
            each.deployed_by,
            each.rolled_back_to,
            list(each.functions),
        )
        for page in pages
        for each in page.deployments
    ]
    listing.show(columns, rows, as_json=as_json)


@click.command()
@app_argument
@click.argument("version", required=False, default="")
@strategy_option
@environment_option
def rollback(name: str, version: str, strategy: str, environment: str | None) -> None:
    """Deploy an earlier version's functions again, as a new version.

    VERSION is its number as `app history` shows it, `v3` or `3`; by default the one before the present.
    """
    from tidemill import config
    from tidemill._wire.deploying import AppDeployed, RollbackApp

    number = version.removeprefix("v")
    if number and not number.isdecimal():
        raise click.UsageError(f"not a version: {version}")
    message = RollbackApp(name, config.environment(environment), int(number) if number else None, strategy)
    _tell("Rolled back", _replaced(ask("rollback_app", message, AppDeployed)))


@click.command()
@app_argument
@strategy_option
@environment_option
def rollover(name: str, strategy: str, environment: str | None) -> None:
    """Replace an app's containers by new ones of the same code, as a new version."""
    from tidemill import config
    from tidemill._wire.deploying import AppDeployed, RolloverApp

    message = RolloverApp(name, config.environment(environment), strategy)
    _tell("Rolled over", _replaced(ask("rollover_app", message, AppDeployed)))


def _replaced(deployed: "AppDeployed") -> "AppDeployed":
    """Return when the containers have ended that were told to."""
    from tidemill import _loop, _output, _replacing
    from tidemill.cli.asking import client

    if deployed.replaced:
        with _output.show():
            output = _output.current()
            assert output is not None
            _loop.wait(_replacing.ended(client(), deployed, output))
    return deployed


def _tell(done: str, deployed: "AppDeployed") -> None:
    if deployed.skipped:
        click.echo(f"Nothing changes: the app is at version {deployed.version}", err=True)
        return
    click.echo(f"✓ {done}: the app is at version {deployed.version}", err=True)


@click.command()
@app_argument
@yes_option
@environment_option
def stop(name: str, yes: bool, environment: str | None) -> None:
    """Stop an app: its containers end, its name is free."""
    from tidemill import config
    from tidemill._wire.control import Done
    from tidemill._wire.deploying import StopDeployed

    where = config.environment(environment)
    confirm(f"Stop the app {name} in the environment {where}?", yes=yes)
    ask("stop_deployed", StopDeployed(name, where, "stopped by `tidemill app stop`"), Done)
    click.echo(f"✓ Stopped {name}", err=True)


@click.command()
@app_argument
@environment_option
def dashboard(name: str, environment: str | None) -> None:
    """Print where an app can be looked at, and open it in a browser if this is a terminal."""
    from tidemill import _deploying

    url = _deploying.page(_details(name, environment).app.app_id)
    if not url:
        raise NotFoundError(
            "the address of this server's gateway is not known here", hint="ask who runs the server"
        )
    click.echo(url)
    if sys.stdout.isatty():
        click.launch(url)


def _details(name: str, environment: str | None) -> "AppDetails":
    from tidemill import config
    from tidemill._wire.apps import AppDetails, GetApp

    is_id = name.startswith("ap-")
    message = GetApp(name) if is_id else GetApp(name=name, environment=config.environment(environment))
    return ask("get_app", message, AppDetails)
