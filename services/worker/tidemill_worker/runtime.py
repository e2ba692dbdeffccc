"""The start of containers: what they are made of is fetched, and their tier makes them of it."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tidemill._container.configuration import Configuration
from tidemill._wire.specs import Pool, handle_of
from tidemill.image import image_id
from tidemill_worker import decisions, secrets, snapshots
from tidemill_worker.building import Order
from tidemill_worker.capacity import Reservation
from tidemill_worker.driver import Driver, Equipment
from tidemill_worker.images import Image, Images
from tidemill_worker.logs import STDOUT, Log
from tidemill_worker.node import Node
from tidemill_worker.siblings import Handles, Siblings
from tidemill_worker.snapshots import Snapshots, Wish
from tidemill_worker.sources import Sources
from tidemill_worker.templates import Templates
from tidemill_worker.tier import Place, Sockets, Tier
from tidemill_worker.uv import Say

# Variables that the loader, the interpreter or the allocator reads before any code of ours runs.
_LIBRARIES = "LD_LIBRARY_PATH"
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
        self,
        node: Node,
        images: Images,
        sources: Sources,
        templates: Templates,
        snapshots: Snapshots,
        tier: Tier,
        driver: Driver,
    ) -> None:
        self._node = node
        self._images = images
        self._sources = sources
        self._templates = templates
        self._snapshots = snapshots
        self.tier = tier
        self._driver = driver
        self._siblings = Siblings(node)

    async def start(self, container: str, reservation: Reservation, log: Log) -> Start:
        """Start a container's processes. Its log has the lines of its image's build, if it has to be made.

        Raises:
            tidemill.exception.Error: its image, its code or its secrets cannot be had.
            ForkError: no process could be made of it.
        """
        pool, spec = reservation.pool, reservation.pool.spec
        began = time.perf_counter()
        image = await self._images.get(spec.image, self._order(container, pool, log.say))
        sources, serialized, revealed, handles = await asyncio.gather(
            self._sources.bundles(pool.workspace, spec.source.bundles, image),
            self._sources.serialized(pool.workspace, spec.source.serialized),
            secrets.fetch(self._node, pool, spec.secrets),
            self._siblings.of(pool),
        )
        prepared = time.perf_counter()
        files = await self._files(pool, image)
        place = await self.tier.settle(container, image, files)
        variables = {**image.env, **revealed, **spec.env}
        equipment = self._driver.equip(reservation.devices, isolated=self.tier.isolates)
        surroundings = {**_surroundings(container, pool, place), **equipment.variables}
        is_early = equipment.early or any(name.startswith(_EARLY) for name in variables)
        if is_early:
            variables = _with_libraries(variables, surroundings)
        seen = [self.tier.inside(source, pool.workspace) for source in sources]
        if image.files:
            seen.append(place.workdir)
        configuration = _configuration(container, pool, handles, tuple(seen), serialized)._replace(
            env=variables, workdir=place.workdir, max_payload=self._node.bus.max_payload
        )
        wish = Wish(
            image, container, reservation, surroundings, configuration._asdict(), files,
            hear=partial(log.write_bytes, STDOUT, input_id=""), say=log.say,
        )  # fmt: skip
        sockets = await self._snapshots.fork(wish) if spec.options.get(snapshots.OPTION) else None
        if sockets is None:
            sockets = await self._fork(wish, equipment, is_early=is_early)
        phases = {"image": prepared - began, "start": time.perf_counter() - prepared}
        told = configuration._replace(surroundings=dict(surroundings))
        return Start(sockets, told._asdict(), phases)

    async def _fork(self, wish: Wish, equipment: Equipment, *, is_early: bool) -> Sockets:
        """Return a container without its code; with a Python of its own for variables it needs early."""
        if not is_early:
            return await self._templates.fork(wish.image, wish.container, wish.reservation)
        told = wish.configuration
        return await self._templates.start_alone(
            wish.image, wish.container, wish.reservation, {**wish.surroundings, **told["env"]},
            told["workdir"], equipment,
        )  # fmt: skip

    async def _files(self, pool: Pool, image: Image) -> list[tuple[str, Path]]:
        """Return where files of an image go, and the folders that hold them here."""
        return [(place, await self._sources.files(pool.workspace, digest)) for place, digest in image.files]

    def _order(self, container: str, pool: Pool, say: Say) -> Order:
        return Order(
            container,
            pool.workspace,
            say,
            lambda wanted: secrets.fetch(self._node, pool, wanted),
            lambda digest: self._sources.fetch(pool.workspace, digest),
        )

    async def clean(self, container: str) -> None:
        """Remove what a container left."""
        self._images.release(container)
        await self.tier.clean(container)


def _with_libraries(variables: Mapping[str, str], surroundings: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of an image or a user with the driver's libraries behind their own."""
    given = [there[_LIBRARIES] for there in (variables, surroundings) if there.get(_LIBRARIES)]
    return {**variables, **({_LIBRARIES: ":".join(given)} if given else {})}


def _surroundings(container: str, pool: Pool, place: Place) -> Mapping[str, str]:
    """Return the variables that tell a container where it is."""
    identity = {
        "TASK_ID": container,
        "IS_REMOTE": "1",
        "ENVIRONMENT": pool.environment,
        "IMAGE_ID": image_id(pool.spec.image),
        "IMAGE_RECIPE": pool.spec.image.declared,
    }
    return {
        "TMPDIR": place.temporary,
        **{f"{prefix}_{name}": value for prefix in ("TIDEMILL", "MODAL") for name, value in identity.items()},
    }


def _configuration(
    container: str, pool: Pool, handles: Handles, sources: tuple[str, ...], serialized: bytes | None
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
        slots=decisions.slots(spec),
        handles={name: asdict(handle) for name, handle in handles.items()},
        workspace=pool.workspace,
        parameters=None if spec.cls is None else spec.parameters,
        own=None if spec.cls is None else asdict(handle_of(pool)),
        web={method: asdict(web) for method, web in spec.webs.items()},
    )
