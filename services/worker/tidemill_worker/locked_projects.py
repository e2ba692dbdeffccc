"""Projects that have their packages locked: what `uv` and Poetry make of them, as plain requirements."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from tidemill_worker.building import check
from tidemill_worker.recipes import Install
from tidemill_worker.uv import Say, Uv

# Where no code of packages may run outside of containers.
WHEELS_ALONE = MappingProxyType({"UV_NO_BUILD": "1"})
_PLAIN = ("--no-python-downloads",)


async def requirements(
    uv: Uv, install: Install, folder: Path, python: str, env: Mapping[str, str], say: Say
) -> str:
    """Return exact versions with hashes of what a project has locked, without the project itself.

    The project is written into `folder`, which is empty.
    """
    (folder / "pyproject.toml").write_text(install.project["pyproject"])
    export = _from_poetry if install.operation == "poetry_install_from_file" else _from_uv
    return await export(uv, install, folder, python, env, say)


async def _from_uv(
    uv: Uv, install: Install, folder: Path, python: str, env: Mapping[str, str], say: Say
) -> str:
    project, found = install.project, folder / "found.txt"
    if project.get("lock"):
        (folder / "uv.lock").write_text(project["lock"])
    named = [word for name in project["groups"] for word in ("--group", name)]
    named += [word for name in project["extras"] for word in ("--extra", name)]
    command = (
        "export", "--project", folder, "--output-file", found, "--format", "requirements-txt",
        "--no-emit-workspace", "--no-header", "--no-annotate", "--quiet", "--python", python, *_PLAIN,
        *(["--frozen"] if project["frozen"] else []), *named, *install.options,
    )  # fmt: skip
    check(await uv.run(*command, env=env, say=say), install.shown)
    return found.read_text()


async def _from_poetry(
    uv: Uv, install: Install, folder: Path, python: str, _env: Mapping[str, str], say: Say
) -> str:
    """Have Poetry export its lock: without the layer's variables, which could make it another Poetry."""
    project, found = install.project, folder / "found.txt"
    version = project["poetry_version"]
    poetry: tuple[str | Path, ...] = (
        "tool", "run", "--python", python, *_PLAIN, "--with", "poetry-plugin-export",
        "--from", "poetry" if version == "latest" else f"poetry=={version}",
        "poetry", "--no-interaction", "--directory", folder,
    )  # fmt: skip
    if project.get("lock"):
        (folder / "poetry.lock").write_text(project["lock"])
    else:
        check(await uv.run(*poetry, "lock", say=say), install.shown)
    groups = [f"--{kind}={','.join(project[kind])}" for kind in ("with", "without", "only") if project[kind]]
    command = (*poetry, "export", "--format", "requirements.txt", "--output", found, *groups)
    check(await uv.run(*command, say=say), install.shown)
    return found.read_text()
