"""Image recipes: the layers of an `ImageSpec`, read into what this worker has to do.

Each layer is (operation, arguments), named as the method of `Image` that made it. Layers that install
packages decide the environment's key; variables, the working directory and files that are attached belong
to a container and cost nothing. A recipe in which anything else stands needs a root file system of its own.
"""

import hashlib
import json
import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tidemill import exception
from tidemill._wire.specs import ImageSpec

PACKAGES = frozenset(
    (
        "pip_install", "uv_pip_install", "pip_install_from_requirements", "pip_install_from_pyproject",
        "pip_install_private_repos", "uv_sync", "poetry_install_from_file",
    )
)  # fmt: skip
FILES = frozenset(("add_local_file", "add_local_dir"))
_ROOTS = frozenset(("from_registry", "from_gcp_artifact_registry", "from_aws_ecr", "from_dockerfile"))
BASES = _ROOTS | {"from_scratch"}
SYSTEM = frozenset(("apt_install", "run_commands", "dockerfile_commands", "run_function"))
_WRITTEN = frozenset(("shell", "entrypoint", "cmd", "add_local_python_source"))


@dataclass(frozen=True, slots=True)
class Install:
    """One layer of packages: requirements and what else `uv` is to be told.

    `project` is what a locked project says (`pyproject`, `lock`, groups, ...) instead of requirements.
    `number` is the layer's place in the recipe, from 1.
    """

    packages: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    build: str = ""  # what makes a forced layer different from all earlier ones
    operation: str = "pip_install"
    project: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[int, ...] = ()
    number: int = 0

    @property
    def shown(self) -> str:
        """What the layer is called where it failed."""
        return f"layer {self.number}, Image.{self.operation}({', '.join(self.packages)})"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an image is made of.

    `needs_root` names the first operation that needs a root file system, or nothing. `files` are archives
    by the folder that their files are put into. `is_private` says that secrets took part in making it.
    """

    python: str = ""
    build: str = ""
    installs: tuple[Install, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = ""
    files: tuple[tuple[str, str], ...] = ()
    layers: tuple[tuple[str, Any], ...] = ()
    needs_root: str = ""
    is_private: bool = False


def read(spec: ImageSpec) -> Recipe:
    """Return the recipe of an image; `ImageBuildError` for an operation that this worker does not know."""
    python, build, workdir, needs_root = "", "", "", ""
    installs: list[Install] = []
    env: dict[str, str] = {}
    files: list[tuple[str, str]] = []
    for number, (operation, arguments) in enumerate(spec.layers, start=1):
        if operation == "debian_slim":
            python = arguments.get("python_version") or ""
            build = arguments.get("build", "")
        elif operation in PACKAGES:
            installs.append(install(operation, arguments, number))
        elif operation == "env":
            env.update(arguments["vars"])
        elif operation == "workdir":
            workdir = arguments["path"]
        elif operation in FILES:
            files.append((arguments["files"]["remote"], arguments["files"]["bundle"]))
        elif operation in BASES | SYSTEM:
            needs_root = needs_root or operation
        elif operation not in _WRITTEN:
            raise exception.ImageBuildError(
                f"this worker cannot carry out Image.{operation}()",
                hint="it runs another version of Tidemill",
            )
    return Recipe(
        python,
        build,
        tuple(installs),
        env,
        workdir,
        (*(() if needs_root else files), *spec.attached),
        spec.layers,
        needs_root,
        is_private=bool(spec.secrets),
    )


# Options that take a value, or several, and those that are switches.
_VALUES = {"index_url": "--default-index", "extra_index_url": "--index", "find_links": "--find-links"}
_PROJECT = (
    "pyproject", "lock", "groups", "extras", "frozen", "with", "without", "only", "poetry_version",
)  # fmt: skip


def install(operation: str, arguments: Mapping[str, Any], number: int) -> Install:
    """Return what a layer of packages installs."""
    packages = [*arguments.get("packages", ()), *_repositories(arguments)]
    for file in arguments.get("requirements", ()):
        packages += file
    return Install(
        tuple(packages),
        options(arguments),
        arguments.get("build", ""),
        operation,
        {name: arguments[name] for name in _PROJECT if name in arguments},
        {**arguments.get("env", {}), **_git(arguments)},
        tuple(arguments.get("secrets", ())),
        number,
    )


def options(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what an installer is told beside the packages."""
    found: list[str] = []
    for name, flag in _VALUES.items():
        given = arguments.get(name) or ()
        for value in (given,) if isinstance(given, str) else given:
            found += [flag, value]
    if arguments.get("pre"):
        found += ["--prerelease", "allow"]
    return (*found, *shlex.split(arguments.get("extra_options", "")))


def _repositories(arguments: Mapping[str, Any]) -> list[str]:
    return [f"git+https://{repository}" for repository in arguments.get("repositories", ())]


def _git(arguments: Mapping[str, Any]) -> dict[str, str]:
    return {"TIDEMILL_GIT_USER": arguments["git_user"]} if "git_user" in arguments else {}


def git_credentials(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with which git reads private repositories: the token is in no URL of ours."""
    found: list[tuple[str, str]] = []
    for host, name in (("github.com", "GITHUB_TOKEN"), ("gitlab.com", "GITLAB_TOKEN")):
        if "TIDEMILL_GIT_USER" in env and name in env:
            url = f"https://{env['TIDEMILL_GIT_USER']}:{env[name]}@{host}/"
            found.append((f"url.{url}.insteadOf", f"https://{host}/"))
    numbered = {
        f"GIT_CONFIG_{part}_{number}": text
        for number, pair in enumerate(found)
        for part, text in zip(("KEY", "VALUE"), pair, strict=True)
    }
    return {"GIT_CONFIG_COUNT": str(len(found)), **numbered} if found else {}


def key(recipe: Recipe, interpreter: str, workspace: str = "") -> str:
    """Return the name of the environment that a recipe and an interpreter make.

    One that secrets took part in belongs to its workspace alone.
    """
    return digest([interpreter, recipe.build, *([workspace] if recipe.is_private else []), _content(recipe)])


def resolution_key(recipe: Recipe, version: str, workspace: str) -> str:
    """Return what the resolution of a recipe is kept under: the same on every worker of a kind."""
    kind = [version, platform.machine(), platform.libc_ver()[0]]
    return digest([kind, recipe.build, *([workspace] if recipe.is_private else []), _content(recipe)])


def _content(recipe: Recipe) -> list[Any]:
    return [
        [each.packages, each.options, each.build, dict(each.project), dict(each.env)]
        for each in recipe.installs
    ]


def digest(content: Any) -> str:
    """Return a short name for some content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]
