"""From a step of a recipe to scripts that carry it out: what has to be fetched and lent for it."""

import asyncio
import io
import json
import os
import re
import subprocess
import tarfile
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tidemill import exception
from tidemill._wire.specs import ImageSpec
from tidemill_worker import archives, aws, build_steps, debian, dockerfiles, recipes
from tidemill_worker.build_steps import INSIDE, Step
from tidemill_worker.building import Order, revealed
from tidemill_worker.interpreters import Interpreter, Interpreters
from tidemill_worker.locked_projects import WHEELS_ALONE, requirements
from tidemill_worker.uv import Say, Uv, program

_REGISTRIES = frozenset(("from_registry", "from_gcp_artifact_registry", "from_aws_ecr"))
_INDEXES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL")
_CERTIFICATES = (
    "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
)  # fmt: skip
_GLIBC = re.compile(r"(?:ld-linux|libc|libm|libdl|libpthread|librt|libutil|linux-vdso)[.-]")


@dataclass(slots=True)
class Loan:
    """What is lent to a build, by name, and a folder of its own for it."""

    folder: Path
    places: dict[str, Path] = field(default_factory=dict)

    def write(self, name: str, data: bytes) -> None:
        """Lend a file with this content."""
        path = self.folder / name
        path.write_bytes(data)
        self.places[name] = path

    def unpack(self, name: str, archive: bytes) -> None:
        """Lend a folder with the files of an archive."""
        path = self.folder / name
        archives.unpack(archive, path)
        self.places[name] = path


