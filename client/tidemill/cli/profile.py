"""`tidemill profile`: which server the command line and programs speak to."""

import os

import click

from tidemill import _profiles
from tidemill.cli import listing
from tidemill.cli.asking import json_option
from tidemill.cli.groups import CommandTable

_HERE = "tidemill.cli.profile"
COMMANDS = {
    "list": (f"{_HERE}:list_profiles", "List the profiles."),
    "current": (f"{_HERE}:current", "Show the profile in use."),
    "activate": (f"{_HERE}:activate", "Use another profile from now on."),
}


@click.group(cls=CommandTable, table=COMMANDS)
def profile() -> None:
    """Keep several servers and environments apart, in one configuration file."""


@click.command("list")
@json_option
def list_profiles(as_json: bool) -> None:
    """List the profiles of the configuration file."""
    in_use = _profiles.active().name
    rows = [
        (
            each.name,
            each.name == in_use,
            each.settings.get("server_url"),
            each.settings.get("environment"),
            each.settings.get("token_id"),
        )
        for each in _profiles.read().profiles.values()
    ]
    listing.show(("Name", "Active", "Server", "Environment", "Token ID"), rows, as_json=as_json)


@click.command()
def current() -> None:
    """Show the name of the profile in use."""
    click.echo(_profiles.active().name)


@click.command()
@click.argument("name")
def activate(name: str) -> None:
    """Use a profile from now on."""
    _profiles.activate(name)
    click.echo(f"✓ The profile {name} is active", err=True)
    if os.environ.get("TIDEMILL_PROFILE") not in (None, "", name):
        click.echo("TIDEMILL_PROFILE is set, and still wins in this shell", err=True)
