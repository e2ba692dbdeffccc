"""Layers that change the file system: system packages, commands, Dockerfile lines, functions, files."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self

from tidemill import _image_checks as checks
from tidemill import _resources
from tidemill._image_packages import Gpu, Variables
from tidemill._image_parts import (
    Ignore,
    LocalContext,
    LocalFiles,
    LocalFunction,
    LocalModule,
    LocalText,
)
from tidemill._image_recipe import Recipe
from tidemill.exception import InvalidError
from tidemill.file_pattern_matcher import NON_PYTHON_FILES, predicate

if TYPE_CHECKING:
    from tidemill.secret import Secret

RUN_FUNCTION_TIMEOUT = 3600  # seconds


class _AutoDockerignore:
    """Stands for what `.dockerignore` says."""

    def __repr__(self) -> str:
        return "AUTO_DOCKERIGNORE"


AUTO_DOCKERIGNORE = _AutoDockerignore()


class System(Recipe):
    """What needs a file system of the image's own, and what puts files into one."""

    def apt_install(
        self,
        *packages: str | Sequence[str],
        force_build: bool = False,
        env: Variables | None = None,
        secrets: "Sequence[Secret] | None" = None,
        gpu: Gpu | None = None,
    ) -> Self:
        """Return the image with Debian packages installed, such as `"git"` or `"ffmpeg"`."""
        wanted = checks.flat("apt_install", packages)
        if not wanted:
            return self
        options = checks.build_options("apt_install", env=env, secrets=secrets, gpu=gpu)
        return self._add("apt_install", {"packages": wanted, **options, **checks.forced(force_build)})

    def micromamba_install(
        self,
        *packages: str | Sequence[str],
        spec_file: str | os.PathLike[str] | None = None,
        channels: Sequence[str] = (),
        force_build: bool = False,
        env: Variables | None = None,
        secrets: "Sequence[Secret] | None" = None,
        gpu: Gpu | None = None,
    ) -> Self:
        """Return the image with conda packages installed. It has to begin with `Image.micromamba()`.

        Args:
            packages: such as `"numpy=2"`, or lists of them.
            spec_file: a file that names further ones (`.yaml`, `.yml` or `.txt`), read when the app starts.
            channels: where they come from, such as `"conda-forge"`, in this order.

        Raises:
            InvalidError: a package is not a string, or the file is of another kind.
        """
        operation = "micromamba_install"
        wanted = checks.flat(operation, packages)
        if not wanted and spec_file is None:
            return self
        options = checks.build_options(operation, env=env, secrets=secrets, gpu=gpu)
        told: dict[str, Any] = {"packages": wanted, "channels": checks.names(operation, "channels", channels)}
        if spec_file is not None:
            told |= _conda_spec(Path(spec_file))
        return self._add(operation, {**told, **options, **checks.forced(force_build)})

    def run_commands(
        self,
        *commands: str | Sequence[str],
        env: Variables | None = None,
        secrets: "Sequence[Secret] | None" = None,
        volumes: Mapping[str, Any] | None = None,
        gpu: Gpu | None = None,
        force_build: bool = False,
    ) -> Self:
        """Return the image after shell commands, each run on its own, in this order.

        Args:
            commands: lines for the shell, or lists of them.
            env: variables for these commands alone.
            secrets: the same; their values are in no layer and in no key.
            force_build: run them again, whatever is cached.

        Raises:
            UnimplementedError: `volumes` or `gpu` is given: builds have none in this version.
        """
        checks.refuse("run_commands", volumes=volumes, gpu=gpu)
        lines = checks.commands("run_commands", commands)
        if not lines:
            return self
        options = checks.build_options("run_commands", env=env, secrets=secrets)
        return self._add("run_commands", {"commands": lines, **options, **checks.forced(force_build)})

    def dockerfile_commands(
        self,
        *dockerfile_commands: str | Sequence[str],
        context_files: Mapping[str, str] | None = None,
        env: Variables | None = None,
        secrets: "Sequence[Secret] | None" = None,
        gpu: Gpu | None = None,
        context_dir: str | os.PathLike[str] | None = None,
        force_build: bool = False,
        ignore: "Ignore | _AutoDockerignore" = AUTO_DOCKERIGNORE,
        build_args: Mapping[str, str] | None = None,
    ) -> Self:
        """Return the image after lines of a Dockerfile.

        Args:
            dockerfile_commands: lines, or lists of them, without `FROM`.
            context_files: files that `COPY` finds, by the path that it names: `{"/in_it": "here.txt"}`.
            env: variables that the lines can use, as build arguments.
            secrets: variables for `RUN --mount=type=secret,id=<NAME>`.
            context_dir: the folder that `COPY` takes from.
            ignore: what of it is left out; by default what its `.dockerignore` says.
            build_args: values of `ARG`.

        Raises:
            UnimplementedError: `gpu` is given: builds have none in this version.
        """
        checks.refuse("dockerfile_commands", gpu=gpu)
        lines = checks.commands("dockerfile_commands", dockerfile_commands)
        if not lines:
            return self
        context = _context(context_dir, None, ignore)
        files = [
            LocalFiles(str(local), checks.absolute("dockerfile_commands", PurePosixPath("/") / remote), False)
            for remote, local in (context_files or {}).items()
        ]
        told = {
            "commands": lines,
            **_build_arguments({**(env or {}), **(build_args or {})}),
            **({"context": context} if context else {}),
            **({"files": files} if files else {}),
            **checks.build_options("dockerfile_commands", secrets=secrets),
        }
        return self._add("dockerfile_commands", {**told, **checks.forced(force_build)})

    def run_function(
        self,
        raw_f: Callable[..., Any],
        *,
        env: Variables | None = None,
        secrets: "Sequence[Secret] | None" = None,
        volumes: Mapping[str, Any] | None = None,
        network_file_systems: Mapping[str, Any] | None = None,
        gpu: Gpu | None = None,
        cpu: float | None = None,
        memory: int | None = None,
        timeout: int = RUN_FUNCTION_TIMEOUT,
        cloud: str | None = None,
        region: str | Sequence[str] | None = None,
        force_build: bool = False,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        include_source: bool = True,
    ) -> Self:
        """Return the image after a Python function has run in it. The files that it leaves are the layer.

        It runs again when its text, its arguments or the plain values that it uses have changed.

        Args:
            raw_f: a function without decorators.
            timeout: seconds that it may take. Default 3600.
            cpu, memory: cores and MiB that it needs; a worker that has fewer refuses the build.
            cloud, region: accepted: an image is built where the functions run that use it.
            args, kwargs: what it is called with.
            include_source: whether the module that it is in goes along.

        Raises:
            InvalidError: it is not a plain function.
            UnimplementedError: an option is given that builds do not have in this version.
        """
        checks.refuse(
            "run_function",
            volumes=volumes, network_file_systems=network_file_systems, gpu=gpu,
        )  # fmt: skip
        _resources.labels({"cloud": cloud, "region": region})  # which only have to be such
        if not callable(raw_f) or not hasattr(raw_f, "__code__"):
            raise InvalidError(
                f"Image.run_function takes a plain function, not {raw_f!r}",
                hint="define it without @app.function()",
            )
        if not isinstance(timeout, int) or not 1 <= timeout <= 86_400:
            raise InvalidError(f"Image.run_function: timeout has to be 1 to 86400 seconds, not {timeout!r}")
        told = {
            "function": LocalFunction(raw_f, tuple(args), dict(kwargs or {}), bool(include_source)),
            "timeout": timeout,
            **checks.resources("run_function", cpu, memory),
            **checks.build_options("run_function", env=env, secrets=secrets),
        }
        return self._add("run_function", {**told, **checks.forced(force_build)})

    # --- files of this machine

    def add_local_file(
        self,
        local_path: str | os.PathLike[str],
        remote_path: str,
        *,
        copy: bool = False,
    ) -> Self:
        """Return the image with a file of this machine.

        Args:
            local_path: it is read when the app starts.
            remote_path: where it lies in containers; with a `/` at its end, the folder it lies in.
            copy: make it part of the image, so that other layers may follow. Otherwise it is attached
                when a container starts, costs no build, and has to come last.
        """
        remote = str(remote_path)
        if remote.endswith("/"):
            remote += Path(local_path).name
        path = checks.absolute("add_local_file", remote)
        return self._add_files("add_local_file", LocalFiles(str(local_path), path, False), copy)

    def add_local_dir(
        self,
        local_path: str | os.PathLike[str],
        remote_path: str,
        *,
        copy: bool = False,
        ignore: Ignore = (),
    ) -> Self:
        """Return the image with the files below a folder of this machine.

        Args:
            local_path: it is read when the app starts.
            remote_path: where they lie in containers.
            copy: as in `add_local_file`.
            ignore: files to leave out: patterns as in `.dockerignore`, a `FilePatternMatcher`, or a
                function of the path below the folder that returns True.
        """
        predicate("add_local_dir", ignore)
        path = checks.absolute("add_local_dir", remote_path)
        kept = ignore if callable(ignore) else tuple(ignore)
        return self._add_files("add_local_dir", LocalFiles(str(local_path), path, True, kept), copy)

    def add_local_python_source(
        self, *modules: str, copy: bool = False, ignore: Ignore = NON_PYTHON_FILES
    ) -> Self:
        """Return the image with local modules that its functions can import.

        Args:
            modules: names of modules or packages that can be imported here, such as `"my_package"`.
            copy: as in `add_local_file`.
            ignore: files to leave out, as in `add_local_dir`. Only `.py` files are taken in any case.

        Raises:
            InvalidError: a name is not that of a module.
        """
        for module in modules:
            if not isinstance(module, str) or not all(part.isidentifier() for part in module.split(".")):
                raise InvalidError(f"Image.add_local_python_source: not the name of a module: {module!r}")
        predicate("add_local_python_source", ignore)
        parts = [LocalModule(module, ignore) for module in modules]
        if not copy:
            return self._attach(*parts)
        image = self
        for part in parts:
            image = image._add("add_local_python_source", {"module": part})
        return image

    def _add_files(self, operation: str, files: LocalFiles, copy: bool) -> Self:
        return self._add(operation, {"files": files}) if copy else self._attach(files)

    # --- what is written about it

    def env(self, vars: Variables) -> Self:  # noqa: A002 - Modal's name
        """Return the image with environment variables set.

        Raises:
            InvalidError: a name or a value is not a string.
        """
        return self._add("env", {"vars": checks.variables("Image.env", vars)})

    def workdir(self, path: str | PurePosixPath) -> Self:
        """Return the image with another working directory, an absolute path."""
        return self._add("workdir", {"path": checks.absolute("workdir", path)})

    def shell(self, shell_commands: list[str]) -> Self:
        """Return the image with another shell for `run_commands`, such as `["/bin/bash", "-c"]`."""
        return self._add("shell", {"words": checks.words("shell", shell_commands)})

    def entrypoint(self, entrypoint_commands: list[str]) -> Self:
        """Return the image with another `ENTRYPOINT`. Functions do not run it."""
        return self._add("entrypoint", {"words": checks.words("entrypoint", entrypoint_commands)})

    def cmd(self, cmd: list[str]) -> Self:
        """Return the image with another `CMD`. Functions do not run it."""
        return self._add("cmd", {"words": checks.words("cmd", cmd)})


