"""The seccomp programs: which system calls processes of a sandbox may not make.

A program judges the number of a call and, for a few, an argument. Everything is allowed but what is named
here: what makes namespaces and mounts, what reaches into the kernel without need, and sockets to anything
but networks and neighbours. A refusal is EPERM, as if a right was missing; `clone3`, whose flags a program
cannot see, does not exist (ENOSYS), so that libraries use `clone`.
"""

import errno
import platform
import struct
from dataclasses import dataclass

from tidemill._container import syscalls

_X32 = 0x40000000  # the bit in the numbers of x86_64's second ABI

# Numbers by name, from the kernel's own tables. What an architecture does not have is left out.
_X86_64 = {
    "acct": 163, "add_key": 248, "adjtimex": 159, "bpf": 321, "clock_adjtime": 305, "clock_settime": 227,
    "clone": 56, "clone3": 435, "delete_module": 176, "fanotify_init": 300, "finit_module": 313,
    "fsconfig": 431, "fsmount": 432, "fsopen": 430, "fspick": 433, "init_module": 175, "io_uring_enter": 426,
    "io_uring_register": 427, "io_uring_setup": 425, "ioctl": 16, "ioperm": 173, "iopl": 172,
    "kexec_file_load": 320, "kexec_load": 246, "keyctl": 250, "lookup_dcookie": 212, "mount": 165,
    "mount_setattr": 442, "move_mount": 429, "open_by_handle_at": 304, "open_tree": 428,
    "perf_event_open": 298, "pivot_root": 155, "quotactl": 179, "quotactl_fd": 443, "reboot": 169,
    "request_key": 249, "setdomainname": 171, "sethostname": 170, "setns": 308, "settimeofday": 164,
    "socket": 41, "swapoff": 168, "swapon": 167, "syslog": 103, "umount2": 166, "unshare": 272,
    "userfaultfd": 323, "vhangup": 153,
}  # fmt: skip
_AARCH64 = {
    "acct": 89, "add_key": 217, "adjtimex": 171, "bpf": 280, "clock_adjtime": 266, "clock_settime": 112,
    "clone": 220, "clone3": 435, "delete_module": 106, "fanotify_init": 262, "finit_module": 273,
    "fsconfig": 431, "fsmount": 432, "fsopen": 430, "fspick": 433, "init_module": 105, "io_uring_enter": 426,
    "io_uring_register": 427, "io_uring_setup": 425, "ioctl": 29, "kexec_file_load": 294, "kexec_load": 104,
    "keyctl": 219, "lookup_dcookie": 18, "mount": 40, "mount_setattr": 442, "move_mount": 429,
    "open_by_handle_at": 265, "open_tree": 428, "perf_event_open": 241, "pivot_root": 41, "quotactl": 60,
    "quotactl_fd": 443, "reboot": 142, "request_key": 218, "setdomainname": 162, "sethostname": 161,
    "setns": 268, "settimeofday": 170, "socket": 198, "swapoff": 225, "swapon": 224, "syslog": 116,
    "umount2": 39, "unshare": 97, "userfaultfd": 282, "vhangup": 58,
}  # fmt: skip
_ARCHITECTURES = {"x86_64": (0xC000003E, _X86_64), "aarch64": (0xC00000B7, _AARCH64)}

# What makes namespaces and changes mounts: a template needs it, a container's processes do not.
_NAMESPACES = (
    "mount", "umount2", "pivot_root", "unshare", "setns", "sethostname", "setdomainname",
    "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
)  # fmt: skip
_JUDGED = ("clone", "clone3", "ioctl", "socket")

_ANY_NAMESPACE = (
    syscalls.NEWNS | syscalls.NEWCGROUP | syscalls.NEWUTS | syscalls.NEWIPC
    | syscalls.NEWUSER | syscalls.NEWPID | syscalls.NEWNET
)  # fmt: skip
# Typing into, and reading from, a terminal that is somebody else's.
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
# The machine's hypervisor, the kernel's ciphers and protocols that nobody looks after.
_AF_ALG, _AF_VSOCK, _AF_PACKET, _AF_BLUETOOTH, _AF_RDS, _AF_TIPC, _AF_KEY = 38, 40, 17, 31, 21, 30, 15

