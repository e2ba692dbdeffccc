"""What `python -m tidemill_registry` can do."""

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from tidemill._bus.protocol import BusError
from tidemill._wire.tokens import KINDS, MEMBER, CreateToken
from tidemill.exception import Error
from tidemill_common import streams
from tidemill_common.bus.nats import connect
from tidemill_common.settings import load
from tidemill_registry import migrate
from tidemill_registry.cipher import new_key
from tidemill_registry.database import database_clock, new_engine
from tidemill_registry.secrets import Secrets
from tidemill_registry.settings import RegistrySettings
from tidemill_registry.tokens import Tokens
from tidemill_registry.workspaces import Workspaces, checked

Command = Callable[[RegistrySettings, AsyncEngine, argparse.Namespace], Awaitable[Any]]


def main(arguments: Sequence[str]) -> None:
    """Run the registry, or do one thing to its database."""
    chosen = _parser().parse_args(arguments)
    if "alone" in chosen:
        chosen.alone()
        return
    settings = load(RegistrySettings)
    if "command" not in chosen:
        from tidemill_common.service import run
        from tidemill_registry.service import Registry

        run(Registry(settings))
        return
    try:
        told = asyncio.run(_do(chosen.command, settings, chosen))
    except (Error, BusError) as error:
        hint = getattr(error, "hint", "")
        sys.exit(f"error: {error}" + (f"\nhint: {hint}" if hint else ""))
    if told is not None:
        sys.stdout.write(f"{json.dumps(told, indent=2)}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tidemill_registry", description=main.__doc__)
    topics = parser.add_subparsers(metavar="TOPIC")
    up = _command(topics, "migrate", "bring the schema up to a revision", _migrate)
    up.add_argument("revision", nargs="?", default="head")
    down = _command(topics, "downgrade", "bring the schema down to a revision", _downgrade)
    down.add_argument("revision")

    issuer = topics.add_parser("issuer", help="make the key that signs who may do what on NATS")
    issuer.set_defaults(alone=_tell_issuer)
    key = topics.add_parser("new-key", help="print a new key for TIDEMILL_SECRETS_KEY")
    key.set_defaults(alone=_tell_key)
    _command(topics, "rotate-key", "encrypt all secrets with the first of the keys", _rotate_key)

    workspace = topics.add_parser("workspace", help="make and list workspaces").add_subparsers(required=True)
    _command(workspace, "create", "make a workspace", _create_workspace).add_argument("name")
    _command(workspace, "list", "list all workspaces", _list_workspaces)

    token = topics.add_parser("token", help="make, list and revoke tokens").add_subparsers(required=True)
    create = _command(token, "create", "make a token and show its secret, this once", _create_token)
    create.add_argument("workspace", nargs="?", default="", help="whose; none for a worker's")
    create.add_argument("--kind", choices=KINDS, default=MEMBER)
    create.add_argument("--name", default="")
    create.add_argument("--lifetime", type=float, help="seconds; for ever if not given")
    listing = _command(token, "list", "list the tokens of a workspace, or those of workers", _list_tokens)
    listing.add_argument("workspace", nargs="?", default="")
    revoke = _command(token, "revoke", "end a token, and its connections", _revoke_token)
    revoke.add_argument("token_id")
    revoke.add_argument("workspace", nargs="?", default="")
    return parser


def _command(topic: Any, name: str, about: str, command: Command) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = topic.add_parser(name, help=about, description=about)
    parser.set_defaults(command=command)
    return parser


def _tell_issuer() -> None:
    from tidemill_registry import jwt

    seed = jwt.new_seed()
    sys.stdout.write(f"NATS_ISSUER={jwt.Issuer(seed).public}\nNATS_ISSUER_SEED={seed}\n")


def _tell_key() -> None:
    sys.stdout.write(f"{new_key()}\n")


async def _do(command: Command, settings: RegistrySettings, chosen: argparse.Namespace) -> Any:
    engine = new_engine(settings.database_url.get_secret_value(), 2)
    try:
        return await command(settings, engine, chosen)
    finally:
        await engine.dispose()


async def _migrate(_: RegistrySettings, engine: AsyncEngine, chosen: argparse.Namespace) -> None:
    await migrate.upgrade(engine, chosen.revision)


async def _downgrade(_: RegistrySettings, engine: AsyncEngine, chosen: argparse.Namespace) -> None:
    await migrate.downgrade(engine, chosen.revision)


async def _rotate_key(settings: RegistrySettings, engine: AsyncEngine, _: argparse.Namespace) -> None:
    secrets = Secrets(engine, settings.keyring(), database_clock)
    count = await secrets.rotate()
    sys.stdout.write(f"{count:,} secrets were encrypted anew\n")
    if wrong := await secrets.check_keys():
        raise Error(wrong, hint="give these keys too, behind the first one, and rotate again")


async def _create_workspace(
    settings: RegistrySettings, engine: AsyncEngine, chosen: argparse.Namespace
) -> None:
    """Make a workspace's streams and then the workspace. Whichever is there already stays as it is."""
    name = checked(chosen.name)
    password = settings.nats_password.get_secret_value()
    bus = await connect(settings.nats_url, settings.nats_user, password, name="tidemill registry command")
    try:
        await streams.apply_workspace(bus, name, replicas=settings.replicas)
    finally:
        await bus.close()
    await Workspaces(engine).create(name)


async def _list_workspaces(_: RegistrySettings, engine: AsyncEngine, __: argparse.Namespace) -> list[str]:
    return await Workspaces(engine).names()


async def _create_token(_: RegistrySettings, engine: AsyncEngine, chosen: argparse.Namespace) -> Any:
    request = CreateToken(chosen.name, chosen.lifetime)
    created = await Tokens(engine, database_clock).create(chosen.workspace, request, kind=chosen.kind)
    return {**asdict(created.token), "secret": created.secret}


async def _list_tokens(_: RegistrySettings, engine: AsyncEngine, chosen: argparse.Namespace) -> Any:
    tokens = await Tokens(engine, database_clock).of(chosen.workspace, include_revoked=True)
    return [asdict(token) for token in tokens]


async def _revoke_token(_: RegistrySettings, engine: AsyncEngine, chosen: argparse.Namespace) -> None:
    await Tokens(engine, database_clock).revoke(chosen.workspace, chosen.token_id)
