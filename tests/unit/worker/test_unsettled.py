"""A machine that goes down may lose what was written last; a process that dies loses nothing."""

import asyncio
import os
from pathlib import Path

from tidemill_worker.unsettled import Unsettled


def started(folder: Path, boot: str) -> tuple[Unsettled, list[str]]:
    unsettled, over = Unsettled(folder, boot=boot), []
    unsettled.recover(lambda: over.append("start over"))
    return unsettled, over


def test_what_a_machine_that_went_down_may_have_lost_is_made_anew(tmp_path: Path) -> None:
    unsettled, over = started(tmp_path, "first")
    unsettled.add("image")
    assert over == []
    assert started(tmp_path, "first")[1] == []  # only a process died
    assert started(tmp_path, "second")[1] == ["start over"]
    assert started(tmp_path, "third")[1] == []


def test_what_is_on_the_disk_is_not_made_anew(tmp_path: Path) -> None:
    unsettled, _ = started(tmp_path, "first")
    unsettled.add("image")
    asyncio.run(unsettled.settle())
    assert started(tmp_path, "second")[1] == []


def test_what_a_dead_process_left_is_settled_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "image.4194304").symlink_to("first")  # above every process id
    unsettled, _ = started(tmp_path, "first")
    assert [link.name for link in tmp_path.glob("image.*")] == [f"image.{os.getpid()}"]
    asyncio.run(unsettled.settle())
    assert not list(tmp_path.glob("image.*"))
