"""What has to be run, layer by layer, to make a root file system with `buildah`. Pure: text in, text out.

Each step is a shell script for the jail, whose own files are on a tmpfs at `/mnt/own`. Secrets come over
standard input, are never on a disk or in an argument, and what was lent to a build is taken out of the
layer before it is kept. Texts of users stand in scripts only quoted, or as Base64.
"""

import shlex
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tidemill_worker import recipes

REPOSITORY = "localhost/tidemill"
INSIDE = "/run/tidemill"  # where a build finds what is lent to it
OWN = "/mnt/own"  # the jail's tmpfs
LENT = "/mnt/lent"  # what the worker lends, by name
MOUNTS = "/mnt/store/mounts"  # what cache mounts of Dockerfiles keep, by workspace
SHELL = ("/bin/sh", "-c")
_CONFIG = frozenset(("env", "workdir", "shell", "entrypoint", "cmd"))


@dataclass(frozen=True, slots=True)
class Written:
    """What layers say about an image without changing a file."""

    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = ""
    shell: tuple[str, ...] = SHELL
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()

    def after(self, operation: str, arguments: Mapping[str, Any]) -> "Written":
        """Return this with one more layer of the kind."""
        if operation == "env":
            return replace(self, env={**self.env, **arguments["vars"]})
        if operation == "workdir":
            return replace(self, workdir=arguments["path"])
        words = tuple(arguments["words"])
        if operation == "shell":
            return replace(self, shell=words)
        return replace(self, entrypoint=words) if operation == "entrypoint" else replace(self, cmd=words)


@dataclass(frozen=True, slots=True)
class Step:
    """One layer that changes files: what it follows, and what was written by then."""

    number: int
    operation: str
    arguments: Mapping[str, Any]
    key: str
    before: str  # the key of the layer that it builds on, or nothing for a base
    written: Written

    @property
    def shown(self) -> str:
        """What the layer is called where it failed."""
        return f"layer {self.number}, Image.{self.operation}()"


def steps(
    layers: Sequence[tuple[str, Mapping[str, Any]]], salt: Sequence[str], workspace: str
) -> tuple[list[Step], Written]:
    """Return the steps of a recipe, and what is written about the image at its end.

    A step's key stands for everything up to it; `salt` is what else makes it another one. From the first
    layer on that secrets or what earlier builds left take part in, layers belong to the workspace alone.
    """
    found: list[Step] = []
    written = Written()
    key = recipes.digest(list(salt))
    before = ""
    for number, (operation, arguments) in enumerate(layers, start=1):
        key = recipes.digest([key, operation, dict(arguments)])
        if _is_own(operation, arguments):
            key = recipes.digest([key, workspace])
        if operation in _CONFIG:
            written = written.after(operation, arguments)
        else:
            found.append(Step(number, operation, arguments, key, before, written))
            before = key
    return found, written


def _is_own(operation: str, arguments: Mapping[str, Any]) -> bool:
    """Return whether a layer may hold what is nobody else's business, or what its workspace has prepared."""
    texts = (arguments.get("dockerfile", ""), *arguments.get("commands", ()), *arguments.get("setup", ()))
    return bool(
        arguments.get("secrets")
        or arguments.get("registry_secrets")
        or operation in recipes.PACKAGES  # built by what is kept of earlier builds
        or any("type=cache" in text for text in texts)
    )


def image(key: str) -> str:
    """Return the name under which a layer is kept in the store."""
    return f"{REPOSITORY}:{key}"


# --- pieces of scripts


def write(path: str, text: str) -> str:
    """Return the line that writes a file, whatever is in it."""
    return f"mkdir -p $(dirname {path}) && echo {b64encode(text.encode()).decode()} | base64 -d > {path}"


def begin(name: str) -> str:
    """Return the lines that make a working container, which goes whatever happens."""
    options = "" if name == "scratch" else "--pull-never "
    return (
        f"c=$(buildah from {options}{shlex.quote(name)})\ntrap 'buildah rm $c > /dev/null 2>&1 || true' EXIT"
    )


def keep(key: str) -> str:
    """Return the lines that take what was lent out of the layer, and keep it under its name."""
    return (
        f"m=$(buildah mount $c)\nrm -rf $m{INSIDE}\nbuildah umount $c > /dev/null\n"
        f"buildah commit -q $c {image(key)} > /dev/null"
    )


def _configure(written: Written) -> str:
    options = [f"--env {shlex.quote(f'{name}={value}')}" for name, value in written.env.items()]
    if written.workdir:
        options.append(f"--workingdir {shlex.quote(written.workdir)}")
    return f"buildah config {' '.join(options)} $c" if options else ":"


# --- whole scripts


