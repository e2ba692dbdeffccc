"""`tidemill container`: what runs."""

import click

from tidemill.cli.groups import CommandTable

COMMANDS = {
    "logs": ("tidemill.cli.logs:container_logs", "Show what a container printed."),
}


@click.group(cls=CommandTable, table=COMMANDS)
def container() -> None:
    """Look at containers. CONTAINER is a container's id (co-...)."""
