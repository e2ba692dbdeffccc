"""The program: its commands, and how it says that something is wrong."""

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import click

from tidemill.cli import errors
from tidemill.exception import Error

# name -> (module, what it does); a command's module is imported when the command is run
COMMANDS: Mapping[str, tuple[str, str]] = {
    "run": ("tidemill.cli.run", "Run a function or a local entrypoint of an app."),
    "container": ("tidemill.cli.container", "Look at running containers, run programs in them, stop them."),
    "up": ("tidemill.cli.stack", "Start a stack on this machine that stays."),
    "down": ("tidemill.cli.stack", "Stop the stack that `up` started."),
    "status": ("tidemill.cli.status", "Show the stack's parts and its workers."),
    "version": ("tidemill.cli.version", "Show the version."),
}

INTERRUPTED = 128 + 2  # what a shell shows for a program that SIGINT ended


class _Commands(click.Group):
    """The table of commands as a click group."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, sentence) for name, (_, sentence) in COMMANDS.items()])


def _version(ctx: click.Context, _parameter: click.Parameter, asked: Any) -> None:
    if asked:
        ctx.invoke(importlib.import_module("tidemill.cli.version").version)
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
)
def program() -> None:
    """Run Python functions elsewhere: on this machine, or on machines of your own."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the program and end the process with its exit status."""
    status = _run(arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # who read our output has gone: nothing more to say, here or at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        result = program.main(arguments, prog_name="tidemill", standalone_mode=False)
    except click.UsageError as error:
        errors.show_usage(error)
        return error.exit_code
    except click.ClickException as error:
        errors.show(error.format_message())
        return error.exit_code
    except Error as error:
        errors.show(str(error), error.hint)
        return 1
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return result if isinstance(result, int) else 0
