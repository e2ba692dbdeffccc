"""Egress of containers by pairs of virtual interfaces: the worker of a machine's root.

    container: eth0 10-something ──── tm<slot>-<n> :host ── forwarded, masqueraded ──> outside

Pairs are made ahead; a container gets the far end of one. One nft table of our own, by name, judges all
that comes out of them: nothing to this machine, nothing to other containers, nothing to private networks
but questions to the resolvers. It is made and removed as a whole, and no other table is touched. The
container has routes that say the same, so that its programs hear of it at once.
"""

import ipaddress
import shutil
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tidemill_worker.sandbox import addresses
from tidemill_worker.sandbox.forwarding import Forwarding
from tidemill_worker.sandbox.netlink import Netlink

AHEAD = 4  # pairs that wait
MTU = 1400  # bytes: small enough for the usual tunnels
# Where packets of containers may not go, unless the operator says otherwise: private, shared, link-local
# (where clouds tell machines their secrets), multicast and reserved networks.
PRIVATE = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.168.0.0/16", "224.0.0.0/4", "240.0.0.0/4",
)  # fmt: skip
_POOL = ipaddress.ip_network("100.64.0.0/10")
_BLOCK = 22  # length of a worker's part of it: 512 pairs


class NoEgress(Exception):
    """Containers cannot be connected; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two connected interfaces: ours, and the address of the container's."""

    name: str
    peer: str
    host: str
    address: str


def block_of(slot: int) -> ipaddress.IPv4Network:
    """Return the addresses of the worker in a slot."""
    blocks = 2 ** (_BLOCK - _POOL.prefixlen)
    return ipaddress.IPv4Network((int(_POOL.network_address) + ((slot % blocks) << (32 - _BLOCK)), _BLOCK))


def pair_of(slot: int, number: int) -> Pair:
    """Return a pair's names and addresses: two of a block of its own."""
    first = block_of(slot).network_address + 2 * number
    return Pair(f"tm{slot}-{number}", f"tm{slot}p{number}", str(first), str(first + 1))


def rules(slot: int, resolvers: Iterable[str], refused: Iterable[str], outward: Iterable[str] = ()) -> str:
    """Return the table of the worker in a slot, as nft reads it.

    `outward` are interfaces that forward for containers only, and not from one to another.
    """
    named = ", ".join(f'"{each}"' for each in outward)
    ours, table = f'"tm{slot}-*"', table_of(slot)
    questions = ", ".join(resolvers)
    denied = ", ".join(refused) or "255.255.255.255"
    allowed = f"iifname {ours} ip daddr {{ {questions} }} meta l4proto {{ tcp, udp }} th dport 53 accept"
    return f"""\
table inet {table} {{}}
delete table inet {table}
table inet {table} {{
    chain input {{
        type filter hook input priority -10
        iifname {ours} ct state established,related accept
        iifname {ours} reject with icmpx admin-prohibited
    }}
    chain forward {{
        type filter hook forward priority -10
        {f"iifname {{ {named} }} oifname {{ {named} }} drop" if named else ""}
        oifname "tm*" iifname "tm*" reject with icmpx admin-prohibited
        {allowed if questions else ""}
        iifname {ours} ip daddr {{ {denied} }} reject with icmpx admin-prohibited
        iifname {ours} meta nfproto ipv6 drop
        oifname {ours} ct state established,related accept
        oifname {ours} drop
    }}
    chain postrouting {{
        type nat hook postrouting priority 100
        ip saddr {block_of(slot)} oifname != "tm*" masquerade
    }}
}}
"""


def table_of(slot: int) -> str:
    """Return the name of the nft table of the worker in a slot."""
    return f"tidemill_{slot}"


