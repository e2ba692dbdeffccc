"""Disks of containers: a file system of limited size for what each of them writes. The worker of root.

    file without a name ── loop device ── ext4 ── descriptor of a mount ──> container, which puts it there

The file takes as much of the worker's disk as was written, and shrinks when the container removes something.
Nothing of it has a name, and the mount is in nobody's sight but the container's: all of it is gone with the
container and our descriptors, however those end.
"""

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import threading
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from tidemill._container import syscalls

AHEAD = 8  # disks of the usual size that wait
_BLANKS = 8  # sizes of which an empty file system is kept to be copied
_MIB = 1 << 20
_PER_INODE = 16384  # bytes
# What the file system needs for itself: its inodes, and some more.
_OVERHEAD, _LEAST = 1.03, 2 * _MIB
_BLOCK = 4096  # bytes, of the device and of the file system
_TRIES = 16  # to have a loop device that somebody else did not take in between

_CONTROL = "/dev/loop-control"
_GET_FREE, _CONFIGURE = 0x4C82, 0x4C0A
_AUTOCLEAR, _DIRECT_IO = 4, 16
# struct loop_config of linux/loop.h: descriptor and block size, loop_info64 with the flags, room
_CONFIG = struct.Struct("=II 52xI176x 64x")


class NoDisks(Exception):
    """Disks of limited size cannot be made; the message says why."""


class Disks:
    """The disks of one worker. `owner` is the id that is root in its containers."""

    def __init__(self, folder: Path, owner: int, usual: int, program: str) -> None:
        self._folder = folder
        self._owner = owner
        self._usual = usual
        self._program = program
        self._blanks: OrderedDict[int, int] = OrderedDict()
        self._ready: deque[int] = deque()
        self._closed = False
        self._lock = threading.Lock()  # the kernel is asked in threads: it takes milliseconds

    @classmethod
    def open(cls, folder: Path, owner: int, usual: int) -> "Disks":
        """Make the first disk of the usual size, in MiB; `NoDisks` if that cannot be."""
        program = shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin:/bin")
        if program is None:
            raise NoDisks("mkfs.ext4 is not installed: install the package e2fsprogs")
        disks = cls(folder, owner, usual, program)
        try:
            disks._ready.append(disks.make(usual))
        except (OSError, subprocess.SubprocessError) as error:
            disks.close()
            raise NoDisks(f"no loop device can be mounted: {error}") from error
        return disks

    def give(self, size: int) -> int:
        """Return a descriptor of the mount of a new disk of so many MiB; `OSError` if it cannot be made."""
        with self._lock:
            if size == self._usual and self._ready:
                return self._ready.popleft()
        return self.make(size)

    def prepare(self) -> None:
        """Make disks of the usual size until enough wait. Who asks for one is told if that cannot be."""
        with suppress(OSError, subprocess.SubprocessError):
            while not self._closed and len(self._ready) < AHEAD:
                disk = self.make(self._usual)
                with self._lock:
                    if not self._closed:
                        self._ready.append(disk)
                        continue
                os.close(disk)

    def make(self, size: int) -> int:
        """Make a disk of so many MiB."""
        image = self._copy(size)
        try:
            device, path = _attach(image)
        finally:
            os.close(image)
        try:
            return syscalls.open_mount("ext4", path, ("discard", "noinit_itable"))
        finally:
            os.close(device)

    def _copy(self, size: int) -> int:
        """Return a file with an empty file system."""
        with self._lock:
            if self._closed:
                raise OSError(errno.ESHUTDOWN, "the worker ends")
            blank = self._blanks.get(size)
            if blank is None:
                blank = self._blanks[size] = self._format(size)
            self._blanks.move_to_end(size)
            copy = self._file()
            _copy_data(blank, copy)
            while len(self._blanks) > _BLANKS:
                os.close(self._blanks.popitem(last=False)[1])
        return copy

    def _format(self, size: int) -> int:
        blank = self._file()
        os.truncate(blank, _LEAST + int(size * _MIB * _OVERHEAD))
        options = f"lazy_itable_init=1,nodiscard,root_owner={self._owner}:{self._owner}"
        command = [
            self._program, "-q", "-F", "-b", str(_BLOCK), "-m", "0", "-i", str(_PER_INODE), "-E", options,
            "-O", "^has_journal,^resize_inode", f"/proc/self/fd/{blank}",
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, pass_fds=(blank,), timeout=60)
        return blank

    def _file(self) -> int:
        return os.open(self._folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        """Let go of what waits. Disks of containers are gone with those."""
        with self._lock:
            self._closed = True
            left = [*self._ready, *self._blanks.values()]
            self._ready.clear()
            self._blanks.clear()
        with ThreadPoolExecutor(AHEAD) as threads:  # the kernel takes its time for each
            threads.map(os.close, left)


def _copy_data(source: int, target: int) -> None:
    """Copy a file that is mostly holes."""
    size, at = os.fstat(source).st_size, 0
    os.truncate(target, size)
    while at < size:
        try:
            begin = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole is left
                return
            raise
        at = os.lseek(source, begin, os.SEEK_HOLE)
        data = os.pread(source, at - begin, begin)
        if data.strip(b"\0"):
            os.pwrite(target, data, begin)


def _attach(image: int) -> tuple[int, str]:
    """Return a loop device for a file, which lets go of it when nobody uses the device any more."""
    with open(_CONTROL, "rb") as control:  # noqa: PTH123
        for _ in range(_TRIES):
            path = f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}"
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _CONFIGURE, _CONFIG.pack(image, _BLOCK, _AUTOCLEAR | _DIRECT_IO))
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:
                    raise
            else:
                return device, path
    raise OSError(errno.EBUSY, "other programs take every loop device")
