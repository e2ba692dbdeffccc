"""Waiting for the containers that a deployment with `recreate` replaces: they are told to stop at once."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from tidemill import exception
from tidemill._output import Output
from tidemill._wire.containers import ContainerInfo, ContainerList, ListContainers
from tidemill._wire.deploying import AppDeployed

if TYPE_CHECKING:
    from tidemill._client import Client

PATIENCE = 60.0  # seconds until nobody waits any more: hooks that run at their end have 30
LOOK = 0.2  # seconds between looks


async def ended(client: "Client", deployed: AppDeployed, shown: Output) -> None:
    """Return when the containers that are replaced have ended, or warn that they have not."""
    if not deployed.replaced:
        return
    shown.line("Terminating running containers")
    left: list[str] = []
    try:
        async with asyncio.timeout(PATIENCE):
            while left := await _left(client, deployed):
                shown.status(f"Terminating {_count(left)}…")
                await asyncio.sleep(LOOK)
    except TimeoutError:
        shown.warn(
            f"{_count(left)} of before did not end within {PATIENCE:.0f} s",
            "`tidemill container list` shows them, `tidemill container stop` ends one",
        )
    except (exception.ServiceError, exception.ConnectionError) as error:
        shown.warn(f"whether the containers of before have ended is not known: {error}")
    finally:
        shown.status("")


async def _left(client: "Client", deployed: AppDeployed) -> list[str]:
    message = ListContainers(deployed.app_id)
    found = await client.request("scheduler", "list_containers", message, ContainerList)
    return outdated(found.containers, deployed.replaced)


def outdated(containers: Iterable[ContainerInfo], generations: Mapping[str, int]) -> list[str]:
    """Return the containers that were placed before their pools got these generations."""
    return [one.container for one in containers if one.generation < generations.get(one.pool, 0)]


def _count(containers: list[str]) -> str:
    return f"{len(containers)} running container{'s' * (len(containers) != 1)}"
