"""`tidemill config`: the settings that hold here."""

import json
import os

import click

from tidemill.cli.groups import CommandTable

_HERE = "tidemill.cli.config"
COMMANDS = {
    "show": (f"{_HERE}:show", "Show all settings."),
    "set-environment": (f"{_HERE}:set_environment", "Choose the environment to use from now on."),
}


@click.group(cls=CommandTable, table=COMMANDS)
def config() -> None:
    """Look at the settings, and change them in the profile in use."""


@click.command()
@click.option("--redact/--no-redact", default=True, show_default=True, help="Mask secrets.")
def show(redact: bool) -> None:
    """Show all settings as JSON, wherever each comes from."""
    from tidemill.config import config as settings

    click.echo(json.dumps(settings.to_dict(redact=redact), indent=2))


@click.command("set-environment")
@click.argument("name")
def set_environment(name: str) -> None:
    """Choose the environment that the profile in use stands for."""
    from tidemill import _profiles
    from tidemill.cli.environment import environments
    from tidemill.exception import NotFoundError

    if name not in (there := [each.name for each in environments()]):
        raise NotFoundError(f"there is no environment {name!r}", hint=f"there is {', '.join(there)}")
    profile = _profiles.active().name
    _profiles.store(profile, {"environment": name})
    click.echo(f"✓ The profile {profile} now stands for the environment {name}", err=True)
    for variable in ("TIDEMILL_ENVIRONMENT", "MODAL_ENVIRONMENT"):
        if os.environ.get(variable) not in (None, "", name):
            click.echo(f"{variable} is set, and still wins in this shell", err=True)
