"""What this machine knows of addresses: its own, and whom it asks for names."""

import ipaddress
from collections.abc import Iterable
from pathlib import Path

# Where systemd's resolver, which itself listens on the loopback, keeps those that it asks.
_RESOLVERS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))


def resolvers() -> tuple[str, ...]:
    """Return the resolvers of this machine that can be reached from another network namespace."""
    for path in _RESOLVERS:
        try:
            found = _nameservers(path.read_text())
        except OSError:
            continue
        if found:
            return found
    return ()


def _nameservers(text: str) -> tuple[str, ...]:
    words = [line.split() for line in text.splitlines()]
    named = [each[1] for each in words if len(each) > 1 and each[0] == "nameserver"]
    return tuple(one for one in named if _is_reachable(one))


def _is_reachable(address: str) -> bool:
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return False
    return known.version == 4 and not known.is_loopback


def own() -> tuple[str, ...]:
    """Return this machine's own IPv4 addresses, without the loopback's."""
    try:
        lines = Path("/proc/net/fib_trie").read_text().splitlines()
    except OSError:
        return ()
    return _local(lines)


def _local(lines: Iterable[str]) -> tuple[str, ...]:
    """Return the addresses that the kernel's table has as its own."""
    found, last = [], ""
    for line in lines:
        text = line.strip()
        if text.startswith("|--"):
            last = text[3:].strip()
        elif "host LOCAL" in text and not last.startswith("127."):
            found.append(last)
    return tuple(dict.fromkeys(found))


def masked(networks: Iterable[str]) -> list[tuple[str, str]]:
    """Return networks as (address, mask)."""
    parsed = [ipaddress.IPv4Network(each) for each in networks]
    return [(str(each.network_address), str(each.netmask)) for each in parsed]
