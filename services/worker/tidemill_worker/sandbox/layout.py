"""Where things are inside a sandbox: what a template's root is made of, as a value.

/usr                      the host's, read-only, with /bin, /lib... linked to it; or the image's layers
/etc                      ours: nothing of the host but what programs need to find their way
/opt/tidemill/env         the image's Python environment
/opt/tidemill/layer       the runtime layer
/opt/code                 the workspace's bundles of code
<prefix of the Python>    where it is on the host: environments name it by its path
/proc /dev /tmp           the container's own; there is no /sys
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tidemill_worker.driver import NOTHING, Equipment
from tidemill_worker.images import Image
from tidemill_worker.tier import HOME

ENVIRONMENT = "/opt/tidemill/env"
LAYER = "/opt/tidemill/layer"
CODE = "/opt/code"
BOOTSTRAP = f"{LAYER}/tidemill/_container/bootstrap.py"
WEB = "/opt/tidemill/web"
_SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_FOLDERS = (
    ("/proc", 0o755), ("/dev", 0o755), ("/.tidemill", 0o755), ("/tmp", 0o1777), ("/var/tmp", 0o1777),  # noqa: S108
    ("/root", 0o700), ("/home", 0o755), ("/mnt", 0o755), ("/srv", 0o755), ("/run", 0o755),
    ("/var/lib", 0o755), ("/var/cache", 0o755), ("/var/log", 0o755), ("/etc", 0o755), ("/usr", 0o755),
)  # fmt: skip
_LINKED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")  # of a machine where they stand in /usr
# Of the host's /etc, where the host's /usr is: what tells no secret.
_COPIED = (
    "ld.so.cache", "ld.so.conf", "localtime", "timezone", "protocols", "services", "mime.types",
    "debian_version", "os-release", "ca-certificates.conf",
)  # fmt: skip
_BOUND = ("ssl/certs", "pki/tls/certs", "pki/ca-trust/extracted", "alternatives", "ssl/openssl.cnf")
# Variables of the worker that name certificates.
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

_USERS = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
_GROUP = "root:x:0:\ndaemon:x:1:\ntty:x:5:\nwww-data:x:33:\nusers:x:100:\nnogroup:x:65534:\n"
_NSSWITCH = (
    "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n"
)
_HOSTS = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"


@dataclass(frozen=True, slots=True)
class Layout:
    """What stands where in a sandbox. Sources are this machine's paths, targets those inside.

    folders: paths with their modes. links: paths with what they point to. files: paths with their text.
    binds: (source, target), all read-only. layers: read-only folders below all that, the uppermost first.
    devices: device nodes of this machine, at the same paths inside.
    """

    folders: tuple[tuple[str, int], ...]
    links: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, str], ...]
    binds: tuple[tuple[str, str], ...]
    layers: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def of(
    image: Image,
    *,
    layer: Path,
    code: Path,
    resolvers: tuple[str, ...],
    web: Path | None = None,
    equipment: Equipment = NOTHING,
) -> Layout:
    """Return the layout for an image."""
    files = [
        ("/etc/hosts", _HOSTS),
        ("/etc/resolv.conf", "".join(f"nameserver {each}\n" for each in resolvers)),
    ]
    binds = [(str(layer), LAYER), (str(code), CODE)]
    if image.environment is not None:
        binds += [(str(image.environment), ENVIRONMENT), *_installations(image)]
    if web is not None:
        binds.append((str(web), WEB))
    links: list[tuple[str, str]] = []
    if not image.layers:
        files += [("/etc/passwd", _USERS), ("/etc/group", _GROUP), ("/etc/nsswitch.conf", _NSSWITCH)]
        links = _links()
        binds += [("/usr", "/usr"), *_of_etc()]
    shown = ("/usr/",) if not image.layers else ()
    binds += [(source, target) for source, target in equipment.files if not target.startswith(shown)]
    binds += _certificates(os.environ, binds)
    layers = tuple(map(str, image.layers))
    return Layout(_FOLDERS, tuple(links), tuple(files), tuple(binds), layers, equipment.nodes)


def python_of(image: Image) -> str:
    """Return the path of an image's Python as its containers see it."""
    return str(image.python) if image.environment is None else f"{ENVIRONMENT}/bin/{image.python.name}"


def variables(image: Image) -> dict[str, str]:
    """Return the variables that say where an image's programs find things."""
    found = {"HOME": HOME, "USER": "root", "LOGNAME": "root", "PATH": _SEARCH}
    if image.environment is not None:
        found |= {"PATH": f"{ENVIRONMENT}/bin:{_SEARCH}", "VIRTUAL_ENV": ENVIRONMENT}
    return found


def _installations(image: Image) -> list[tuple[str, str]]:
    """Return binds for the Python that the image's environment is made of, at each path that leads to it."""
    real = image.python.resolve().parent.parent
    named = image.python.readlink().parent.parent if image.python.is_symlink() else real
    paths = dict.fromkeys((real, named))
    return [
        (str(real), str(path)) for path in paths if path.is_absolute() and not path.is_relative_to("/usr")
    ]


def _links() -> list[tuple[str, str]]:
    """Return the links of the root into /usr, as this machine has them."""
    return [(f"/{name}", f"usr/{name}") for name in _LINKED if Path(f"/usr/{name}").is_dir()]


def _of_etc() -> list[tuple[str, str]]:
    paths = [f"/etc/{name}" for name in (*_COPIED, *_BOUND)]
    return [(str(Path(path).resolve()), path) for path in paths if Path(path).exists()]


def _certificates(environment: Mapping[str, str], there: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return binds for the certificates that the worker's variables name, where they are not there yet."""
    found: list[tuple[str, str]] = []
    for name in _CERTIFICATES:
        path = Path(environment.get(name, ""))
        covered = any(path.is_relative_to(target) for _, target in (*there, *found))
        if path.is_absolute() and path.exists() and not covered:
            found.append((str(path.resolve()), str(path)))
    return found
