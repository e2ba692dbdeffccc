"""How lists are shown: as a table for people, as JSON for programs."""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

WIDE = 500  # nothing is cut for who reads a file or a pipe


def show(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, as_json: bool) -> None:
    """Show rows under their columns. In JSON the keys are the columns, lower-cased, with underscores."""
    if as_json:
        keys = list(map(_key, columns))
        show_json([dict(zip(keys, row, strict=True)) for row in rows])
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(value if isinstance(value, Text) else Text(_text(value)) for value in row))
    console.print(table)


def show_record(record: Mapping[str, Any], *, as_json: bool) -> None:
    """Show one thing, a line for each of its properties."""
    if as_json:
        show_json({_key(name): value for name, value in record.items()})
        return
    width = max(map(len, record))
    for name, value in record.items():
        click.echo(f"{name:<{width}}  {_text(value)}")


def show_json(value: Any) -> None:
    """Show records for programs, with times in ISO 8601."""
    click.echo(json.dumps(value, indent=2, default=datetime.datetime.isoformat))


def time(seconds: float | None) -> datetime.datetime | None:
    """Return a unix time as it is shown: local time."""
    return None if seconds is None else datetime.datetime.fromtimestamp(seconds).astimezone()


def _key(title: str) -> str:
    return title.lower().replace(" ", "_")


def _text(value: Any) -> str:
    match value:
        case None | "" | () | []:
            return "-"
        case datetime.datetime():
            return f"{value:%Y-%m-%d %H:%M:%S}"
        case bool():
            return "yes" if value else "no"
        case dict():
            return ", ".join(f"{name}={each}" for name, each in value.items()) or "-"
        case list() | tuple():
            return ", ".join(map(str, value))
    return str(value)