_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_AT_LEAST = 0x35
_NUMBER, _ARCHITECTURE, _ARGUMENT = 0, 4, 16  # offsets in seccomp_data; arguments are 8 bytes each
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_INSTRUCTION = struct.Struct("=HBBI")


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction of the kernel's small machine; `yes` and `no` are how many it then skips."""

    code: int
    value: int
    yes: int = 0
    no: int = 0


def of_containers(machine: str = platform.machine()) -> bytes:
    """Return the program for user code."""
    _, numbers = _architecture(machine)
    refused = [number for name, number in numbers.items() if name not in _JUDGED]
    return _assemble(machine, [*_refuse(refused), *_no_new_namespaces(numbers), *_common(numbers)])


def of_templates(machine: str = platform.machine()) -> bytes:
    """Return the program for a template, which makes namespaces and mounts but nothing else of the kind."""
    _, numbers = _architecture(machine)
    left_out = (*_JUDGED, *_NAMESPACES)
    refused = [number for name, number in numbers.items() if name not in left_out]
    return _assemble(machine, [*_refuse(refused), *_common(numbers)])


def is_known(machine: str = platform.machine()) -> bool:
    """Return whether there are programs for an architecture."""
    return machine in _ARCHITECTURES


def _architecture(machine: str) -> tuple[int, dict[str, int]]:
    return _ARCHITECTURES[machine]


def _assemble(machine: str, body: list[Step]) -> bytes:
    """Return a program: calls of another architecture end the process, those of the body are judged."""
    architecture, _ = _architecture(machine)
    steps = [
        Step(_LOAD, _ARCHITECTURE),
        Step(_EQUAL, architecture, yes=1),
        Step(_RETURN, _KILL),
        Step(_LOAD, _NUMBER),
        Step(_AT_LEAST, _X32, no=1),
        Step(_RETURN, _ERRNO | errno.ENOSYS),
        *body,
        Step(_RETURN, _ALLOW),
    ]
    return b"".join(_INSTRUCTION.pack(one.code, one.yes, one.no, one.value) for one in steps)


def _refuse(numbers: list[int]) -> list[Step]:
    return [
        step
        for number in sorted(numbers)
        for step in (Step(_EQUAL, number, no=1), Step(_RETURN, _ERRNO | errno.EPERM))
    ]


def _no_new_namespaces(numbers: dict[str, int]) -> list[Step]:
    return [
        Step(_EQUAL, numbers["clone3"], no=1),
        Step(_RETURN, _ERRNO | errno.ENOSYS),
        *_by_argument(numbers["clone"], 0, [(_ANY_BIT, _ANY_NAMESPACE)]),
    ]


def _common(numbers: dict[str, int]) -> list[Step]:
    families = (_AF_ALG, _AF_VSOCK, _AF_PACKET, _AF_BLUETOOTH, _AF_RDS, _AF_TIPC, _AF_KEY)
    return [
        *_by_argument(numbers["ioctl"], 1, [(_EQUAL, _TIOCSTI), (_EQUAL, _TIOCLINUX)]),
        *_by_argument(numbers["socket"], 0, [(_EQUAL, family) for family in families]),
    ]


def _by_argument(number: int, argument: int, tests: list[tuple[int, int]]) -> list[Step]:
    """Refuse a call if one of the tests is true of the lower half of an argument."""
    judged = [Step(_LOAD, _ARGUMENT + 8 * argument)]
    for test, value in tests:
        judged += [Step(test, value, no=1), Step(_RETURN, _ERRNO | errno.EPERM)]
    judged.append(Step(_LOAD, _NUMBER))
    return [Step(_EQUAL, number, no=len(judged)), *judged]
