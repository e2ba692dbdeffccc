"""Choosing the tier: bubblewrap where it holds, plain processes elsewhere, each with what there is to say."""

import asyncio
import os
import sys
from pathlib import Path

from tidemill import exception
from tidemill._wire import isolation
from tidemill_worker.children import Children
from tidemill_worker.interpreters import OWN
from tidemill_worker.sandbox import cgroups, egress, program, trying
from tidemill_worker.sandbox.cgroups import Cgroups
from tidemill_worker.sandbox.disks import Disks, NoDisks
from tidemill_worker.sandbox.egress import Egress
from tidemill_worker.sandbox.ids import Ids, NoSandbox
from tidemill_worker.sandbox.tier import DISK, Bubblewrap
from tidemill_worker.settings import Settings
from tidemill_worker.tier import ForkError, ProcessTier, Tier

_ALLOWING = "TIDEMILL_ALLOW_UNISOLATED=1 lets user code run as processes of the worker's user"


async def open_tier(
    settings: Settings, children: Children, *, layer: Path, code: Path, folder: Path, memory: int
) -> Tier:
    """Return the tier that the settings ask for, or the best one that holds.

    Raises:
        tidemill.exception.Error: what was asked for does not hold, and plain processes are not allowed.
    """
    if settings.runtime == "process":
        if not settings.allow_unisolated:
            raise exception.Error(
                "the runtime process does not isolate user code from this machine",
                hint=f"TIDEMILL_RUNTIME=auto makes sandboxes; {_ALLOWING}",
            )
        return ProcessTier(children, layer, folder)
    try:
        return await _sandboxes(settings, children, layer=layer, code=code, folder=folder, memory=memory)
    except (NoSandbox, OSError) as error:
        if settings.runtime == "bubblewrap" or not settings.allow_unisolated:
            raise exception.Error(
                f"containers cannot be kept from this machine: {error}",
                hint=f"docs/isolation.md says what a sandbox needs; with TIDEMILL_RUNTIME=auto, {_ALLOWING}",
            ) from error
        return ProcessTier(children, layer, folder, f"no sandbox: {error}")


async def _sandboxes(
    settings: Settings, children: Children, *, layer: Path, code: Path, folder: Path, memory: int
) -> Bubblewrap:
    if sys.platform != "linux" or not program.is_known():
        raise NoSandbox("it needs Linux on x86_64 or aarch64")
    ids = Ids.take(settings.worker_ids)
    abandoned = ids.slot.abandoned()
    egress.sweep(abandoned)
    await asyncio.to_thread(cgroups.sweep, [ids.name, *map(ids.name_of, abandoned)])
    groups = Cgroups.open(ids.name, memory)
    way = await Egress.open(ids.slot, children, settings.deny_networks)
    os.umask(0o022)  # ids of containers read what this process makes, in folders that are closed to others
    disks, lacking = await asyncio.to_thread(_disks, folder, ids)
    tier = Bubblewrap(
        children, ids, groups, way, disks,
        layer=layer, code=code, folder=folder, tasks=settings.worker_tasks,
    )  # fmt: skip
    try:
        tier.unheld = await _tried(tier, settings) | _unlimited(groups, disks)
        tier.note = "; ".join(note for note in (groups.lacking, way.lacking, lacking) if note)
    except BaseException:
        await tier.close()
        raise
    return tier


async def _tried(tier: Bubblewrap, settings: Settings) -> dict[str, str]:
    """Return what does not hold; `NoSandbox` if that is too much."""
    image = trying.image_of(Path(sys.executable), OWN)
    try:
        unheld = await trying.try_out(tier, image)
    except ForkError as error:
        raise NoSandbox(str(error).removeprefix("no sandbox: ")) from error
    if escapes := [isolation.ROWS[name] for name in trying.DECISIVE if name in unheld]:
        raise NoSandbox(f"code in it can {', '.join(escapes)}")
    if tier.egress.lacking and settings.runtime == "auto":
        raise NoSandbox(tier.egress.lacking)
    return unheld


def _disks(folder: Path, ids: Ids) -> tuple[Disks | None, str]:
    """Return the containers' disks, or what there is to say of a worker of root's that cannot have them."""
    if os.getuid():
        return None, ""
    try:
        return Disks.open(folder, ids.first, DISK), ""
    except NoDisks as error:
        return None, f"what containers write is watched only: {error}"


def _unlimited(groups: Cgroups, disks: Disks | None) -> dict[str, str]:
    """Return the limits that nothing enforces."""
    found = {}
    if disks is None:
        found["disk"] = isolation.WATCHED
    if not groups.version:
        found |= {"memory": isolation.WATCHED, "processors": isolation.OPEN}
    return found
