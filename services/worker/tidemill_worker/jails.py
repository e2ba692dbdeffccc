"""Builds run as root of a user namespace of their own, as containers do: see `jail`, which it starts.

What a build makes belongs to the containers' ids, so that its files are theirs already.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from tidemill import exception
from tidemill_worker import jail
from tidemill_worker.children import Children
from tidemill_worker.uv import Ran, Say, run

COUNT = 65_536  # ids of a jail, as of a container
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_SCRIPT = "umask 077 && cat > /mnt/own/script && umask 022 && exec /bin/sh -e /mnt/own/script < /dev/null"


def missing() -> str:
    """Return why this worker cannot build images with a file system of their own, or nothing."""
    if os.geteuid() != 0:
        return "the worker is not root"
    if shutil.which("buildah") is None:
        return "buildah is not installed here: apt-get install buildah"
    return ""


class Jail:
    """Runs scripts in a jail, with one store of images.

    `first` is what id 0 in the jail is on this machine: that of containers, whose layers it makes.
    """

    def __init__(self, children: Children, store: Path, first: int) -> None:
        self._children = children
        self.store = store
        self.first = first

    def cache(self, workspace: str) -> Path:
        """Return the folder of what a workspace's builds keep of packages: they may write into it."""
        folder = self.store / "cache" / hashlib.sha256(workspace.encode()).hexdigest()[:24]
        folder.mkdir(exist_ok=True)
        os.chown(folder, self.first, self.first)
        return folder

    def prepare(self) -> None:
        """Make the store, which belongs to the containers' root."""
        self.store.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in ("", "home", "tmp", "run", "cache", "mounts"):
            (self.store / name).mkdir(exist_ok=True)
            os.chown(self.store / name, self.first, self.first)

    async def run(self, script: str, lent: Mapping[str, Path], say: Say, *, timeout: float) -> Ran:
        """Run a shell script in a new jail, with `lent` at `/mnt/lent/<name>`.

        `buildah` in it works on the store. The script is read from standard input: it may hold secrets.
        """
        binds = [f"{self.store}=store", *(f"{path}=lent/{name}" for name, path in lent.items())]
        command = (
            sys.executable, "-I", "-S", str(Path(jail.__file__)), str(self.first), str(COUNT), *binds,
            "--", "/bin/sh", "-c", _SCRIPT,
        )  # fmt: skip
        prelude = 'buildah() { command buildah --root /mnt/store/root --runroot /mnt/store/runroot "$@"; }\n'
        return await run(
            self._children, command, _environment(), say, feed=(prelude + script).encode(), timeout=timeout
        )


def check(what: str) -> None:
    """Raise `ImageBuildError` if this worker cannot build."""
    if reason := missing():
        raise exception.ImageBuildError(f"{what} cannot be built on this worker: {reason}")


def _environment() -> dict[str, str]:
    """Return what programs in a jail find: nothing that tells a secret."""
    passed = {name: os.environ[name] for name in _PROXIES if name in os.environ}
    certificates = {
        name: os.environ[name] for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ
    }
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/mnt/store/home",
        "TMPDIR": "/mnt/store/tmp",
        "XDG_RUNTIME_DIR": "/mnt/store/run",
        "LANG": "C.UTF-8",
        "BUILDAH_ISOLATION": "chroot",
        "STORAGE_DRIVER": "overlay",
        "_CONTAINERS_USERNS_CONFIGURED": "done",
        **passed,
        **certificates,
    }
