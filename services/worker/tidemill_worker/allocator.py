"""What glibc's allocator is told about memory that was freed: keep it, within bounds.

A payload of a megabyte is copied half a dozen times on its way. By default each of these buffers is
mapped from the system and given back, and every page of it is faulted in anew: half of the system time
of a worker and its containers when payloads are large.
"""

import ctypes
import sys
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from malloc.h
TRIM = 128 << 20  # bytes of free memory that a worker keeps: payloads of many containers pass through it
MMAP = 32 << 20  # bytes from which a worker's buffer is mapped by itself; the most that glibc takes

# What a container's processes keep: they have one payload at a time.
VARIABLES = {"MALLOC_TRIM_THRESHOLD_": str(16 << 20), "MALLOC_MMAP_THRESHOLD_": str(4 << 20)}


def keep_freed_memory() -> None:
    """Set the bounds of this process, a worker. Without glibc nothing happens."""
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_TRIM_THRESHOLD, TRIM)
        libc.mallopt(_M_MMAP_THRESHOLD, MMAP)
