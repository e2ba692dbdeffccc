"""What commands that ask the registry have in common: their options, and how they ask."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tidemill.exception import InvalidError

if TYPE_CHECKING:
    from tidemill._client import Client

A = TypeVar("A")
F = TypeVar("F", bound=Callable[..., Any])

PAGE = 200  # entries that are asked for at once


def environment_option(command: F) -> F:
    """Add `-e`."""
    return click.option(
        "-e", "--env", "environment", metavar="NAME", help="The environment. Default: the configured one."
    )(command)


def json_option(command: F) -> F:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Write everything as JSON.")(command)


def yes_option(command: F) -> F:
    """Add `-y`."""
    return click.option("-y", "--yes", is_flag=True, help="Do not ask.")(command)


def confirm(question: str, *, yes: bool) -> None:
    """Go on only if the user agrees, or `yes` says so already.

    Raises `InvalidError` where nobody can be asked, and ends the command with 1 if the answer is no.
    """
    if yes:
        return
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        click.echo(err=True)  # the question has no answer: end its line
        raise InvalidError("nobody is there to confirm it", hint="give --yes") from None
    if not agreed:
        click.echo("Nothing was changed", err=True)
        raise click.exceptions.Exit(1)


def strategy_option(command: F) -> F:
    """Add `--strategy`."""
    return click.option(
        "--strategy",
        type=click.Choice(["rolling", "recreate"]),
        default="rolling",
        show_default=True,
        help="Let containers of the version before finish what they do, or stop them at once.",
    )(command)


def client() -> "Client":
    """Return the client of this process. Raises `ConnectionError` where no server runs."""
    from tidemill import _client

    found = _client.current()
    found.check_lasting()
    return found


def ask(verb: str, message: object, answer: type[A]) -> A:
    """Return the registry's answer, or raise its error."""
    from tidemill import _loop

    return _loop.wait(client().request("registry", verb, message, answer))


def ask_pages(
    verb: str, page: Callable[[str, int], object], answer: type[A], limit: int | None = None
) -> list[A]:
    """Return the pages of a list, asked for one after the other, until there are `limit` entries.

    `page` makes the request from the cursor and the number of entries that are wanted.
    """
    pages: list[A] = []
    cursor, wanted = "", limit
    while wanted is None or wanted > 0:
        size = PAGE if wanted is None else min(PAGE, wanted)
        found: Any = ask(verb, page(cursor, size), answer)
        pages.append(found)
        cursor = found.cursor
        if not cursor:
            break
        wanted = None if wanted is None else wanted - size
    return pages