# buildah may lose what a command says right before it ends, so commands speak into a pipe of ours. What a
# command has left running in the background keeps the pipe open: it is not waited for long.
LISTEN = f"""
mkfifo -m 666 {OWN}/said
heard() {{
    exec 3<> {OWN}/said
    cat {OWN}/said >&2 3>&- & reader=$!
    status=0; "$@" 1>&2 3>&- || status=$?
    exec 3>&-
    (sleep 2; kill $reader) > /dev/null 2>&1 & wait $reader || true
    return $status
}}
""".strip()


def run(
    step: Step,
    commands: Sequence[str],
    *,
    variables: Mapping[str, str],
    files: Mapping[str, str] | None = None,
    lent: Mapping[str, str] | None = None,
    as_root: bool = False,
) -> str:
    """Return the script that runs commands in a step's image, one by one, and keeps what they leave.

    Commands find `variables` in their environment, `files` (by name) in `/run/tidemill/order` and what
    is `lent` (name -> `ro` or `rw`) at `/run/tidemill/<name>`.
    """
    shell = SHELL if as_root else step.written.shell
    order = {"env": "".join(f"export {name}={shlex.quote(text)}\n" for name, text in variables.items())}
    for number, command in enumerate(commands):
        order[str(number)] = (
            f"exec > {INSIDE}/said 2>&1\n. {INSIDE}/order/env\nexec {shlex.join([*shell, command])}\n"
        )
    mounts = [f"-v {OWN}/order:{INSIDE}/order:ro", f"-v {OWN}/said:{INSIDE}/said:rw"]
    mounts += [f"-v {LENT}/{name}:{INSIDE}/{name}:{how}" for name, how in (lent or {}).items()]
    options = " ".join([*mounts, *(["--user 0"] if as_root else [])])
    return "\n".join(
        [
            *(write(f"{OWN}/order/{name}", text) for name, text in {**order, **(files or {})}.items()),
            begin(image(step.before)),
            _configure(step.written),
            LISTEN,
            *(
                f"heard buildah run {options} $c -- /bin/sh {INSIDE}/order/{number}"
                for number in range(len(commands))
            ),
            keep(step.key),
        ]
    )


def unpack(step: Step, archives: Mapping[str, str]) -> str:
    """Return the script that adds archives (name among what is lent -> folder in the image)."""
    added = [
        f"buildah add -q $c {LENT}/{name} {shlex.quote(folder)} > /dev/null"
        for name, folder in archives.items()
    ]
    return "\n".join([begin(image(step.before)), *added, keep(step.key)])


def tree(key: str) -> str:
    """Return the script that makes a base of the archive that is lent as `tree`."""
    link = "m=$(buildah mount $c)\nln -s /usr/bin/python3 $m/usr/local/bin/python"
    return "\n".join([begin("scratch"), f"buildah add -q $c {LENT}/tree / > /dev/null", link, keep(key)])


def scratch(key: str) -> str:
    """Return the script that makes an empty base."""
    return "\n".join([begin("scratch"), f"buildah commit -q $c {image(key)} > /dev/null"])


def python(bare: str, key: str, version: str) -> str:
    """Return the script that puts the Python which is lent as `python` into an image, at `/usr/local`."""
    into, name = "$m/usr/local", f"python{version}"
    left_out = " ".join(f"--exclude={name}/{what}" for what in ("test", "site-packages/*", "config-*"))
    return "\n".join(
        [
            begin(image(bare)),
            "m=$(buildah mount $c)",
            f"mkdir -p {into}/bin {into}/lib $m/etc",
            f"tar -C {LENT}/python/lib {left_out} -cf - {name} | tar -C {into}/lib --no-same-owner -xf -",
            f"mkdir -p {into}/lib/{name}/site-packages",
            f"cp -a --no-preserve=ownership {LENT}/python/bin/{name} {into}/bin/",
            f"for alias in python3 python; do ln -sf {name} {into}/bin/$alias; done",
            f"cp -n {LENT}/libraries/* {into}/lib/ 2> /dev/null || true",
            # Whatever the image is, its loader finds libraries there.
            "conf=$m/etc/ld.so.conf; place=/usr/local/lib",
            "grep -qsx $place $conf $conf.d/* || echo $place >> $conf",
            "/sbin/ldconfig -r $m 2> /dev/null || true",
            f"buildah run $c -- /usr/local/bin/{name} -c 'import ssl, ctypes, zlib, hashlib' 1>&2",
            keep(key),
        ]
    )


def pull(key: str, reference: str, *, auth: str) -> str:
    """Return the script that brings an image of a registry here; `auth` are credentials, or nothing."""
    options = [f"--authfile {OWN}/auth.json"] if auth else []
    if is_near(reference):
        options.append("--tls-verify=false")
    name = shlex.quote(f"docker://{full_name(reference)}")
    return "\n".join(
        [
            *([write(f"{OWN}/auth.json", auth)] if auth else []),
            f"i=$(buildah pull -q --policy always {' '.join(options)} {name})",
            f"buildah tag $i {image(key)}",
            f"buildah rmi {shlex.quote(full_name(reference))} > /dev/null",
        ]
    )


