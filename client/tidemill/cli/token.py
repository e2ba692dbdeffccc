"""`tidemill token`: who may use a workspace. A token's secret is shown once, when it is made."""

import json
import os
import sys
from typing import TYPE_CHECKING

import click

from tidemill import _profiles
from tidemill.cli import listing
from tidemill.cli.asking import ask, client, confirm, json_option, yes_option
from tidemill.cli.groups import CommandTable
from tidemill.exception import Error, InvalidError

if TYPE_CHECKING:
    from tidemill._server import Credentials
    from tidemill._wire.tokens import TokenCreated, TokenInfo

_HERE = "tidemill.cli.token"
COMMANDS = {
    "info": (f"{_HERE}:info", "Show the token in use."),
    "list": (f"{_HERE}:list_tokens", "List the tokens of the workspace."),
    "new": (f"{_HERE}:new", "Make a further token."),
    "set": (f"{_HERE}:set_token", "Keep a token, for this server or another, in a profile."),
    "rotate": (f"{_HERE}:rotate", "Replace the token of the profile in use."),
    "revoke": (f"{_HERE}:revoke", "End a token and its connections."),
}


@click.group(cls=CommandTable, table=COMMANDS)
def token() -> None:
    """Make and end the tokens that let programs use a workspace."""


@click.command()
@json_option
def info(as_json: bool) -> None:
    """Show the token in use, and the server that it is for."""
    credentials = _credentials()
    known = next((each for each in _tokens() if each.token_id == credentials.token_id), None)
    record = {
        "Token ID": credentials.token_id,
        "Server": credentials.server_url,
        "Profile": _profiles.active().name,
        "Workspace": known.workspace if known else None,
        "Name": known.name if known else None,
        "Created at": listing.time(known.created) if known else None,
        "Expires at": listing.time(known.expires) if known else None,
        "Last used at": listing.time(known.last_used) if known else None,
    }
    listing.show_record(record, as_json=as_json)


@click.command("list")
@click.option("-a", "--all", "with_revoked", is_flag=True, help="List revoked tokens too.")
@json_option
def list_tokens(with_revoked: bool, as_json: bool) -> None:
    """List the tokens of the workspace, newest first, without their secrets."""
    columns = ["Token ID", "Name", "Created at", "Expires at", "Last used at", "Revoked at"]
    columns += ["Created by", "Revoked by"]
    rows = [
        (
            each.token_id,
            each.name,
            *map(listing.time, (each.created, each.expires, each.last_used, each.revoked)),
            each.created_by,
            each.revoked_by,
        )
        for each in _tokens(with_revoked=with_revoked)
    ]
    listing.show(columns, rows, as_json=as_json)


@click.command()
@click.option("--name", default="", metavar="TEXT", help="What it is for.")
@click.option(
    "--days", type=click.FloatRange(min=0, min_open=True), help="How long it is good; for ever by default."
)
@json_option
def new(name: str, days: float | None, as_json: bool) -> None:
    """Make a further token for the workspace, for another machine or program.

    Its secret is written here and kept nowhere. On the other machine: `tidemill token set`.
    """
    made = _make(name, None if days is None else days * 86_400)
    if as_json:
        click.echo(json.dumps({"token_id": made.token.token_id, "token_secret": made.secret}, indent=2))
        return
    click.echo(f"Token ID      {made.token.token_id}\nToken secret  {made.secret}")
    click.echo("The secret is shown this once", err=True)


@click.command("set")
@click.option("--token-id", prompt="Token ID", metavar="ID", help="The token; asked for if it is not given.")
@click.option("--token-secret", metavar="SECRET", help="Its secret; - reads it from the standard input.")
@click.option("--server-url", metavar="URL", help="The server: nats://host:port. Default: the profile's own.")
@click.option("--profile", "name", metavar="NAME", help="The profile to keep it in. Default: the one in use.")
@click.option(
    "--activate/--no-activate", default=True, show_default=True, help="Use the profile from now on."
)
@click.option("--verify/--no-verify", default=True, show_default=True, help="Try the token first.")
def set_token(
    token_id: str,
    token_secret: str | None,
    server_url: str | None,
    name: str | None,
    activate: bool,
    verify: bool,
) -> None:
    """Keep a token in a profile of the configuration file."""
    if token_secret is None:
        token_secret = click.prompt("Token secret", hide_input=True, err=True)
    elif token_secret == "-":  # noqa: S105 - not a secret
        token_secret = sys.stdin.readline().strip()
    name = name or os.environ.get("TIDEMILL_PROFILE") or _profiles.active().name
    kept = _profiles.read().profiles.get(name, _profiles.Profile(name)).settings.get("server_url", "")
    url = server_url or kept
    if verify:
        _verify(token_id, token_secret, url)
    settings = {"server_url": url} if url else {}
    _profiles.store(
        name, {**settings, "token_id": token_id, "token_secret": token_secret}, make_active=activate
    )
    click.echo(f"✓ Kept in the profile {name} of {_profiles.path()}", err=True)


@click.command()
@yes_option
def rotate(yes: bool) -> None:
    """Replace the token of the profile in use by a new one, and revoke the old one."""
    old, profile = _credentials(), _profiles.active()
    if profile.settings.get("token_id") != old.token_id:
        raise InvalidError(
            f"the token in use is not that of the profile {profile.name}, so it cannot be replaced there",
            hint="make another with `tidemill token new`, end this one with `tidemill token revoke`",
        )
    confirm(f"Replace the token {old.token_id} of the profile {profile.name}?", yes=yes)
    name = next((each.name for each in _tokens() if each.token_id == old.token_id), "")
    made = _make(name, None)
    _verify(made.token.token_id, made.secret, old.server_url)
    # Kept before the old one ends: at every moment one that works is in the file.
    _profiles.store(profile.name, {"token_id": made.token.token_id, "token_secret": made.secret})
    try:
        _revoke(old.token_id)
    except Error as error:
        hint = f"end it with: tidemill token revoke {old.token_id}"
        raise type(error)(
            f"the new token is in use, but the old one is still good: {error}", hint=hint
        ) from error
    click.echo(f"✓ The profile {profile.name} now has {made.token.token_id}", err=True)


@click.command()
@click.argument("token_id")
@yes_option
def revoke(token_id: str, yes: bool) -> None:
    """End a token: connections that it made are ended too."""
    confirm(f"Revoke {token_id}?", yes=yes)
    _revoke(token_id)
    click.echo(f"✓ Revoked {token_id}", err=True)


# --- the server


def _credentials() -> "Credentials":
    from tidemill import _loop

    return _loop.wait(client().find_server())


def _tokens(*, with_revoked: bool = False) -> "tuple[TokenInfo, ...]":
    from tidemill._wire.tokens import ListTokens, TokenList

    return ask("list_tokens", ListTokens(with_revoked), TokenList).tokens


def _make(name: str, lifetime: float | None) -> "TokenCreated":
    from tidemill._wire.tokens import CreateToken, TokenCreated

    return ask("create_token", CreateToken(name, lifetime), TokenCreated)


def _revoke(token_id: str) -> None:
    from tidemill._wire.control import Done
    from tidemill._wire.tokens import RevokeToken

    ask("revoke_token", RevokeToken(token_id), Done)


def _verify(token_id: str, secret: str, server_url: str) -> None:
    """Connect with a token. Raises `AuthError` or `ConnectionError`."""
    from tidemill import Client

    tried: Client = Client.from_credentials(token_id, secret, server_url=server_url)
    tried.check_lasting()
    with tried:
        return
