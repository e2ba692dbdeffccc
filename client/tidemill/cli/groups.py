"""Groups of commands as tables: a command's module is imported when the command is run."""

import importlib
import os
from collections.abc import Mapping
from typing import Any

import click


class CommandTable(click.Group):
    """A click group that knows its commands by name only: `name -> (module, or module:attribute; sentence)`.

    Every command takes `--profile`.
    """

    def __init__(self, *args: Any, table: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in self.table:
            return None
        module, _, attribute = self.table[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute or cmd_name)
        _add_profile(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, sentence) for name, (_, sentence) in self.table.items()])


def _add_profile(command: click.Command) -> None:
    """Give `--profile` to a command, or to those of a group, unless it has one of its own."""
    if isinstance(command, click.Group):
        for each in command.commands.values():
            _add_profile(each)
    elif not any("--profile" in parameter.opts for parameter in command.params):
        command.params.append(_Profile())


class _Profile(click.Option):
    """`--profile`, which stands for `TIDEMILL_PROFILE`."""

    def __init__(self) -> None:
        super().__init__(
            ["--profile"],
            metavar="NAME",
            is_eager=True,
            expose_value=False,
            callback=_use_profile,
            help="Use another profile of the configuration file.",
        )


def _use_profile(_ctx: click.Context, _parameter: click.Parameter, name: str | None) -> None:
    if name:
        os.environ["TIDEMILL_PROFILE"] = name
