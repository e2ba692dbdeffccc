"""What `python -m tidemill_registry` can do."""

import asyncio
import sys
from collections.abc import Sequence

from tidemill_common.settings import load
from tidemill_registry import migrate
from tidemill_registry.database import new_engine
from tidemill_registry.settings import RegistrySettings

_USAGE = "usage: python -m tidemill_registry [migrate [REVISION] | downgrade REVISION]"


def main(arguments: Sequence[str]) -> None:
    """Run the registry, or bring the schema to a revision."""
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
