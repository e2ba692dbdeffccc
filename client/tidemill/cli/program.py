"""The program: its commands, and how it says that something is wrong."""

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import click

from tidemill.cli import errors
from tidemill.cli.groups import CommandTable
from tidemill.exception import Error

# name -> (module that has it under its name, what it does)
COMMANDS: Mapping[str, tuple[str, str]] = {
    "run": ("tidemill.cli.run", "Run a function or a local entrypoint of an app."),
    "serve": ("tidemill.cli.serve", "Run an app while its code is written, and follow the changes."),
    "deploy": ("tidemill.cli.deploy", "Deploy an app, which stays until it is stopped."),
    "app": ("tidemill.cli.app", "Look after apps: list, info, history, logs, rollback, stop, ..."),
    "function": ("tidemill.cli.function", "Look at functions, and change how many containers they have."),
    "container": ("tidemill.cli.container", "Look at containers: list, logs, exec, stop."),
    "worker": ("tidemill.cli.worker", "Look at the machines that run containers: list."),
    "call": ("tidemill.cli.call", "Look at calls and what they led to."),
    "dead": ("tidemill.cli.dead", "Look at inputs that were given up, and try them again."),
    "schedule": ("tidemill.cli.schedule", "Look at schedules, and call their functions now."),
    "secret": ("tidemill.cli.secret", "Keep passwords and keys for functions on the server."),
    "environment": ("tidemill.cli.environment", "Divide the workspace into environments."),
    "workspace": ("tidemill.cli.workspace", "Say who may use web functions, and how often."),
    "profile": ("tidemill.cli.profile", "Choose between servers."),
    "token": ("tidemill.cli.token", "Make and end the tokens that programs use."),
    "config": ("tidemill.cli.config", "Look at the settings, and change them."),
    "up": ("tidemill.cli.stack", "Start a stack on this machine that stays."),
    "down": ("tidemill.cli.stack", "Stop the stack that `up` started."),
    "status": ("tidemill.cli.status", "Show the stack's parts and its workers."),
    "version": ("tidemill.cli.version", "Show the version."),
}

INTERRUPTED = 128 + 2  # what a shell shows for a program that SIGINT ended


def _version(ctx: click.Context, _parameter: click.Parameter, asked: Any) -> None:
    if asked:
        ctx.invoke(importlib.import_module("tidemill.cli.version").version)
        ctx.exit()


@click.group(cls=CommandTable, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
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
    except click.exceptions.NoArgsIsHelpError as error:  # a group without a command: its help, no mistake
        error.show()
        return error.exit_code
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
