"""A program at a real pseudo-terminal: what a person types, and what they see."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from typing import Self

PATIENCE = 60.0  # seconds


class AtTerminal:
    """A program whose controlling terminal is ours. `seen` is all that it has written so far."""

    def __init__(
        self, command: list[str], environment: dict[str, str], size: tuple[int, int] = (24, 80)
    ) -> None:
        self.master, slave = pty.openpty()
        self.resize(*size)
        self.before = termios.tcgetattr(slave)
        self.seen = ""
        self._from = 0
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**environment, "TERM": "xterm-256color", "PYTHON_COLORS": "0"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self._slave = slave  # kept: its mode is looked at, and what was written is not lost at the end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self._slave)

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.master, text.encode())

    def see(self, text: str, patience: float = PATIENCE) -> str:
        """Wait until a text is on the screen, behind what was waited for before; return what stood there."""
        until = time.monotonic() + patience
        while (found := self.seen.find(text, self._from)) < 0:
            left = until - time.monotonic()
            assert left > 0, f"not seen: {text!r}; seen: {self.seen[self._from :]!r}"
            self._read(min(left, 0.5))
        shown = self.seen[self._from : found]
        self._from = found + len(text)
        return shown

    def _read(self, timeout: float) -> bool:
        if not select.select([self.master], [], [], timeout)[0]:
            return False
        self.seen += os.read(self.master, 65536).decode(errors="replace")
        return True

    def is_raw(self) -> bool:
        """Return whether keys go to the program as they are typed."""
        return not termios.tcgetattr(self._slave)[3] & termios.ICANON

    def is_restored(self) -> bool:
        """Return whether the terminal is as it was before the program."""
        now = termios.tcgetattr(self._slave)
        pending = getattr(termios, "PENDIN", 0)
        now[3] &= ~pending
        return now == self.before

    def end(self, patience: float = PATIENCE) -> int:
        """Wait until the program has ended; return its status."""
        until = time.monotonic() + patience
        while self.process.poll() is None:
            assert time.monotonic() < until, f"it goes on; seen: {self.seen[-2000:]!r}"
            self._read(0.05)
        while self._read(0):
            pass
        return int(self.process.returncode)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program alone."""
        os.kill(self.process.pid, number)
