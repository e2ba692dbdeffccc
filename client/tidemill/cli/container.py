"""`tidemill container`: the containers that run, one by one."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from tidemill.cli.asking import client, confirm, json_option, yes_option
from tidemill.cli.groups import CommandTable

if TYPE_CHECKING:
    from tidemill._exec import Process

_HERE = "tidemill.cli.container"
COMMANDS = {
    "list": (f"{_HERE}:list_containers", "List the containers that run."),
    "logs": ("tidemill.cli.logs:container_logs", "Show what a container printed."),
    "exec": (f"{_HERE}:execute", "Run a program in a container."),
    "stop": (f"{_HERE}:stop", "Stop a container."),
}


@click.group(cls=CommandTable, table=COMMANDS)
def container() -> None:
    """Look at containers, run programs in them, stop them. CONTAINER is a container's id (co-...)."""


container_argument = click.argument("container_id", metavar="CONTAINER")


# --- list


@click.command("list")
@click.option("--app-id", default="", metavar="ID", help="Only the containers of this app.")
@json_option
def list_containers(app_id: str, as_json: bool) -> None:
    """List the containers that run, oldest first."""
    from tidemill._wire.containers import ContainerList, ListContainers
    from tidemill.cli import listing

    found = _ask("list_containers", ListContainers(app_id), ContainerList).containers
    columns = ("Container ID", "App ID", "App name", "Function", "State", "Created at")
    rows = [
        (one.container, one.app_id, one.app_name, one.function, one.state, listing.time(one.created))
        for one in found
    ]
    listing.show(columns, rows, as_json=as_json)


# --- exec


@click.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--pty/--no-pty", default=None, help="Whether it gets a terminal. Default: if this is one.")
@container_argument
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND...")
def execute(container_id: str, command: tuple[str, ...], pty: bool | None) -> int:
    """Run a program in a running container, with the input and output of this one.

    Ends with the program's exit status; the program ends with this command.
    """
    from tidemill import _console, _loop
    from tidemill._exec import Process

    if pty and not _console.is_terminal():
        raise click.UsageError("--pty needs a terminal at standard input and output")
    terminal = _console.is_terminal() if pty is None else pty
    process = Process(client(), container_id, command, terminal=terminal)
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


@click.command()
@click.option("--graceful", is_flag=True, help="Let it finish what it runs first; it takes nothing more.")
@yes_option
@container_argument
def stop(container_id: str, graceful: bool, yes: bool) -> None:
    """Stop a container; what it runs now runs again in another."""
    from tidemill._wire.containers import StopContainer
    from tidemill._wire.control import Done

    confirm(f"Stop {container_id}?", yes=yes)
    _ask("stop_container", StopContainer(container_id, graceful), Done)
    click.echo(f"Stopping {container_id}", err=True)


def _ask(verb: str, message: object, answer: type[Any]) -> Any:
    """Return the scheduler's answer, or raise its error."""
    from tidemill import _loop

    return _loop.wait(client().request("scheduler", verb, message, answer))
