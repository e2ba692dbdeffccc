"""`tidemill workspace`: who may use its web functions, and how often."""

import json
from typing import TYPE_CHECKING, Any

import click

from tidemill.cli import listing
from tidemill.cli.asking import ask, confirm, environment_option, json_option, yes_option
from tidemill.cli.groups import CommandTable
from tidemill.exception import InvalidError

if TYPE_CHECKING:
    from tidemill._wire.limits import LimitRecord

_HERE = "tidemill.cli.workspace"
COMMANDS = {
    "proxy-tokens": (f"{_HERE}:proxy_tokens", "Make and end tokens that open web functions."),
    "rate-limit": (f"{_HERE}:rate_limit", "Limit how many requests per second are let through."),
}
PROXY_TOKENS = {
    "create": (f"{_HERE}:create", "Make a proxy token."),
    "list": (f"{_HERE}:list_tokens", "List the proxy tokens."),
    "revoke": (f"{_HERE}:revoke", "End a proxy token."),
}
RATE_LIMIT = {
    "list": (f"{_HERE}:list_limits", "List the limits that are set."),
    "set": (f"{_HERE}:set_limit", "Limit the workspace, an app or a token."),
    "remove": (f"{_HERE}:remove_limit", "Remove a limit that was set."),
}


@click.group(cls=CommandTable, table=COMMANDS)
def workspace() -> None:
    """Look after what the workspace's web functions let in."""


@click.group(cls=CommandTable, table=PROXY_TOKENS)
def proxy_tokens() -> None:
    """Make and end the tokens that open web functions with requires_proxy_auth."""


@click.group(cls=CommandTable, table=RATE_LIMIT)
def rate_limit() -> None:
    """Limit web requests and calls by REST. The workspace has 200 per second, 1,000 at once."""


# --- proxy tokens


@click.command()
@click.option("--name", default="", metavar="TEXT", help="What it is for.")
@json_option
def create(name: str, as_json: bool) -> None:
    """Make a proxy token. Its secret is written here and kept nowhere."""
    from tidemill._wire.proxy_tokens import CreateProxyToken, ProxyTokenCreated

    made = ask("create_proxy_token", CreateProxyToken(name), ProxyTokenCreated)
    if as_json:
        click.echo(json.dumps({"token_id": made.token.token_id, "token_secret": made.secret}, indent=2))
        return
    click.echo(f"Tidemill-Key     {made.token.token_id}\nTidemill-Secret  {made.secret}")
    click.echo("The secret is shown this once", err=True)


@click.command("list")
@click.option("-a", "--all", "with_revoked", is_flag=True, help="List revoked tokens too.")
@json_option
def list_tokens(with_revoked: bool, as_json: bool) -> None:
    """List the proxy tokens, newest first, without their secrets."""
    from tidemill._wire.proxy_tokens import ListProxyTokens, ProxyTokenList

    found = ask("list_proxy_tokens", ListProxyTokens(with_revoked), ProxyTokenList).tokens
    rows = [
        (each.token_id, each.name, listing.time(each.created), listing.time(each.revoked)) for each in found
    ]
    listing.show(("Token ID", "Name", "Created at", "Revoked at"), rows, as_json=as_json)


@click.command()
@click.argument("token_id")
@yes_option
def revoke(token_id: str, yes: bool) -> None:
    """End a proxy token: from now on it opens nothing."""
    from tidemill._wire.control import Done
    from tidemill._wire.proxy_tokens import RevokeProxyToken

    confirm(f"Revoke {token_id}?", yes=yes)
    ask("revoke_proxy_token", RevokeProxyToken(token_id), Done)
    click.echo(f"✓ Revoked {token_id}", err=True)


# --- limits


def _whose(command: Any) -> Any:
    """Add what says whose limit is meant."""
    command = environment_option(command)
    command = click.option("--token", metavar="ID", help="The limit of one token, proxy or API.")(command)
    return click.option("--app", metavar="NAME", help="The limit of one app.")(command)


def _named(app: str | None, token: str | None, environment: str | None) -> dict[str, str]:
    from tidemill import config

    if app and token:
        raise InvalidError("a limit is that of an app or of a token", hint="give one of --app and --token")
    if app:
        return {"kind": "app", "name": app, "environment": config.environment(environment)}
    return {"kind": "token", "name": token} if token else {"kind": "workspace"}


@click.command("set")
@click.option(
    "--rate",
    type=float,
    required=True,
    metavar="N",
    help="Requests per second.",
)
@click.option(
    "--burst",
    type=click.FloatRange(min=1),
    metavar="N",
    help="Requests at once. Default: five seconds' worth.",
)
@_whose
def set_limit(
    rate: float, burst: float | None, app: str | None, token: str | None, environment: str | None
) -> None:
    """Limit the workspace, or in addition one app or one token. It holds at once, on every gateway."""
    from tidemill._wire.limits import LimitRecord, SetLimit

    wanted = SetLimit(rate=rate, burst=burst, **_named(app, token, environment))
    made = ask("set_limit", wanted, LimitRecord)
    click.echo(f"✓ {_shown(made)}: {made.limit.rate:g} per second, {made.limit.burst:g} at once", err=True)


@click.command("remove")
@_whose
def remove_limit(app: str | None, token: str | None, environment: str | None) -> None:
    """Remove a limit: the workspace has the default again, an app or a token none of its own."""
    from tidemill._wire.control import Done
    from tidemill._wire.limits import RemoveLimit

    ask("remove_limit", RemoveLimit(**_named(app, token, environment)), Done)
    click.echo("✓ Removed", err=True)


@click.command("list")
@json_option
def list_limits(as_json: bool) -> None:
    """List the limits that are set."""
    from tidemill._wire.limits import LimitList, ListLimits

    found = ask("list_limits", ListLimits(), LimitList).limits
    rows = [(each.kind, each.environment, each.name, each.limit.rate, each.limit.burst) for each in found]
    listing.show(("Kind", "Environment", "Name", "Per second", "At once"), rows, as_json=as_json)


def _shown(record: "LimitRecord") -> str:
    return " ".join(filter(None, (record.kind, record.name)))
