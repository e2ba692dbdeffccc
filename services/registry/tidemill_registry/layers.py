"""The layers of an image's recipe: what must stand in them for those who read them.

The registry, the scheduler and workers read layers by the names of their arguments, which mean the same in
each. What nobody reads may be anything that JSON can hold. Workers refuse the operations they do not know.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, TypedDict

import msgspec

from tidemill._wire.specs import ImageSpec
from tidemill.image import key

_Number = Annotated[int, msgspec.Meta(ge=0)]


class _Files(TypedDict):
    """An archive, by its digest, and the folder that its files are put into."""

    remote: str
    bundle: str


class _Function(TypedDict):
    """A function that runs while an image is built; its order is found by the number."""

    key: str
    number: _Number


# What layers are told.
Arguments = TypedDict(
    "Arguments",
    {
        "add_python": str | None,
        "build": str,
        "build_args": dict[str, str],
        "channels": list[str],
        "commands": list[str],
        "context": str,
        "cpu": float,
        "dockerfile": str,
        "env": dict[str, str],
        "environment": str,
        "extra_index_url": str | list[str],
        "extra_options": str,
        "extras": list[str],
        "files": _Files | list[_Files],
        "find_links": str | list[str],
        "frozen": bool,
        "function": _Function,
        "git_user": str,
        "groups": list[str],
        "image": str,
        "index_url": str,
        "lock": str | None,
        "memory": int,
        "module": str,
        "name": str,
        "only": list[str],
        "packages": list[str],
        "path": str,
        "poetry_version": str,
        "pre": bool,
        "pyproject": str,
        "python_version": str | None,
        "registry_secrets": list[_Number],
        "repositories": list[str],
        "requirements": list[list[str]],
        "secrets": list[_Number],
        "setup": list[str],
        "spec": str,
        "suffix": str,
        "tag": str,
        "timeout": float,
        "vars": dict[str, str],
        "with": list[str],
        "without": list[str],
        "words": list[str],
    },
    total=False,
)

# What an operation cannot do without.
NEEDED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "from_id": ("image",),
        "from_name": ("name",),
        "from_registry": ("tag",),
        "from_gcp_artifact_registry": ("tag",),
        "from_aws_ecr": ("tag",),
        "from_dockerfile": ("dockerfile", "context"),
        "micromamba": ("python_version",),
        "apt_install": ("packages",),
        "micromamba_install": ("packages", "channels"),
        "run_commands": ("commands",),
        "dockerfile_commands": ("commands",),
        "run_function": ("function",),
        "uv_sync": ("pyproject", "groups", "extras", "frozen"),
        "poetry_install_from_file": ("pyproject", "with", "without", "only", "poetry_version"),
        "add_local_file": ("files",),
        "add_local_dir": ("files",),
        "add_local_python_source": ("module",),
        "env": ("vars",),
        "workdir": ("path",),
        "shell": ("words",),
        "entrypoint": ("words",),
        "cmd": ("words",),
    }
)


def problems(image: ImageSpec) -> Iterator[str]:
    """Yield what is wrong with the layers of an image."""
    for number, (operation, given) in enumerate(image.layers, start=1):
        shown = f"layer {number} of its image, {operation[:50]!r}"
        try:
            arguments = msgspec.convert(given, Arguments)
        except msgspec.ValidationError as error:
            yield f"{shown}: {error}"
            continue
        yield from (f"{shown} has no {name!r}" for name in NEEDED.get(operation, ()) if name not in arguments)
        yield from (f"{shown}: {problem}" for problem in _number_problems(image, arguments))
        if "files" in arguments and _is_many(arguments) != (operation == "dockerfile_commands"):
            yield f"{shown}: its files have the form of another operation's"
    try:
        key(image)
    except (TypeError, ValueError, RecursionError) as error:
        yield f"its image has no key: {error}"


def _is_many(arguments: Arguments) -> bool:
    return isinstance(arguments["files"], list)


def _number_problems(image: ImageSpec, arguments: Any) -> Iterator[str]:
    for name in ("secrets", "registry_secrets"):
        if any(number >= len(image.secrets) for number in arguments.get(name, ())):
            yield f"it names one of {len(image.secrets)} secrets that is not there"
    if "function" in arguments and arguments["function"]["number"] >= len(image.functions):
        yield f"it names one of {len(image.functions)} functions that is not there"
