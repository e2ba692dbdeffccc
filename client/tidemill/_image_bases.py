"""What recipes begin with."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from tidemill import _image_checks as checks
from tidemill._image_packages import Gpu, Variables
from tidemill._image_parts import BuildSecrets, Ignore
from tidemill._image_recipe import Recipe
from tidemill._image_system import AUTO_DOCKERIGNORE, _AutoDockerignore, dockerfile
from tidemill.exception import InvalidError

if TYPE_CHECKING:
    from tidemill.secret import Secret


class Bases(Recipe):
    """The first layer of an image."""

    @classmethod
    def debian_slim(cls, python_version: str | None = None, force_build: bool = False) -> Self:
        """Return the base image: Debian with Python.

        Args:
            python_version: such as `"3.12"`; by default the minor version of this Python.
            force_build: make it anew, whatever is cached.

        Raises:
            InvalidError: the version cannot be one.
        """
        version = checks.python_version(python_version)
        return cls._make((("debian_slim", {"python_version": version, **checks.forced(force_build)}),))

    @classmethod
    def from_registry(
        cls,
        tag: str,
        secret: "Secret | None" = None,
        *,
        setup_dockerfile_commands: Sequence[str] = (),
        force_build: bool = False,
        add_python: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Return an image of a registry, such as `"python:3.12-slim"`.

        Args:
            tag: its name, with a tag or a digest; Docker Hub's where it names no registry.
            secret: `REGISTRY_USERNAME` and `REGISTRY_PASSWORD`, where the registry asks for them.
            setup_dockerfile_commands: lines of a Dockerfile that come first.
            add_python: a version of Python to put into it, where it has none.

        Raises:
            InvalidError: the name or the version cannot be one.
        """
        _refuse_unknown("from_registry", kwargs)
        return cls._from_registry(
            "from_registry", tag, secret, setup_dockerfile_commands, force_build, add_python
        )

    @classmethod
    def from_gcp_artifact_registry(
        cls,
        tag: str,
        secret: "Secret | None" = None,
        *,
        setup_dockerfile_commands: Sequence[str] = (),
        force_build: bool = False,
        add_python: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Return an image of Google's Artifact Registry, as `from_registry` does.

        `secret` holds `SERVICE_ACCOUNT_JSON`, the key of an account that may read it.
        """
        _refuse_unknown("from_gcp_artifact_registry", kwargs)
        operation = "from_gcp_artifact_registry"
        return cls._from_registry(operation, tag, secret, setup_dockerfile_commands, force_build, add_python)

    @classmethod
    def from_aws_ecr(
        cls,
        tag: str,
        secret: "Secret | None" = None,
        *,
        setup_dockerfile_commands: Sequence[str] = (),
        force_build: bool = False,
        add_python: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Return an image of Amazon's registry, as `from_registry` does.

        `secret` holds `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN` where there is
        one, and `AWS_REGION` where the registry's name does not tell it.
        """
        _refuse_unknown("from_aws_ecr", kwargs)
        operation = "from_aws_ecr"
        return cls._from_registry(operation, tag, secret, setup_dockerfile_commands, force_build, add_python)

    @classmethod
    def _from_registry(
        cls,
        operation: str,
        tag: str,
        secret: "Secret | None",
        setup: Sequence[str],
        force_build: bool,
        add_python: str | None,
    ) -> Self:
        told = {
            "tag": checks.reference(operation, tag),
            **({"secrets": _one_secret(secret)} if secret is not None else {}),
            **checks.add_python(add_python),
            **checks.forced(force_build),
        }
        lines = checks.commands(operation, setup)
        if lines:
            told["setup"] = lines
        return cls._make(((operation, told),))

    @classmethod
    def from_dockerfile(
        cls,
        path: str | os.PathLike[str],
        *,
        force_build: bool = False,
        context_dir: str | os.PathLike[str] | None = None,
        ignore: "Ignore | _AutoDockerignore" = AUTO_DOCKERIGNORE,
        build_args: Mapping[str, str] | None = None,
        registry_secret: "Secret | None" = None,
        secrets: "Sequence[Secret] | None" = None,
        env: Variables | None = None,
        gpu: Gpu | None = None,
        add_python: str | None = None,
    ) -> Self:
        """Return an image built from a Dockerfile, which is read when the app starts.

        Args:
            path: the Dockerfile.
            context_dir: the folder that `COPY` takes from; by default the Dockerfile's.
            ignore: what of it is left out; by default what `.dockerignore` says.
            build_args: values of `ARG`.
            registry_secret: as `secret` of `from_registry`, for its `FROM`.
            secrets: variables for `RUN --mount=type=secret,id=<NAME>`.
            env: further build arguments.
            add_python: a version of Python to put into it, where it has none.

        Raises:
            UnimplementedError: `gpu` is given: builds have none in this version.
        """
        checks.refuse("from_dockerfile", gpu=gpu)
        told = {
            **dockerfile(path, context_dir, ignore, {**(env or {}), **(build_args or {})}),
            **checks.build_options("from_dockerfile", secrets=secrets),
            **checks.add_python(add_python),
            **checks.forced(force_build),
        }
        if registry_secret is not None:
            told["registry_secrets"] = _one_secret(registry_secret)
        return cls._make((("from_dockerfile", told),))

    @classmethod
    def micromamba(cls, python_version: str | None = None, force_build: bool = False) -> Self:
        """Return the base with `micromamba` and Python, both of conda-forge.

        Args:
            python_version: such as `"3.12"`; by default the minor version of this Python.
            force_build: make it anew, whatever is cached.
        """
        version = checks.python_version(python_version)
        return cls._make((("micromamba", {"python_version": version, **checks.forced(force_build)}),))

    @classmethod
    def from_scratch(cls, force_build: bool = False) -> Self:
        """Return an empty image. Functions need a Python in it, which `dockerfile_commands` can copy."""
        return cls._make((("from_scratch", checks.forced(force_build)),))


def _one_secret(given: Any) -> BuildSecrets:
    from tidemill import secret

    return BuildSecrets(secret.check([given]))


def _refuse_unknown(operation: str, options: Mapping[str, Any]) -> None:
    if options:
        raise InvalidError(f"Image.{operation} has no option {next(iter(options))!r}")
