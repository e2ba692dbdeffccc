"""Every method of Modal's `Image`, with the parameters it has there, in their order."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from tidemill import Image
from tidemill._sync import Call, Immediate

INDEX = "find_links=, index_url=, extra_index_url=, pre=, extra_options="
BUILD = "force_build=, env=, secrets=, gpu="
REGISTRY = "tag, secret=, *, setup_dockerfile_commands=, force_build=, add_python=, **kwargs"

# Names with `=` have a default; what follows `*` is given by name only.
SURFACE = {
    "add_local_dir": "local_path, remote_path, *, copy=, ignore=",
    "add_local_file": "local_path, remote_path, *, copy=",
    "add_local_python_source": "*modules, copy=, ignore=",
    "apt_install": f"*packages, {BUILD}",
    "build": "app=",
    "cmd": "cmd",
    "debian_slim": "python_version=, force_build=",
    "dockerfile_commands": "*dockerfile_commands, context_files=, env=, secrets=, gpu=, "
    "context_dir=, force_build=, "
    "ignore=, build_args=",
    "entrypoint": "entrypoint_commands",
    "env": "vars",
    "from_aws_ecr": REGISTRY,
    "from_dockerfile": "path, *, force_build=, context_dir=, ignore=, build_args=, "
    "registry_secret=, secrets=, env=, "
    "gpu=, add_python=",
    "from_gcp_artifact_registry": REGISTRY,
    "from_id": "image_id, client=",
    "from_name": "name, *, environment_name=, client=",
    "from_registry": REGISTRY,
    "from_scratch": "force_build=",
    "get_dashboard_url": "",
    "hydrate": "client=",
    "imports": "",
    "micromamba": "python_version=, force_build=",
    "micromamba_install": f"*packages, spec_file=, channels=, {BUILD}",
    "pip_install": f"*packages, {INDEX}, {BUILD}",
    "pip_install_from_pyproject": f"pyproject_toml, optional_dependencies=, *, {INDEX}, {BUILD}",
    "pip_install_from_requirements": "requirements_txt, find_links=, *, index_url=, "
    "extra_index_url=, pre=, "
    f"extra_options=, {BUILD}",
    "pip_install_private_repos": f"*repositories, git_user, {INDEX}, gpu=, env=, secrets=, force_build=",
    "pipe": "func, *args, **kwargs",
    "poetry_install_from_file": "poetry_pyproject_toml, poetry_lockfile=, *, ignore_lockfile=, "
    "force_build=, with_=, "
    "without=, only=, poetry_version=, old_installer=, env=, secrets=, gpu=",
    "publish": "name, *, environment_name=, experimental_options=, client=",
    "run_commands": "*commands, env=, secrets=, volumes=, gpu=, force_build=",
    "run_function": "raw_f, *, env=, secrets=, volumes=, network_file_systems=, gpu=, cpu=, "
    "memory=, timeout=, cloud=, "
    "region=, force_build=, args=, kwargs=, include_source=",
    "shell": "shell_commands",
    "uv_pip_install": "*packages, requirements=, find_links=, index_url=, extra_index_url=, pre=, "
    "extra_options=, "
    "force_build=, uv_version=, env=, secrets=, gpu=",
    "uv_sync": "uv_project_dir=, *, force_build=, groups=, extras=, frozen=, extra_options=, "
    "uv_version=, env=, "
    "secrets=, gpu=",
    "workdir": "path",
}
BOTH_WAYS = ("build", "from_id", "get_dashboard_url", "hydrate", "publish")
PROPERTIES = ("logs", "object_id")


def told(function: Callable[..., Any]) -> str:
    """Return a function's parameters as they stand above."""
    words = []
    bare = False
    for each in inspect.signature(function).parameters.values():
        if each.kind is each.KEYWORD_ONLY and not bare and not any(word[0] == "*" for word in words):
            words.append("*")
            bare = True
        stars = {each.VAR_POSITIONAL: "*", each.VAR_KEYWORD: "**"}.get(each.kind, "")
        words.append(f"{stars}{each.name}{'' if each.default is each.empty else '='}")
    return ", ".join(words)


@pytest.mark.parametrize("name", SURFACE)
def test_a_method_has_the_parameters_it_has_at_modal(name: str) -> None:
    method = getattr(Image.debian_slim(), name)
    if isinstance(method, Call):
        method = method._function
    assert told(method._function if isinstance(method, Immediate) else method) == SURFACE[name]


def test_what_asks_the_server_is_there_in_both_ways() -> None:
    image = Image.debian_slim()
    assert all(callable(getattr(image, name).aio) for name in BOTH_WAYS)
    assert all(isinstance(inspect.getattr_static(image, name), property) for name in PROPERTIES)
