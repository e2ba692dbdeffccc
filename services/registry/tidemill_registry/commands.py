"""What `python -m tidemill_registry` can do."""

import asyncio
import sys
from collections.abc import Sequence

from tidemill.exception import Error
from tidemill_common.settings import load
from tidemill_registry import migrate
from tidemill_registry.cipher import new_key
from tidemill_registry.database import database_clock, new_engine
from tidemill_registry.secrets import Secrets
from tidemill_registry.settings import RegistrySettings

_USAGE = """usage: python -m tidemill_registry [COMMAND]

  migrate [REVISION]   bring the schema up to the newest revision, or to this one
  downgrade REVISION   bring it down
  new-key              print a new key for TIDEMILL_SECRETS_KEY
  rotate-key           encrypt all secrets with the first of the keys"""


def main(arguments: Sequence[str]) -> None:
    """Run the registry, or do one of its chores."""
    if list(arguments) == ["new-key"]:
        sys.stdout.write(f"{new_key()}\n")
        return
    settings = load(RegistrySettings)
    match list(arguments):
        case []:
            from tidemill_common.service import run
            from tidemill_registry.service import Registry

            run(Registry(settings))
        case ["migrate"]:
            asyncio.run(_migrate(settings, "upgrade", "head"))
        case ["migrate", revision]:
            asyncio.run(_migrate(settings, "upgrade", revision))
        case ["downgrade", revision]:
            asyncio.run(_migrate(settings, "downgrade", revision))
        case ["rotate-key"]:
            asyncio.run(_rotate(settings))
        case _:
            sys.exit(_USAGE)


async def _migrate(settings: RegistrySettings, direction: str, revision: str) -> None:
    engine = new_engine(settings.database_url.get_secret_value(), 2)
    try:
        if direction == "upgrade":
            await migrate.upgrade(engine, revision)
        else:
            await migrate.downgrade(engine, revision)
    finally:
        await engine.dispose()


async def _rotate(settings: RegistrySettings) -> None:
    engine = new_engine(settings.database_url.get_secret_value(), 2)
    try:
        secrets = Secrets(engine, settings.keyring(), database_clock)
        count = await secrets.rotate()
        sys.stdout.write(f"{count:,} secrets were encrypted anew\n")
        if wrong := await secrets.check_keys():
            sys.exit(f"error: {wrong}\nhint: give these keys too, behind the first one, and rotate again")
    except Error as error:
        sys.exit(f"error: {error}\nhint: {error.hint}")
    finally:
        await engine.dispose()
