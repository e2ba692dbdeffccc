"""What counts as a change of a file that an app is made of."""

import asyncio
import os
import time
from pathlib import Path

import declared
from waiting import PATIENCE

from tidemill import App, Image, _plan
from tidemill._changes import Changes


async def heard(changes: Changes) -> set[str]:
    async with asyncio.timeout(PATIENCE):
        return {path.name for path in await changes.next()}


async def test_a_file_is_followed_also_when_another_takes_its_place(tmp_path: Path) -> None:
    file, other = tmp_path / "app.py", tmp_path / "other.py"
    file.write_text("1")
    changes = Changes()
    await changes.follow([file], time.time() + 60)
    await watching(changes, file)
    other.write_text("not part of it")
    for text in ("2", "3"):  # the second time it is another file that is replaced
        new = tmp_path / "app.py.new"
        new.write_text(text)
        os.replace(new, file)
        assert await heard(changes) == {"app.py"}
    await changes.close()


async def test_folders_are_followed_without_caches(tmp_path: Path) -> None:
    (tmp_path / "package" / "inner" / "__pycache__").mkdir(parents=True)
    file = tmp_path / "package" / "inner" / "module.py"
    file.write_text("1")
    changes = Changes()
    await changes.follow([tmp_path / "package"], time.time() + 60)
    await watching(changes, file)
    (file.parent / "__pycache__" / "module.cpython-311.pyc").write_text("cached")
    file.write_text("2")
    assert await heard(changes) == {"module.py"}
    await changes.close()


async def test_what_changed_while_the_code_was_imported_counts(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    begun = time.time() - 5
    file.write_text("1")
    changes = Changes()
    await changes.follow([file], since=begun)
    assert await heard(changes) == {"app.py"}
    await changes.close()


def test_everything_that_an_app_takes_along_is_followed(tmp_path: Path) -> None:
    needed, assets = tmp_path / "requirements.txt", tmp_path / "assets"
    needed.write_text("httpx\n")
    assets.mkdir()
    (assets / "page.html").write_text("<p>")
    image = Image.debian_slim().pip_install_from_requirements(str(needed)).add_local_dir(assets, "/assets")
    app = App("followed", image=image)
    app.function()(declared.plain)
    plan = _plan.pack(app, None, "main")
    assert plan.paths == {needed, assets, Path(declared.__file__)}


async def watching(changes: Changes, file: Path) -> None:
    """Return once changes are noticed: the system needs a moment to begin."""
    noticed = asyncio.ensure_future(heard(changes))
    async with asyncio.timeout(PATIENCE):
        while not noticed.done():
            file.touch()
            await asyncio.wait((noticed,), timeout=0.1)
