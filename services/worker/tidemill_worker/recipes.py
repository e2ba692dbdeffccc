"""Image recipes: the layers of an `ImageSpec`, read into what this worker has to do.

Each layer is (operation, arguments), named as the method of `Image` that made it. Layers that install
packages decide the environment's key; variables and the working directory belong to a container and
cost nothing.
"""

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tidemill import exception
from tidemill._wire.specs import ImageSpec


@dataclass(frozen=True, slots=True)
class Install:
    """One layer of packages: requirements and what else `uv pip install` is to be told."""

    packages: tuple[str, ...]
    options: tuple[str, ...] = ()
    build: str = ""  # what makes a forced layer different from all earlier ones


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an image is made of: a Python, packages, variables and a working directory."""

    python: str = ""
    build: str = ""
    installs: tuple[Install, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = ""


def read(spec: ImageSpec) -> Recipe:
    """Return the recipe of an image; `ImageBuildError` for an operation that this worker cannot do."""
    python, build, workdir = "", "", ""
    installs: list[Install] = []
    env: dict[str, str] = {}
    for operation, arguments in spec.layers:
        match operation:
            case "debian_slim":
                python = arguments.get("python_version") or ""
                build = arguments.get("build", "")
            case "pip_install" | "uv_pip_install":
                installs.append(_install(arguments))
            case "env":
                env.update(arguments["vars"])
            case "workdir":
                workdir = arguments["path"]
            case "add_local_python_source":
                pass  # travels as a bundle of the function's source
            case _:
                raise exception.ImageBuildError(
                    f"this worker cannot carry out Image.{operation}()",
                    hint="its images are made of Python packages; install the rest on the machine",
                )
    return Recipe(python, build, tuple(installs), env, workdir)


# Options that take a value, or several, and those that are switches.
_VALUES = {"index_url": "--default-index", "extra_index_url": "--index", "find_links": "--find-links"}


def _install(arguments: Mapping[str, Any]) -> Install:
    options: list[str] = []
    for name, flag in _VALUES.items():
        given = arguments.get(name) or ()
        for value in (given,) if isinstance(given, str) else given:
            options += [flag, value]
    if arguments.get("pre"):
        options += ["--prerelease", "allow"]
    options += shlex.split(arguments.get("extra_options", ""))
    return Install(tuple(arguments["packages"]), tuple(options), arguments.get("build", ""))


def key(recipe: Recipe, interpreter: str) -> str:
    """Return the name of the environment that a recipe and an interpreter make."""
    layers = [[install.packages, install.options, install.build] for install in recipe.installs]
    content = [interpreter, recipe.build, layers]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]
