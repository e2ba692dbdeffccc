"""The start of containers: what they are made of is fetched, and their tier makes them of it."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tidemill._container.configuration import Configuration
from tidemill._wire.specs import Pool
from tidemill.image import key as image_key
from tidemill_worker import secrets
from tidemill_worker.capacity import Reservation
from tidemill_worker.images import Images
from tidemill_worker.node import Node
from tidemill_worker.sources import Sources
from tidemill_worker.templates import Templates
from tidemill_worker.tier import Place, Sockets, Tier

# Variables that the loader, the interpreter or the allocator reads before any code of ours runs.
_EARLY = ("LD_", "DYLD_", "PYTHON", "MALLOC_", "GLIBC_TUNABLES")


@dataclass(slots=True)
class Start:
    """What a container's start came to: its sockets, its configuration, the seconds of each phase."""

    sockets: Sockets
    configuration: dict[str, Any]
    phases: dict[str, float] = field(default_factory=dict)


class Runtime:
    """Makes containers."""

    def __init__(
        self, node: Node, images: Images, sources: Sources, templates: Templates, tier: Tier
    ) -> None:
        self._node = node
        self._images = images
        self._sources = sources
        self._templates = templates
        self.tier = tier

    async def start(self, container: str, reservation: Reservation) -> Start:
        """Start a container's processes.

        Raises:
            tidemill.exception.Error: its image, its code or its secrets cannot be had.
            ForkError: no process could be made of it.
        """
        pool, spec = reservation.pool, reservation.pool.spec
        began = time.perf_counter()
        image = await self._images.get(spec.image)
        sources, serialized, revealed = await asyncio.gather(
            self._sources.bundles(pool.workspace, spec.source.bundles, image),
            self._sources.serialized(pool.workspace, spec.source.serialized),
            secrets.fetch(self._node, pool),
        )
        prepared = time.perf_counter()
        place = self.tier.place(container, image.recipe.workdir)
        variables = {**image.recipe.env, **revealed, **spec.env}
        surroundings = _surroundings(container, pool, reservation, place)
        if any(name.startswith(_EARLY) for name in variables):
            sockets = await self._templates.start_alone(
                image, container, reservation, {**surroundings, **variables}, place.workdir
            )
        else:
            sockets = await self._templates.fork(image, container, reservation, surroundings)
        seen = tuple(self.tier.inside(source, pool.workspace) for source in sources)
        configuration = _configuration(container, pool, seen, serialized)
        return Start(
            sockets,
            configuration._replace(
                env=variables, workdir=place.workdir, max_payload=self._node.bus.max_payload
            )._asdict(),
            {"image": prepared - began, "start": time.perf_counter() - prepared},
        )

    async def clean(self, container: str) -> None:
        """Remove what a container left."""
        await self.tier.clean(container)


def _surroundings(container: str, pool: Pool, reservation: Reservation, place: Place) -> Mapping[str, str]:
    """Return the variables that tell a container where it is."""
    identity = {
        "TASK_ID": container,
        "IS_REMOTE": "1",
        "ENVIRONMENT": pool.environment,
        "IMAGE_ID": image_key(pool.spec.image),
    }
    devices = ",".join(map(str, reservation.devices))
    return {
        "TMPDIR": place.temporary,
        "CUDA_VISIBLE_DEVICES": devices,
        **{f"{prefix}_{name}": value for prefix in ("TIDEMILL", "MODAL") for name, value in identity.items()},
    }


def _configuration(
    container: str, pool: Pool, sources: tuple[str, ...], serialized: bytes | None
) -> Configuration:
    spec = pool.spec
    return Configuration(
        container=container,
        app_id=pool.app_id,
        app_name=pool.app_name,
        function=spec.name,
        environment=pool.environment,
        sources=sources,
        module=spec.source.module,
        qualname=spec.source.qualname,
        serialized=serialized,
        is_generator=spec.is_generator,
        is_async=spec.is_async,
        restrict_output=spec.restrict_output,
        interactive=spec.interactive,
        handles={name: asdict(handle) for name, handle in pool.handles.items()},
        workspace=pool.workspace,
    )
