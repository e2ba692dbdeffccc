"""`tidemill version`."""

import click


@click.command()
def version() -> None:
    """Show the version."""
    from importlib import metadata

    click.echo(f"tidemill {metadata.version('tidemill')}")
