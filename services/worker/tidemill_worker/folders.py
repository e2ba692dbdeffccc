"""Folders that are made once and then never changed: made under a name of their own, renamed when whole.

<name>/          finished
.<name>.<pid>/   being made by a worker process; removed by the next one if that died
"""

import os
import shutil
from pathlib import Path


def making(folder: Path) -> Path:
    """Return where this process makes a folder."""
    return folder.with_name(f".{folder.name}.{os.getpid()}")


def publish(made: Path, folder: Path) -> None:
    """Give a finished folder its name, unless another worker was faster."""
    try:
        made.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def prepare(parent: Path) -> Path:
    """Make the folder that holds such folders, without what dead workers left half made."""
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in parent.glob(".*.*"):
        if not is_alive(left.suffix[1:]):
            shutil.rmtree(left, ignore_errors=True)
    return parent


def is_alive(pid: str) -> bool:
    """Return whether a process of this number exists."""
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
