"""How containers of this worker reach networks: by pairs of interfaces, by a program, or not."""

import asyncio
import os
from collections.abc import Iterable
from typing import Any

from tidemill_worker.children import Children
from tidemill_worker.sandbox import addresses, network, usernet
from tidemill_worker.sandbox.forwarding import Forwarding
from tidemill_worker.sandbox.network import NoEgress, Pairs
from tidemill_worker.sandbox.slots import Slot
from tidemill_worker.sandbox.usernet import UserNetwork

PAUSE = 0.05  # seconds after a start until pairs are made for those to come


class Egress:
    """The way out. `lacking` says what it is that is missing where there is none."""

    def __init__(self, way: Pairs | UserNetwork | None, resolvers: tuple[str, ...], lacking: str) -> None:
        self._way = way
        self.resolvers = resolvers
        self.lacking = lacking
        self._preparing: asyncio.TimerHandle | None = None

    @classmethod
    async def open(cls, slot: Slot, children: Children, refused: Iterable[str]) -> "Egress":
        """Prepare the way that there is."""
        try:
            if os.getuid():
                return cls(UserNetwork.open(children, refused), (usernet.RESOLVER,), "")
            known = addresses.resolvers()
            forwarding = Forwarding(slot.folder)
            pairs = await asyncio.to_thread(Pairs.open, slot.number, forwarding, known, tuple(refused))
            return cls(pairs, known, "")
        except NoEgress as error:
            return cls(None, (), str(error))

    async def give(self, container: str, pid: int) -> dict[str, Any]:
        """Connect a container; return what it must know of it. `NoEgress` if there is no way."""
        if self._way is None:
            raise NoEgress(self.lacking)
        if isinstance(self._way, UserNetwork):
            return await self._way.give(container, pid)
        given = await asyncio.to_thread(self._way.give, container, pid)
        self._preparing = self._preparing or asyncio.get_running_loop().call_later(PAUSE, self._prepare)
        return given

    def hand_over(self, spare: str, container: str) -> None:
        """Count a spare's connection as a container's."""
        if isinstance(self._way, Pairs):
            self._way.hand_over(spare, container)

    async def take_back(self, container: str) -> None:
        """Take a container's connection away."""
        if isinstance(self._way, UserNetwork):
            await self._way.take_back(container)
        elif self._way is not None:
            await asyncio.to_thread(self._way.take_back, container)

    async def close(self) -> None:
        """Leave no interface and no rule behind."""
        way, self._way = self._way, None
        if self._preparing is not None:
            self._preparing.cancel()
        if isinstance(way, Pairs):
            await asyncio.to_thread(way.close)

    async def give_back(self, slot: Slot) -> None:
        """Give back what was changed on the machine for all workers, if no other one is left."""
        if not os.getuid():
            await asyncio.to_thread(Forwarding(slot.folder).give_back, slot.has_others)

    def _prepare(self) -> None:
        self._preparing = None
        if isinstance(self._way, Pairs):
            asyncio.get_running_loop().run_in_executor(None, self._way.prepare)


def sweep(slots: Iterable[int]) -> None:
    """Remove what workers of these slots left when they died."""
    if not os.getuid():
        for slot in slots:
            network.sweep(slot)
