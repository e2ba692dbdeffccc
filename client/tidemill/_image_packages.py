"""Layers of Python packages."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tidemill import _image_checks as checks
from tidemill._image_parts import LocalText
from tidemill._image_recipe import Recipe
from tidemill.exception import InvalidError

if TYPE_CHECKING:
    from tidemill.secret import Secret

Variables = Mapping[str, str | None]
Gpu = str | Sequence[str]


class Packages(Recipe):
    """What installs Python packages. Every method returns a new image.

    Options that all of them share: `find_links`, `index_url` and `extra_index_url` say where packages come
    from; `pre` takes pre-releases too; `extra_options` are further options of the installer, as one string;
    `force_build` makes this layer and those after it anew, whatever is cached; `env` and `secrets` are
    variables for this layer's build alone; `gpu` is taken and changes nothing, packages are wheels.
    """

    def pip_install(
        self,
        *packages: str | Sequence[str],
        find_links: str | None = None,
        index_url: str | None = None,
        extra_index_url: str | Sequence[str] | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        env: Variables | None = None,
        secrets: "Sequence[Secret] | None" = None,
        gpu: Gpu | None = None,
    ) -> Self:
        """Return the image with Python packages installed.

        Args:
            packages: requirements such as `"numpy"` or `"numpy>=2"`, or lists of them.

        Raises:
            InvalidError: a requirement is not a string.
        """
        wanted = checks.flat("pip_install", packages)
        arguments = checks.install_arguments(find_links, index_url, extra_index_url, pre, extra_options)
        options = checks.build_options("pip_install", env=env, secrets=secrets, gpu=gpu)
        return self._install("pip_install", {"packages": wanted, **arguments, **options}, force_build)

    def uv_pip_install(
        self,
        *packages: str | Sequence[str],
        requirements: Sequence[str] | None = None,
        find_links: str | None = None,
        index_url: str | None = None,
        extra_index_url: str | Sequence[str] | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        uv_version: str | None = None,
        env: Variables | None = None,
        secrets: "Sequence[Secret] | None" = None,
        gpu: Gpu | None = None,
    ) -> Self:
        """Return the image with Python packages installed by `uv`, as `pip_install` does here too.

        Args:
            requirements: files with one requirement in each line, read when the app starts.
            uv_version: accepted; every worker has one version of `uv`.

        Raises:
            InvalidError: a requirement is not a string.
        """
        _check_version("uv_pip_install", uv_version)
        wanted: Any = checks.flat("uv_pip_install", packages)
        if isinstance(requirements, str):
            raise InvalidError(
                f"Image.uv_pip_install: requirements has to be a list of files, not {requirements!r}"
            )
        files = [LocalText(str(file), "Image.uv_pip_install", "requirements") for file in requirements or ()]
        arguments = checks.install_arguments(find_links, index_url, extra_index_url, pre, extra_options)
        options = checks.build_options("uv_pip_install", env=env, secrets=secrets, gpu=gpu)
        from_files = {"requirements": files} if files else {}
        return self._install(
            "uv_pip_install", {"packages": wanted, **from_files, **arguments, **options}, force_build
        )

    def pip_install_from_requirements(
        self,
        requirements_txt: str | os.PathLike[str],
        find_links: str | None = None,
        *,
        index_url: str | None = None,
        extra_index_url: str | Sequence[str] | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        env: Variables | None = None,
        secrets: "Sequence[Secret] | None" = None,
        gpu: Gpu | None = None,
    ) -> Self:
        """Return the image with the packages of a `requirements.txt`, which is read when the app starts."""
        operation = "pip_install_from_requirements"
        files = [LocalText(str(requirements_txt), f"Image.{operation}", "requirements")]
        arguments = checks.install_arguments(find_links, index_url, extra_index_url, pre, extra_options)
        options = checks.build_options(operation, env=env, secrets=secrets, gpu=gpu)
        return self._install(operation, {"requirements": files, **arguments, **options}, force_build)

    def pip_install_from_pyproject(
        self,
        pyproject_toml: str | os.PathLike[str],
        optional_dependencies: Sequence[str] = (),
        *,
        find_links: str | None = None,
        index_url: str | None = None,
        extra_index_url: str | Sequence[str] | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        env: Variables | None = None,
        secrets: "Sequence[Secret] | None" = None,
        gpu: Gpu | None = None,
    ) -> Self:
        """Return the image with the dependencies of a `pyproject.toml`, and of some of its extras.

        The project itself is not installed.
        """
        operation = "pip_install_from_pyproject"
        extras = tuple(checks.names(operation, "optional_dependencies", optional_dependencies))
        files = [LocalText(str(pyproject_toml), f"Image.{operation}", "pyproject", extras=extras)]
        arguments = checks.install_arguments(find_links, index_url, extra_index_url, pre, extra_options)
        options = checks.build_options(operation, env=env, secrets=secrets, gpu=gpu)
        return self._install(operation, {"requirements": files, **arguments, **options}, force_build)

    def pip_install_private_repos(
        self,
        *repositories: str,
        git_user: str,
        find_links: str | None = None,
        index_url: str | None = None,
        extra_index_url: str | Sequence[str] | None = None,
        pre: bool = False,
        extra_options: str = "",
        gpu: Gpu | None = None,
        env: Variables | None = None,
        secrets: "Sequence[Secret] | None" = None,
        force_build: bool = False,
    ) -> Self:
        """Return the image with packages of private git repositories.

        Args:
            repositories: such as `"github.com/company/package@tag"`; GitHub and GitLab are known.
            git_user: who reads them.
            secrets: they have to hold `GITHUB_TOKEN` or `GITLAB_TOKEN`. Needed.

        Raises:
            InvalidError: there are no secrets, or a repository is none of GitHub or GitLab.
        """
        operation = "pip_install_private_repos"
        if not secrets:
            raise InvalidError(f"Image.{operation} needs secrets= with GITHUB_TOKEN or GITLAB_TOKEN")
        wanted = checks.flat(operation, repositories, what="repositories")
        if odd := [name for name in wanted if not name.startswith(("github.com/", "gitlab.com/"))]:
            raise InvalidError(
                f"Image.{operation}: {odd[0]!r} is none of GitHub or GitLab",
                hint="write 'github.com/<owner>/<repository>@<revision>'",
            )
        arguments = checks.install_arguments(find_links, index_url, extra_index_url, pre, extra_options)
        options = checks.build_options(operation, env=env, secrets=secrets, gpu=gpu)
        told = {"repositories": wanted, "git_user": git_user, **arguments, **options}
        return self._install(operation, told, force_build)

    def uv_sync(
        self,
        uv_project_dir: str | os.PathLike[str] = "./",
        *,
        force_build: bool = False,
        groups: Sequence[str] | None = None,
        extras: Sequence[str] | None = None,
        frozen: bool = True,
        extra_options: str = "",
        uv_version: str | None = None,
        env: Variables | None = None,
        secrets: "Sequence[Secret] | None" = None,
        gpu: Gpu | None = None,
    ) -> Self:
        """Return the image with what a `uv` project has locked; the project itself is not installed.

        Args:
            uv_project_dir: the folder of `pyproject.toml` and `uv.lock`, read when the app starts.
            groups, extras: dependency groups and extras to install as well.
            frozen: take `uv.lock` as it is. Otherwise what it lacks is resolved.
        """
        _check_version("uv_sync", uv_version)
        folder = Path(uv_project_dir)
        told = {
            "pyproject": LocalText(str(folder / "pyproject.toml"), "Image.uv_sync"),
            "lock": LocalText(str(folder / "uv.lock"), "Image.uv_sync", optional=not frozen),
            "groups": checks.names("uv_sync", "groups", groups),
            "extras": checks.names("uv_sync", "extras", extras),
            "frozen": bool(frozen),
            "extra_options": extra_options,
            **checks.build_options("uv_sync", env=env, secrets=secrets, gpu=gpu),
        }
        return self._install("uv_sync", told, force_build)

    def poetry_install_from_file(
        self,
        poetry_pyproject_toml: str | os.PathLike[str],
        poetry_lockfile: str | os.PathLike[str] | None = None,
        *,
        ignore_lockfile: bool = False,
        force_build: bool = False,
        with_: Sequence[str] = (),
        without: Sequence[str] = (),
        only: Sequence[str] = (),
        poetry_version: str | None = "latest",
        old_installer: bool = False,  # noqa: ARG002 - Modal's
        env: Variables | None = None,
        secrets: "Sequence[Secret] | None" = None,
        gpu: Gpu | None = None,
    ) -> Self:
        """Return the image with what a Poetry project has locked; the project itself is not installed.

        Args:
            poetry_pyproject_toml: its `pyproject.toml`, read when the app starts.
            poetry_lockfile: by default `poetry.lock` beside it.
            ignore_lockfile: resolve anew.
            with_, without, only: dependency groups to add, to leave out, or to install alone.
            poetry_version: of the Poetry that reads the lock.
            old_installer: accepted; packages are installed by `uv`.
        """
        operation = "poetry_install_from_file"
        _check_version(operation, poetry_version)
        project = Path(poetry_pyproject_toml)
        lock = Path(poetry_lockfile) if poetry_lockfile else project.with_name("poetry.lock")
        told = {
            "pyproject": LocalText(str(project), f"Image.{operation}"),
            "lock": None if ignore_lockfile else LocalText(str(lock), f"Image.{operation}"),
            "with": checks.names(operation, "with_", with_),
            "without": checks.names(operation, "without", without),
            "only": checks.names(operation, "only", only),
            "poetry_version": poetry_version or "latest",
            **checks.build_options(operation, env=env, secrets=secrets, gpu=gpu),
        }
        return self._install(operation, told, force_build)

    def _install(self, operation: str, arguments: dict[str, Any], force_build: bool) -> Self:
        if arguments.get("packages") == [] and not arguments.get("requirements"):
            return self
        return self._add(operation, {**arguments, **checks.forced(force_build)})


def _check_version(operation: str, version: Any) -> None:
    if version is not None and not isinstance(version, str):
        raise InvalidError(f"Image.{operation}: a version has to be a string, not {version!r}")
