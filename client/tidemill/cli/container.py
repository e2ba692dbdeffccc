"""`tidemill container`: the containers that run, one by one."""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tidemill._exec import Process
    from tidemill._wire.control import ContainerInfo


@click.group()
def container() -> None:
    """Look at running containers, run programs in them, stop them."""


# --- list


@container.command("list")
@click.option("--app-id", default="", metavar="ID", help="Only the containers of this app.")
@click.option("--json", "as_json", is_flag=True, help="Write everything as JSON.")
def list_(app_id: str, as_json: bool) -> None:
    """List the containers that run, oldest first."""
    from tidemill._wire.control import ContainerList, ListContainers

    found = _ask("list_containers", ListContainers(app_id), ContainerList).containers
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
    else:
        _show(found)


def _show(found: "tuple[ContainerInfo, ...]") -> None:
    import datetime

    from tidemill.cli.status import table

    columns = ("container", "app", "app id", "function", "state", "started")
    rows = []
    for one in found:
        started = datetime.datetime.fromtimestamp(one.created, datetime.UTC).astimezone()
        cells = (one.container, one.app_name, one.app_id, one.function, one.state)
        rows.append((*cells, f"{started:%Y-%m-%d %H:%M:%S}"))
    table(columns, rows)


# --- exec


@container.command(
    "exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.option("--pty/--no-pty", default=None, help="Whether it gets a terminal. Default: if this is one.")
@click.argument("container_id", metavar="CONTAINER")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND...")
def exec_(container_id: str, command: tuple[str, ...], pty: bool | None) -> int:
    """Run a program in a running container, with the input and output of this one.

    Ends with the program's exit status; the program ends with this command.
    """
    from tidemill import _client, _console, _loop
    from tidemill._exec import Process

    if pty and not _console.is_terminal():
        raise click.UsageError("--pty needs a terminal at standard input and output")
    terminal = _console.is_terminal() if pty is None else pty
    _check_stack()
    process = Process(_client.current(), container_id, command, terminal=terminal)
    with _signals_passed_on(process, terminal=terminal):
        return _loop.wait(process.run())


@contextlib.contextmanager
def _signals_passed_on(process: "Process", *, terminal: bool) -> Iterator[None]:
    """Let the program hear signals. The second of a kind, or one that comes to a terminal, ends this."""
    from tidemill import _console

    heard: set[int] = set()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        is_first = number not in heard
        heard.add(number)
        if not terminal and is_first and process.signal(number):
            return
        if not process.leave(number):
            _console.restore()
            os._exit(128 + number)  # nothing has begun, or it does not end: the other side notices

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- stop


@container.command()
@click.option("--graceful", is_flag=True, help="Let it finish what it runs first; it takes nothing more.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.argument("container_id", metavar="CONTAINER")
def stop(container_id: str, graceful: bool, yes: bool) -> None:
    """Stop a container; what it runs now runs again in another."""
    from tidemill._wire.control import Done, StopContainer

    if not yes and sys.stdin.isatty():
        click.confirm(f"Stop {container_id}?", abort=True, err=True)
    _ask("stop_container", StopContainer(container_id, graceful), Done)
    click.echo(f"Stopping {container_id}", err=True)


# --- what all of them need


def _ask(verb: str, message: object, answer: type[Any]) -> Any:
    """Ask the scheduler of the stack that runs."""
    from tidemill import _client, _loop

    _check_stack()
    return _loop.wait(_client.current().request("scheduler", verb, message, answer))


def _check_stack() -> None:
    """Refuse where no stack runs: one that is started for this command has no containers."""
    from tidemill import _stack, exception

    if not os.environ.get("TIDEMILL_SERVER_URL") and _stack.find() is None:
        raise exception.ConnectionError("no stack is running", hint="start one with `tidemill up`")
