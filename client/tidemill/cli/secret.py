"""`tidemill secret`: variables that are stored on the server for containers. Values go in and never out."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from tidemill.cli import listing
from tidemill.cli.asking import client, confirm, environment_option, json_option, yes_option
from tidemill.cli.groups import CommandTable
from tidemill.exception import AlreadyExistsError, InvalidError

_HERE = "tidemill.cli.secret"
COMMANDS = {
    "list": (f"{_HERE}:list_secrets", "List the secrets of an environment."),
    "create": (f"{_HERE}:create", "Store a secret."),
    "delete": (f"{_HERE}:delete", "Delete a secret."),
}


@click.group(cls=CommandTable, table=COMMANDS)
def secret() -> None:
    """Keep passwords and keys on the server, for functions that name them."""


@click.command("list")
@environment_option
@json_option
def list_secrets(environment: str | None, as_json: bool) -> None:
    """List the secrets of an environment by name, without their values."""
    from tidemill.secret import Secret

    found = Secret.objects.list(environment_name=environment, client=client())
    columns = ("Name", "Keys", "Created at", "Created by", "Updated at", "Updated by", "Last used at")
    rows = []
    for each in found:
        known = each.info()
        used = None if known.last_used_at is None else known.last_used_at.astimezone()
        made = (known.created_at.astimezone(), known.created_by)
        changed = (known.updated_at.astimezone(), known.updated_by)
        rows.append((known.name, list(known.keys), *made, *changed, used))
    listing.show(columns, rows, as_json=as_json)


@click.command()
@click.argument("name")
@click.argument("pairs", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--from-dotenv", type=click.Path(path_type=Path), help="Take the variables of a .env file too.")
@click.option("--from-json", type=click.Path(path_type=Path), help="Take the entries of a JSON object too.")
@click.option("--force", is_flag=True, help="Replace a secret of this name.")
@environment_option
def create(
    name: str,
    pairs: tuple[str, ...],
    from_dotenv: Path | None,
    from_json: Path | None,
    force: bool,
    environment: str | None,
) -> None:
    """Store a secret. `KEY=-` opens $EDITOR for the value, which then is in no history of a shell."""
    from tidemill import _loop, _names, _secret_objects

    _names.check_object("a secret", name)
    values = {**_from_dotenv(from_dotenv), **_from_json(from_json), **dict(map(_pair, pairs))}
    if not values:
        raise click.UsageError("no variables: give KEY=VALUE, --from-dotenv or --from-json")
    storing = _secret_objects.store(
        name,
        _names.check_variables(f"the secret {name}", values),
        environment_name=environment,
        client=client(),
        overwrite=force,
    )
    try:
        stored = _loop.wait(storing)
    except AlreadyExistsError as error:
        raise AlreadyExistsError(str(error), hint="replace it with --force") from error
    click.echo(f"✓ Stored the secret {name} with {', '.join(stored.keys)}", err=True)
    click.echo(f'Use it: @app.function(secrets=[tidemill.Secret.from_name("{name}")])', err=True)


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise click.UsageError(f"not KEY=VALUE: {key}")
    return key, _edited(key) if value == "-" else value


def _edited(key: str) -> str:
    """Return what the user wrote in the editor."""
    if not sys.stdin.isatty() and not (os.environ.get("VISUAL") or os.environ.get("EDITOR")):
        raise InvalidError(
            f"{key}=- opens an editor, which needs a terminal", hint="give --from-dotenv - or --from-json -"
        )
    text = click.edit(f"# The value of {key}. Lines that begin with # are left out.\n", extension=".txt")
    if text is None:
        raise InvalidError(f"{key}: nothing was saved in the editor", hint="save the file, or give KEY=VALUE")
    return "\n".join(line for line in text.splitlines() if not line.startswith("#")).strip("\n")


def _from_dotenv(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    from tidemill import _dotenv

    return dict(_dotenv.parse(_read(path)))


def _from_json(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        values = json.loads(_read(path))
    except ValueError as error:
        raise InvalidError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise InvalidError(f"{path} is not a JSON object", hint='it has to be like {"KEY": "value"}')
    return values


def _read(path: Path) -> str:
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


@click.command()
@click.argument("name")
@click.option("--allow-missing", is_flag=True, help="Do nothing if there is none.")
@yes_option
@environment_option
def delete(name: str, allow_missing: bool, yes: bool, environment: str | None) -> None:
    """Delete a secret. Containers that run keep what they have."""
    from tidemill.secret import Secret

    confirm(f"Delete the secret {name}?", yes=yes)
    Secret.objects.delete(name, allow_missing=allow_missing, environment_name=environment, client=client())
    click.echo(f"✓ Deleted the secret {name}", err=True)