def full_name(reference: str) -> str:
    """Return the name of an image with its registry; those without one are Docker Hub's."""
    first, slash, _ = reference.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return reference
    return f"docker.io/{reference}" if slash else f"docker.io/library/{reference}"


def registry(reference: str) -> str:
    """Return the registry that an image is in."""
    return full_name(reference).partition("/")[0]


def is_near(reference: str) -> bool:
    """Return whether a registry is on this machine, where nobody expects a certificate."""
    host = registry(reference).partition(":")[0]
    return host == "localhost" or host.startswith("127.")


PROBED = "--- image"
_PROBE = "import sys; print(sys.executable, '%d.%d' % sys.version_info[:2])"


def probe(key: str) -> str:
    """Return the script that tells an image's Python (path and version, if any) and its configuration."""
    tries = " || ".join(
        f"buildah run --user 0 $c -- {name} -c {shlex.quote(_PROBE)} 2> /dev/null"
        for name in ("python3", "python")
    )
    return "\n".join(
        [
            begin(image(key)),
            f"{tries} || true",
            f"echo {shlex.quote(PROBED)}",
            f"buildah inspect --type image {image(key)}",
        ]
    )


def forget(keys: Sequence[str]) -> str:
    """Return the script that removes layers from the store; what others build on stays."""
    return "\n".join(f"buildah rmi {image(key)} > /dev/null 2>&1 || true" for key in keys)


# What builds that were interrupted left, and bases of Dockerfiles.
CLEAN = f"""
buildah rm --all > /dev/null
buildah images --format '{{{{.Name}}}}:{{{{.Tag}}}}' | grep -v '^{REPOSITORY}:' > {OWN}/others || true
xargs -r buildah rmi < {OWN}/others > /dev/null 2>&1 || true
buildah rmi --prune > /dev/null 2>&1 || true
find /mnt/store/tmp -mindepth 1 -delete
find {MOUNTS} -mindepth 2 -maxdepth 2 ! -name 'buildah-cache*' -exec rm -rf {{}} +
"""


# --- commands


def apt(packages: Sequence[str]) -> str:
    """Return the command that installs Debian packages and leaves no lists behind."""
    return (
        "set -e\nexport DEBIAN_FRONTEND=noninteractive\n"
        "apt-get -o Acquire::Retries=3 -o Acquire::Languages=none -q update\n"
        f"apt-get -o Dpkg::Use-Pty=0 install -q -y --no-install-recommends {shlex.join(packages)}\n"
        "rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb"
    )


MICROMAMBA = "mambaorg/micromamba:2.3.0-debian12-slim"  # Docker Hub's; its prefix is /opt/conda
_CHANNELS = ("conda-forge",)


def micromamba_setup(python: str) -> list[str]:
    """Return the lines of a Dockerfile that make micromamba's image a base with a Python."""
    return [
        "USER root",
        "ENV MAMBA_ROOT_PREFIX=/opt/conda PATH=/opt/conda/bin:$PATH",
        f"RUN {_micromamba(_CHANNELS, [f'python={python}', 'pip'])}",
    ]


def conda(arguments: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Return the command that installs conda packages, and the files (by name) that it finds."""
    packages = list(arguments["packages"])
    files: dict[str, str] = {}
    if spec := arguments.get("spec"):
        files[f"spec{arguments['suffix']}"] = spec
        packages = ["-f", f"{INSIDE}/order/spec{arguments['suffix']}", *packages]
    told = _micromamba(arguments["channels"], packages)
    absent = "echo 'micromamba is not in this image: begin it with Image.micromamba()' >&2"
    return f"command -v micromamba > /dev/null || {{ {absent}; exit 127; }}\n{told}", files


def _micromamba(channels: Sequence[str], words: Sequence[str]) -> str:
    from_channels = [word for channel in channels for word in ("-c", channel)]
    return (
        f"micromamba install -n base -y {shlex.join([*from_channels, *words])} && micromamba clean -a -y -q"
    )


def install(arguments: Mapping[str, Any]) -> str:
    """Return the command that installs `/run/tidemill/order/requirements` into an image's own Python."""
    options = shlex.join(recipes.options(arguments))
    return (
        f"{INSIDE}/uv pip install --python $(command -v python3 || command -v python) --system "
        f"--break-system-packages --compile-bytecode --no-progress {options} -r {INSIDE}/order/requirements"
    )


def call() -> str:
    """Return the command that calls the function which is lent to a build."""
    entry = f"{INSIDE}/runtime/tidemill/_container/build_function.py"
    return f"exec $(command -v python3 || command -v python) -s -P {entry} {INSIDE}"