class LayerScripts:
    """Knows what each operation takes."""

    def __init__(
        self,
        folder: Path,
        cache: Callable[[str], Path],
        uv: Uv,
        interpreters: Interpreters,
        runtime_layer: Path,
        *,
        mirror: str,
    ) -> None:
        """`folder` keeps bases, `cache` names a workspace's folder of packages that builds fetched."""
        self._folder = folder
        self._cache = cache
        self._uv = uv
        self._interpreters = interpreters
        self._runtime_layer = runtime_layer
        self._mirror = mirror

    async def of(self, spec: ImageSpec, step: Step, order: Order, loan: Loan, say: Say) -> Sequence[str]:
        """Return the scripts of one step, first to last; only the last one keeps it under its key."""
        if not step.before:
            return await self._base(spec, step, order, loan, say)
        operation, arguments = step.operation, step.arguments
        if operation in recipes.FILES or operation == "add_local_python_source":
            return [await self._files(step, order, loan)]
        if operation == "dockerfile_commands":
            return [await self._lines(spec, step, order, loan)]
        variables = await self._variables(spec, step, order, loan)
        if operation == "run_commands":
            lent = self._lent(loan)
            return [build_steps.run(step, arguments["commands"], variables=variables, lent=lent)]
        if operation == "apt_install":
            command = build_steps.apt(arguments["packages"])
            return [
                build_steps.run(step, [command], variables=variables, lent=self._lent(loan), as_root=True)
            ]
        if operation == "micromamba_install":
            return [self._conda(step, variables, loan)]
        if operation == "run_function":
            return [await self._function(spec, step, order, loan, variables)]
        return [await self._packages(step, order, loan, variables, say)]

    # --- bases

    async def _base(self, spec: ImageSpec, step: Step, order: Order, loan: Loan, say: Say) -> Sequence[str]:
        wanted = step.arguments.get("add_python", "")
        if step.operation == "debian_slim":
            loan.places["tree"] = await debian.tree(self._folder, self._mirror, self._uv.children, say)
            version = ".".join((step.arguments.get("python_version") or "").split(".")[:2])
            wanted = "" if version in ("", debian.PYTHON) else version
        bare = f"{step.key}-bare" if wanted else step.key
        scripts = await self._bare(spec, step, bare, order, loan)
        if wanted:
            version = await self._lend_python(wanted, loan)
            scripts = [*scripts, build_steps.python(bare, step.key, version)]
        return scripts

    async def _bare(self, spec: ImageSpec, step: Step, key: str, order: Order, loan: Loan) -> Sequence[str]:
        if step.operation == "debian_slim":
            return [build_steps.tree(key)]
        if step.operation == "from_scratch":
            return [build_steps.scratch(key)]
        if step.operation in _REGISTRIES:
            return await self._pulled(spec, step, key, order, loan)
        if step.operation == "micromamba":
            version = step.arguments["python_version"]
            base = {"tag": build_steps.MICROMAMBA, "setup": build_steps.micromamba_setup(version)}
            return await self._pulled(spec, replace(step, arguments=base), key, order, loan)
        loan.unpack("context", await order.fetch(step.arguments["context"]))
        secrets = _mountable(await revealed(spec, step.arguments.get("secrets", ()), order))
        login = await revealed(spec, step.arguments.get("registry_secrets", ()), order)
        text = step.arguments["dockerfile"]
        auth = await _credentials((dockerfiles.bases(text) or [""])[0], login) if login else ""
        script = dockerfiles.build(
            step, key, text, workspace=order.workspace, secrets=secrets, auth=bool(auth)
        )
        return [f"{build_steps.write(f'{build_steps.OWN}/auth.json', auth)}\n{script}" if auth else script]

    async def _pulled(self, spec: ImageSpec, step: Step, key: str, order: Order, loan: Loan) -> Sequence[str]:
        tag, setup = step.arguments["tag"], step.arguments.get("setup", ())
        login = await revealed(spec, step.arguments.get("secrets", ()), order)
        pulled = f"{key}-pulled" if setup else key
        auth = await _credentials(tag, login) if login else ""
        scripts = [build_steps.pull(pulled, tag, auth=auth)]
        if setup:
            (loan.folder / "context").mkdir()
            loan.places["context"] = loan.folder / "context"
            base = build_steps.image(pulled)
            scripts.append(
                dockerfiles.on_top_of(base, step, key, setup, workspace=order.workspace, secrets={})
            )
        return scripts

    async def _lend_python(self, version: str, loan: Loan) -> str:
        """Lend this worker's own Python of a version, with the libraries that it needs; return which."""
        found = await self._interpreters.find(version)
        await asyncio.to_thread(_lend_python, found, loan)
        return found.version

    # --- layers

    async def _files(self, step: Step, order: Order, loan: Loan) -> str:
        if step.operation == "add_local_python_source":
            loan.write("0.tar", await order.fetch(step.arguments["module"]))
            return build_steps.unpack(step, {"0.tar": "/root"})
        files = step.arguments["files"]
        loan.write("0.tar", await order.fetch(files["bundle"]))
        return build_steps.unpack(step, {"0.tar": files["remote"]})

    async def _lines(self, spec: ImageSpec, step: Step, order: Order, loan: Loan) -> str:
        arguments = step.arguments
        empty = io.BytesIO()
        tarfile.open(fileobj=empty, mode="w").close()
        context = await order.fetch(arguments["context"]) if "context" in arguments else empty.getvalue()
        loan.unpack("context", context)
        for file in arguments.get("files", ()):
            place = loan.folder / "context" / recipes.place(file["remote"]).lstrip("/")
            archives.unpack_into(await order.fetch(file["bundle"]), place)
        secrets = _mountable(await revealed(spec, arguments.get("secrets", ()), order))
        return dockerfiles.lines(
            step, step.key, arguments["commands"], workspace=order.workspace, secrets=secrets
        )

    async def _packages(
        self, step: Step, order: Order, loan: Loan, variables: Mapping[str, str], say: Say
    ) -> str:
        install = recipes.install(step.operation, step.arguments, step.number)
        wanted = "\n".join(install.packages) + "\n"
        if install.project:
            recipes.refuse_daring(install, ())
            python, place = (await self._interpreters.find("")).path, loan.folder / "project"
            place.mkdir()
            wanted = await requirements(self._uv, install, place, python, WHEELS_ALONE, say)
        loan.places |= {"uv": Path(program()), "cache": self._cache(order.workspace)}
        lent = {**self._lent(loan), "uv": "ro", "cache": "rw"}
        settings = {"UV_CACHE_DIR": f"{INSIDE}/cache", "UV_LINK_MODE": "copy", **variables}
        return build_steps.run(
            step,
            [build_steps.install(step.arguments)],
            variables={**settings, **recipes.git_credentials(variables)},
            files={"requirements": wanted},
            lent=lent,
            as_root=True,
        )

    def _conda(self, step: Step, variables: Mapping[str, str], loan: Loan) -> str:
        command, files = build_steps.conda(step.arguments)
        return build_steps.run(
            step, [command], variables=variables, files=files, lent=self._lent(loan), as_root=True
        )

    async def _function(
        self, spec: ImageSpec, step: Step, order: Order, loan: Loan, variables: Mapping[str, str]
    ) -> str:
        _check_room(step)
        function = json.loads(await order.fetch(spec.functions[step.arguments["function"]["number"]]))
        loan.write("function.json", json.dumps(function).encode())
        lent = {**self._lent(loan), "runtime": "ro", "function.json": "ro"}
        loan.places["runtime"] = self._runtime_layer
        for number, digest in enumerate(function["bundles"]):
            loan.unpack(f"source{number}", await order.fetch(digest))
            lent[f"source{number}"] = "ro"
        if function["serialized"]:
            loan.write("serialized", await order.fetch(function["serialized"]))
            lent["serialized"] = "ro"
        remote = {f"{prefix}_IS_REMOTE": "1" for prefix in ("TIDEMILL", "MODAL")}
        return build_steps.run(
            replace(step, written=replace(step.written, shell=build_steps.SHELL)),
            [build_steps.call()],
            variables={**variables, **remote},
            lent=lent,
        )

    # --- what every build is lent

    async def _variables(self, spec: ImageSpec, step: Step, order: Order, loan: Loan) -> dict[str, str]:
        """Return what a layer's commands find in their environment, and lend what it names."""
        found = {name: os.environ[name] for name in _INDEXES if name in os.environ}
        if await asyncio.to_thread(_lend_certificates, loan):
            found |= dict.fromkeys(_CERTIFICATES, f"{INSIDE}/certificates.pem")
            found["APT_CONFIG"] = f"{INSIDE}/apt.conf"
        secrets = _mountable(await revealed(spec, step.arguments.get("secrets", ()), order))
        user = {"TIDEMILL_GIT_USER": step.arguments["git_user"]} if "git_user" in step.arguments else {}
        return {**found, "PYTHONPATH": "/root", **secrets, **user, **step.arguments.get("env", {})}

    def _lent(self, loan: Loan) -> dict[str, str]:
        return {name: "ro" for name in ("certificates.pem", "apt.conf") if name in loan.places}


