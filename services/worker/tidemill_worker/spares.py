"""Spares: containers made ahead of their need, so that a start is no more than to tell one what it is.

    template ── fork, namespaces, root, limits, network ──> spare ── adopted ──> container
                                                              └── its template ends, too many ──> ended

A spare is a container in all but what it runs: its runner waits for START. It goes by a name of its own
until it is adopted, serves one pool then, and another is made when no container was started for a moment.
The templates that were used last have some, within a bound for all of them together.
"""

import asyncio
import select
import socket
from collections import OrderedDict, deque
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from tidemill_worker.capacity import Reservation
from tidemill_worker.children import Children
from tidemill_worker.node import Node
from tidemill_worker.tier import ForkError, Launched, Sockets, Tier

if TYPE_CHECKING:
    from tidemill_worker.templates import Template

EACH = 2  # spares of one template
MOST = 8  # spares of all templates
PAUSE = 0.01  # seconds without the start of a container after which spares are made
END = 5.0  # seconds for one to end
_READ = 65536  # bytes


@dataclass(frozen=True, slots=True)
class _Spare:
    """One that stands, or is being made."""

    name: str
    making: asyncio.Task[Sockets]

    @property
    def sockets(self) -> Sockets | None:
        """Return what it is reached by, if it was made and has not ended."""
        if self.making.cancelled() or self.making.exception():
            return None
        sockets, poll = self.making.result(), select.poll()
        for sock in (sockets.runner, sockets.control):
            poll.register(sock, 0)  # an end is told without being asked for
        return None if poll.poll(0) else sockets


class Spares:
    """The spares of a worker, and who makes containers of templates with and without them."""

    def __init__(self, node: Node, children: Children, tier: Tier) -> None:
        self._node = node
        self._children = children
        self._tier = tier
        self._stock: OrderedDict[Template, deque[_Spare]] = OrderedDict()  # the one used last is the last
        self._names = map("spare-{}".format, count())
        self._timer: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    async def container(self, template: "Template", container: str, reservation: Reservation) -> Sockets:
        """Return a new container of a template; `ForkError` if it cannot be made."""
        try:
            if self._tier.suits(container, reservation):
                adopted = await self._adopt(template, container, reservation)
                if adopted is not None:
                    return adopted
            sockets = await template.fork(container)
            return await self.admit(container, reservation, template.launched, sockets)
        finally:
            self._use(template)

    async def admit(
        self, container: str, reservation: Reservation, launched: Launched, sockets: Sockets
    ) -> Sockets:
        """Have the tier admit a container; its sockets are closed if that cannot be."""
        try:
            return await self._tier.admit(container, reservation, launched, sockets)
        except BaseException:
            sockets.close()
            raise

    async def close(self) -> None:
        """End all of them, and make no more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for template in list(self._stock):
            self._drop(template)
        if self._ending:
            await asyncio.wait(self._ending)

    # --- one is needed

    async def _adopt(self, template: "Template", container: str, reservation: Reservation) -> Sockets | None:
        """Make a spare the container; one that is being made is waited for. None if there is none."""
        stock = self._stock.get(template, deque())
        while stock:
            spare = stock.popleft()
            try:
                await asyncio.wait([spare.making])
            except BaseException:
                self._end(spare)
                raise
            sockets = spare.sockets
            if sockets is not None:
                try:
                    self._tier.adopt(spare.name, container, reservation, sockets)
                except OSError as error:
                    self._node.log.info("a spare container cannot be used", error=str(error))
                else:
                    return sockets
            self._end(spare)
        return None

    # --- some are made

    def _use(self, template: "Template") -> None:
        """Note that a template was used now."""
        if self._closed or template.is_gone or not self._tier.makes_spares:
            return
        self._stock.setdefault(template, deque())
        self._stock.move_to_end(template)
        template.on_gone = partial(self._drop, template)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(PAUSE, self._restock)

    def _restock(self) -> None:
        """Make what is missing of the templates that were used last, end what the others have too many."""
        self._timer, left = None, MOST
        for template in reversed(list(self._stock)):
            stock = self._stock[template]
            wanted = min(EACH, left)
            left -= wanted
            while len(stock) > wanted:
                self._end(stock.pop())
            while len(stock) < wanted:
                stock.append(self._new(template))
            if not wanted:
                del self._stock[template]

    def _new(self, template: "Template") -> _Spare:
        name = next(self._names)
        making = asyncio.get_running_loop().create_task(self._make(template, name), name=name)
        making.add_done_callback(self._made)
        return _Spare(name, making)

    async def _make(self, template: "Template", name: str) -> Sockets:
        sockets = await template.fork(name, ahead=True)
        try:
            sockets = await self._tier.prepare(name, template.launched, sockets)
        except BaseException:
            sockets.close()
            await self._tier.clean(name)
            raise
        self._children.own.add(sockets.pid)
        return sockets

    def _made(self, making: asyncio.Task[Sockets]) -> None:
        """Say why one could not be made; that of a template which ended meanwhile is no matter."""
        if not making.cancelled() and (error := making.exception()) and not isinstance(error, ForkError):
            self._node.log.warning("a spare container cannot be made", error=str(error))

    # --- they end

    def _drop(self, template: "Template") -> None:
        """End those of a template that is gone, or not used any more."""
        for spare in self._stock.pop(template, ()):
            self._end(spare)

    def _end(self, spare: _Spare) -> None:
        task = self._node.spawn(self._see_end(spare), f"end {spare.name}")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _see_end(self, spare: _Spare) -> None:
        """End one, and leave nothing of it."""
        spare.making.cancel()
        await asyncio.wait([spare.making])
        if spare.making.cancelled() or spare.making.exception():
            return
        sockets = spare.making.result()
        try:
            await _hang_up(sockets.control)
        finally:
            sockets.close()
        await self._children.forget(sockets.pid)
        await self._tier.clean(spare.name)


async def _hang_up(control: socket.socket) -> None:
    """Let an init know that nobody is there, and wait until it is gone."""
    control.setblocking(False)
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        control.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(END):
            while await loop.sock_recv(control, _READ):
                pass
