"""`tidemill environment`: parts of a workspace that know nothing of each other's apps and secrets."""

from typing import TYPE_CHECKING

import click

from tidemill.cli import listing
from tidemill.cli.asking import ask, confirm, json_option, yes_option
from tidemill.cli.groups import CommandTable

if TYPE_CHECKING:
    from tidemill._wire.environments import EnvironmentInfo

_HERE = "tidemill.cli.environment"
COMMANDS = {
    "list": (f"{_HERE}:list_environments", "List the environments."),
    "create": (f"{_HERE}:create", "Make an environment."),
    "update": (f"{_HERE}:update", "Rename an environment, or change its suffix."),
    "delete": (f"{_HERE}:delete", "Delete an environment with all that is in it."),
}


@click.group(cls=CommandTable, table=COMMANDS)
def environment() -> None:
    """Divide a workspace, for instance into `main` and `dev`."""


suffix_option = click.option("--web-suffix", metavar="SUFFIX", help="What stands in the URLs of its apps.")


def environments() -> "tuple[EnvironmentInfo, ...]":
    """Return the environments of the workspace."""
    from tidemill._wire.environments import EnvironmentList, ListEnvironments

    return ask("list_environments", ListEnvironments(), EnvironmentList).environments


@click.command("list")
@json_option
def list_environments(as_json: bool) -> None:
    """List the environments by name; the one in use is marked as active."""
    from tidemill import config

    active = config.environment()
    columns = ("Name", "Active", "Web suffix", "Apps", "Created at")
    rows = [
        (each.name, each.name == active, each.web_suffix, each.apps, listing.time(each.created))
        for each in environments()
    ]
    listing.show(columns, rows, as_json=as_json)


@click.command()
@click.argument("name")
@suffix_option
def create(name: str, web_suffix: str | None) -> None:
    """Make an environment."""
    from tidemill._wire.environments import CreateEnvironment, EnvironmentInfo

    ask("create_environment", CreateEnvironment(name, web_suffix or ""), EnvironmentInfo)
    click.echo(f"✓ Created the environment {name}", err=True)


@click.command()
@click.argument("name")
@click.option("--set-name", metavar="NAME", default="", help="Its new name.")
@click.option("--set-web-suffix", metavar="SUFFIX", help="What is to stand in the URLs of its apps.")
def update(name: str, set_name: str, set_web_suffix: str | None) -> None:
    """Rename an environment, or change its suffix."""
    from tidemill._wire.environments import EnvironmentInfo, UpdateEnvironment

    if not set_name and set_web_suffix is None:
        raise click.UsageError("nothing to change: give --set-name or --set-web-suffix")
    ask("update_environment", UpdateEnvironment(name, set_name, set_web_suffix), EnvironmentInfo)
    click.echo(f"✓ Updated the environment {set_name or name}", err=True)


@click.command()
@click.argument("name")
@yes_option
def delete(name: str, yes: bool) -> None:
    """Stop the apps of an environment, and delete it with its secrets."""
    from tidemill._wire.control import Done
    from tidemill._wire.environments import DeleteEnvironment

    confirm(f"Delete the environment {name}, its apps and its secrets?", yes=yes)
    ask("delete_environment", DeleteEnvironment(name), Done)
    click.echo(f"✓ Deleted the environment {name}", err=True)
