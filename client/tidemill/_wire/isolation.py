"""What a tier can hold back: the rows of the table that each worker's self-test fills."""

HELD, WATCHED, OPEN = "held", "watched", "open"

# By name, what user code may try. The order is that of the tables in which people read it.
ROWS = {
    "files": "read the worker's private files",
    "identity": "act under an id that owns something on the machine",
    "write": "write to the machine's files",
    "mounts": "mount, or make writable what is mounted read-only",
    "sysctl": "change the kernel's settings",
    "devices": "open or make device nodes",
    "processes": "see or signal the machine's processes",
    "neighbours": "see another container's files and processes",
    "namespaces": "make user namespaces and gain rights in them",
    "kernel": "reach bpf, perf, key rings, io_uring and the hypervisor's sockets",
    "loopback": "connect to the machine's loopback: the broker, the database",
    "addresses": "connect to the machine's other addresses",
    "private": "connect to private networks",
    "abstract": "connect to the machine's abstract sockets",
    "memory": "use more memory than its limit",
    "processors": "use more cores than its limit",
    "tasks": "start processes without end",
    "disk": "fill the disk",
}