def _check_room(step: Step) -> None:
    """Raise `ImageBuildError` if a build asks for more than the machine has."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    for what, there, unit in (("cpu", os.cpu_count() or 1, "cores"), ("memory", memory, "MiB")):
        if step.arguments.get(what, 0) > there:
            raise exception.ImageBuildError(
                f"{step.shown} needs {step.arguments[what]:,} {unit}, this worker's machine has {there:,}"
            )


_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _mountable(secrets: dict[str, str]) -> dict[str, str]:
    """Return secrets whose names can be those of variables and of files."""
    if odd := next((name for name in secrets if not _VARIABLE.fullmatch(name)), ""):
        raise exception.ImageBuildError(f"a build cannot have a variable of this name: {odd!r}")
    return secrets


async def _credentials(reference: str, login: Mapping[str, str]) -> str:
    """Return what the registry of an image is told, as the file that `buildah` reads."""
    registry = build_steps.registry(reference)
    if "REGISTRY_USERNAME" in login and "REGISTRY_PASSWORD" in login:
        pair = f"{login['REGISTRY_USERNAME']}:{login['REGISTRY_PASSWORD']}"
    elif "SERVICE_ACCOUNT_JSON" in login:
        pair = f"_json_key:{login['SERVICE_ACCOUNT_JSON']}"
    elif all(name in login for name in aws.KEYS):
        pair = await aws.login(registry, login)
    else:
        raise exception.ImageBuildError(
            "the registry's secret holds no REGISTRY_USERNAME and REGISTRY_PASSWORD",
            hint=f"or SERVICE_ACCOUNT_JSON for Google's, {' and '.join(aws.KEYS)} for Amazon's",
        )
    auth = b64encode(pair.encode()).decode()
    return json.dumps({"auths": {registry: {"auth": auth}}})


def _lend_certificates(loan: Loan) -> bool:
    """Lend the certificates that this worker was told to trust, if it was told."""
    certificates = Path(os.environ.get("SSL_CERT_FILE", ""))
    if not certificates.is_file():
        return False
    loan.write("certificates.pem", certificates.read_bytes())
    loan.write("apt.conf", f'Acquire::https::CAInfo "{INSIDE}/certificates.pem";\n'.encode())
    return True


def _lend_python(found: Interpreter, loan: Loan) -> None:
    prefix = Path(found.path).resolve().parent.parent
    libraries = loan.folder / "libraries"
    libraries.mkdir()
    for library in _libraries(prefix, found.version):
        (libraries / library.name).write_bytes(library.read_bytes())
    loan.places |= {"python": prefix, "libraries": libraries}


def _libraries(prefix: Path, version: str) -> list[Path]:
    """Return the shared libraries that a Python of this machine needs beside those of the C library."""
    objects = [
        prefix / "bin" / f"python{version}",
        *(prefix / "lib" / f"python{version}").glob("lib-dynload/*.so"),
    ]
    ran = subprocess.run(["ldd", *map(str, objects)], capture_output=True, text=True, timeout=60, check=False)
    found = {Path(path) for path in re.findall(r"=> (/\S+)", ran.stdout)}
    return sorted(path for path in found if not _GLIBC.match(path.name))
