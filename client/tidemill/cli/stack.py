"""`tidemill up` and `tidemill down`: the stack that stays."""

import time

import click

from tidemill import _stack


@click.command()
def up() -> None:
    """Start a stack on this machine that stays.

    It keeps its data in $TIDEMILL_HOME (~/.tidemill). Programs of this user find it by themselves.
    """
    if (info := _stack.find()) is not None:
        click.echo(f"A stack is already running (pid {info.pid})", err=True)
        return
    begun = time.monotonic()
    click.echo("Starting…", err=True)
    info = _stack.start_lasting()
    click.echo(f"The stack serves after {time.monotonic() - begun:.1f} s (pid {info.pid})", err=True)
    click.echo(f"  NATS     {info.server_url}", err=True)
    click.echo(f"  gateway  {info.gateway_url}", err=True)
    click.echo(f"  data     {info.folder}", err=True)
    click.echo("See `tidemill status`, end it with `tidemill down`", err=True)


@click.command()
def down() -> None:
    """Stop the stack that `up` started."""
    stopped = _stack.stop_lasting()
    click.echo("Stopped" if stopped else "No stack is running", err=True)
