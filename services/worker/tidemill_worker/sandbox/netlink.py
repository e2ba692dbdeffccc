"""The little of rtnetlink(7) that pairs of interfaces need: a process per change would take longer."""

import os
import socket
import struct

_NEWLINK, _DELLINK, _NEWADDR, _ERROR = 16, 17, 20, 2
_REQUEST, _ACK, _CREATE, _EXCL = 0x1, 0x4, 0x400, 0x200
_IFNAME, _LINKINFO, _NET_NS_PID, _MTU = 3, 18, 19, 4
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_UP = 1

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index


class Netlink:
    """A connection to the kernel's tables of interfaces and addresses."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.bind((0, 0))
        self._sequence = 0

    def add_pair(self, name: str, peer: str) -> None:
        """Make two interfaces that are connected with each other."""
        inner = _attribute(_VETH_PEER, _LINK.pack(0, 0, 0, 0, 0) + _text(_IFNAME, peer))
        info = _text(_INFO_KIND, "veth") + _attribute(_INFO_DATA, inner)
        body = _LINK.pack(0, 0, 0, 0, 0) + _text(_IFNAME, name) + _attribute(_LINKINFO, info)
        self._ask(_NEWLINK, _CREATE | _EXCL, body)

    def give(self, name: str, pid: int, new_name: str) -> None:
        """Move an interface into the network namespace of a process, under a new name."""
        attributes = _attribute(_NET_NS_PID, struct.pack("=I", pid)) + _text(_IFNAME, new_name)
        self._ask(_NEWLINK, 0, _LINK.pack(0, 0, socket.if_nametoindex(name), 0, 0) + attributes)

    def start(self, name: str, address: str, length: int, mtu: int) -> None:
        """Give an interface its address and bring it up."""
        index = socket.if_nametoindex(name)
        packed = socket.inet_aton(address)
        body = _ADDRESS.pack(socket.AF_INET, length, 0, 0, index)
        body += _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed)
        self._ask(_NEWADDR, _CREATE | _EXCL, body)
        body = _LINK.pack(0, 0, index, _UP, _UP) + _attribute(_MTU, struct.pack("=I", mtu))
        self._ask(_NEWLINK, 0, body)

    def remove(self, name: str) -> None:
        """Remove an interface, and with it its peer, wherever that is."""
        self._ask(_DELLINK, 0, _LINK.pack(0, 0, socket.if_nametoindex(name), 0, 0))

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def _ask(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        length = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(length, kind, flags | _REQUEST | _ACK, self._sequence, 0) + body)
        answer = self._socket.recv(65536)
        if _HEADER.unpack_from(answer)[1] == _ERROR:
            (number,) = struct.unpack_from("=i", answer, _HEADER.size)
            if number:
                raise OSError(-number, os.strerror(-number))


def _attribute(kind: int, data: bytes) -> bytes:
    size = 4 + len(data)
    return struct.pack("=HH", size, kind) + data + bytes(-size % 4)


def _text(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")
