"""Image recipes: the layers of an `ImageSpec`, read into what this worker has to do.

Each layer is (operation, arguments), named as the method of `Image` that made it. Layers that install
packages decide the environment's key; variables, the working directory and files that are attached belong
to a container and cost nothing. A recipe in which anything else stands needs a root file system of its own.
"""

import hashlib
import json
import platform
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
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
BASES = _ROOTS | {"from_scratch", "micromamba"}
SYSTEM = frozenset(
    ("apt_install", "run_commands", "dockerfile_commands", "run_function", "micromamba_install")
)
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
            workdir = place(arguments["path"])
        elif operation in FILES:
            files.append((place(arguments["files"]["remote"]), arguments["files"]["bundle"]))
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
        (*(() if needs_root else files), *((place(path), bundle) for path, bundle in spec.attached)),
        spec.layers,
        needs_root,
        is_private=bool(spec.secrets),
    )


# Options that take a value, or several, and those that are switches.
_VALUES = {"index_url": "--default-index", "extra_index_url": "--index", "find_links": "--find-links"}
_PROJECT = (
    "pyproject", "lock", "groups", "extras", "frozen", "with", "without", "only", "poetry_version",
)  # fmt: skip


def place(path: str) -> str:
    """Return a path in a container, if it leads nowhere else: whoever sent it may be nobody's friend."""
    pure = PurePosixPath(path)
    if not pure.is_absolute() or ".." in pure.parts:
        raise exception.ImageBuildError(f"not a path for files of an image: {path!r}")
    return str(pure)


# What an installer outside of a jail may be told: where packages come from, and which of them.
_HARMLESS = re.compile(
    r"-i|-f|--(default-index|index(-url|-strategy)?|extra-index-url|find-links|no-index|pre|prerelease|resolution"
    r"|exclude-newer|only-binary|no-deps|upgrade|reinstall|no-build-isolation|torch-backend|group|extra)(=.*)?"
)


_NAMED = re.compile(r"[\w.-]+\s*(?:\[[^\]]*\])?\s*@\s*(.*)")  # `name @ where it is`
_SCHEME = re.compile(r"([A-Za-z][\w+.-]*):")
_FAR = frozenset(("https", "http", "git+https"))
_ARCHIVES = (".whl", ".zip", ".tar.gz")
# Variables that make a program here run another one, or trust and read something else.
_STEERING = re.compile(
    r"(?:LD|DYLD|GIT|UV|PIP|PYTHON|SSH|SSL|XDG|RUST|CARGO|CURL|MALLOC)_.*|PYTHON.*|PATH|HOME|TMPDIR|NETRC|VIRTUAL_ENV"
    r"|.*_PROXY|.*CA_BUNDLE",
    re.IGNORECASE,
)
_STEERS_PACKAGES = re.compile(
    r"(?:UV|PIP)_(?:DEFAULT_INDEX|INDEX|INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|PRERELEASE|INDEX_STRATEGY"
    r"|INDEX_\w+_(?:USERNAME|PASSWORD))"
)


def daring(install: Install) -> str:
    """Return what of a layer could reach files of the worker's machine, or nothing.

    Where containers are isolated, packages must not be the way around it.
    """
    options = [word for word in install.options if word.startswith("-")]
    lines = [line.split()[0] for line in install.packages if line.startswith("-")]
    near = [line for line in install.packages if not line.startswith("-") and _is_near(line)]
    return next((word for word in (*options, *lines) if not _HARMLESS.fullmatch(word)), "".join(near[:1]))


def refuse_daring(install: Install, variables: Iterable[str]) -> None:
    """Raise `ImageBuildError` for a layer that an installer outside of a jail must not carry out."""
    word = daring(install) or daring_variable(variables)
    if not word and "requires-plugins" in install.project.get("pyproject", ""):
        word = "requires-plugins"  # Poetry would install and run them
    if word:
        raise exception.ImageBuildError(
            f"{install.shown}: {word} is not for packages that are installed outside of containers",
            hint="install them by .run_commands(...), which runs inside of one",
        )
    if install.project and not install.project.get("lock"):
        raise exception.ImageBuildError(
            f"{install.shown} needs its lock: making one could run code of packages outside of containers"
        )


def _is_near(requirement: str) -> bool:
    """Return whether a requirement is a file of this machine, or to be had in another way than by HTTP."""
    wanted = requirement.partition(";")[0].strip()
    named = _NAMED.fullmatch(wanted)
    target = named[1] if named else wanted
    if scheme := _SCHEME.match(target):
        return scheme[1].lower() not in _FAR
    return named is not None or "/" in target or target.startswith((".", "~")) or target.endswith(_ARCHIVES)


def daring_variable(names: Iterable[str]) -> str:
    """Return the first variable that could steer an installer outside of a jail, or nothing."""
    steering = (name for name in names if _STEERING.fullmatch(name))
    return next((name for name in steering if not _STEERS_PACKAGES.fullmatch(name)), "")


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