class Pairs:
    """The pairs of one worker."""

    def __init__(
        self,
        slot: int,
        netlink: Netlink,
        forwarding: Forwarding,
        resolvers: Iterable[str],
        refused: Iterable[str],
    ) -> None:
        self._slot = slot
        self._forwarding = forwarding
        self._resolvers = list(resolvers)
        self._refused = addresses.masked(dict.fromkeys((*refused, *addresses.own())))
        self._netlink = netlink
        self._free = deque(range(2 ** (32 - _BLOCK) // 2))
        self._ready: deque[tuple[int, Pair]] = deque()
        self._given: dict[str, int] = {}
        self._closed = False
        self._lock = threading.Lock()  # the kernel is asked in threads: it takes milliseconds

    @classmethod
    def open(
        cls, slot: int, forwarding: Forwarding, resolvers: Iterable[str], refused: Iterable[str]
    ) -> "Pairs":
        """Make the table and the first pairs; `NoEgress` if that cannot be."""
        program = _program()
        if program is None:
            raise NoEgress("nft is not installed: install the package nftables")
        sweep(slot)
        try:
            outward = forwarding.allow()
        except OSError as error:
            raise NoEgress("this machine does not forward packets: set net.ipv4.ip_forward=1") from error
        _nft(program, rules(slot, resolvers, refused, outward))
        try:
            pairs = cls(slot, Netlink(), forwarding, resolvers, refused)
            pairs.prepare()
        except OSError as error:
            raise NoEgress(f"no virtual interfaces can be made: {error}") from error
        return pairs

    def prepare(self) -> None:
        """Make pairs until enough wait."""
        with self._lock:
            self._prepare()

    def _prepare(self) -> None:
        while len(self._ready) < AHEAD and self._free and not self._closed:
            number = self._free.popleft()
            pair = pair_of(self._slot, number)
            self._netlink.add_pair(pair.name, pair.peer)
            self._netlink.start(pair.name, pair.host, 31, MTU)
            self._forwarding.allow_from(pair.name)
            self._ready.append((number, pair))

    def give(self, container: str, pid: int) -> dict[str, Any]:
        """Connect a container's network namespace; return what it must know."""
        with self._lock:
            if not self._ready:
                self._prepare()
            if not self._ready:
                raise NoEgress("every pair of interfaces is in use")
            number, pair = self._ready.popleft()
            self._given[container] = number
            self._netlink.give(pair.peer, pid, "eth0")
        return {
            "name": "eth0", "address": pair.address, "netmask": "255.255.255.254", "gateway": pair.host,
            "refused": self._refused, "open_to": self._resolvers,
        }  # fmt: skip

    def hand_over(self, spare: str, container: str) -> None:
        """Count a spare's pair as a container's, if it has one."""
        if spare in self._given:
            self._given[container] = self._given.pop(spare)

    def take_back(self, container: str) -> None:
        """Remove a container's pair, which the end of its namespace does too, but later."""
        with self._lock:
            number = self._given.pop(container, None)
            if number is not None:
                with suppress(OSError):
                    self._netlink.remove(pair_of(self._slot, number).name)
                self._free.append(number)

    def close(self) -> None:
        """Remove everything."""
        with self._lock:
            self._closed = True
            self._netlink.close()
        sweep(self._slot)


def sweep(slot: int) -> None:
    """Remove the interfaces and the table of the worker that had this slot."""
    netlink = Netlink()
    for _, name in socket.if_nameindex():
        if name.startswith((f"tm{slot}-", f"tm{slot}p")):
            with suppress(OSError):
                netlink.remove(name)
    netlink.close()
    if (program := _program()) is not None:
        with suppress(NoEgress):
            _nft(program, f"table inet {table_of(slot)} {{}}\ndelete table inet {table_of(slot)}\n")


def _program() -> str | None:
    return shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin")


def _nft(program: str, text: str) -> None:
    ran = subprocess.run([program, "-f", "-"], input=text.encode(), capture_output=True, check=False)
    if ran.returncode:
        raise NoEgress(f"nft refuses the rules: {ran.stderr.decode(errors='replace').strip()[:300]}")
