"""Where containers are isolated, packages are wheels: nothing of theirs runs on the worker's machine."""

import asyncio
from pathlib import Path

import pytest
from package_stage import PackageStage

from tidemill.exception import ImageBuildError


async def test_an_isolated_worker_installs_wheels_and_builds_nothing(wheels: Path, tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as tasks:
        await (stage := PackageStage(tmp_path, isolated=True)).open(tasks)
        made = await stage.build(wheels, "tidemill-probe")
        assert list(made.python.parent.parent.glob("lib/*/site-packages/tidemill_probe.py"))
        with pytest.raises(ImageBuildError, match="has no wheel") as caught:
            await stage.build(wheels, "tidemill-source-probe")
        assert "apt_install" in caught.value.hint
        with pytest.raises(ImageBuildError, match="git\\+ssh://x/y is not for packages"):
            await stage.build(wheels, "git+ssh://x/y")
        assert len(stage.made()) == 1
        await stage.images.close()