def _conda_spec(file: Path) -> dict[str, Any]:
    if file.suffix not in (".yaml", ".yml", ".txt"):
        raise InvalidError(
            f"Image.micromamba_install: {file} is no specification",
            hint="micromamba reads .yaml, .yml and .txt",
        )
    return {"spec": LocalText(str(file), "Image.micromamba_install"), "suffix": file.suffix}


def _build_arguments(given: Mapping[str, str | None]) -> dict[str, Any]:
    found = checks.variables("build_args", given)
    return {"build_args": found} if found else {}


def _context(
    folder: str | os.PathLike[str] | None, dockerfile: str | None, ignore: "Ignore | _AutoDockerignore"
) -> LocalContext | None:
    kept = None if isinstance(ignore, _AutoDockerignore) else ignore
    if kept is not None:
        predicate("dockerfile_commands", kept)
        kept = kept if callable(kept) else tuple(kept)
    return None if folder is None else LocalContext(str(folder), dockerfile, kept)


def dockerfile(
    path: str | os.PathLike[str],
    context_dir: str | os.PathLike[str] | None,
    ignore: "Ignore | _AutoDockerignore",
    build_args: Mapping[str, str | None],
) -> dict[str, Any]:
    """Return a Dockerfile and its context as arguments of a base."""
    folder = context_dir if context_dir is not None else Path(path).parent
    return {
        "dockerfile": LocalText(str(path), "Image.from_dockerfile"),
        "context": _context(folder, str(path), ignore),
        **_build_arguments(build_args),
    }
