"""An encrypted connection, with the server's certificate checked."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from waiting import until

from tidemill._bus.protocol import Disconnected
from tidemill_common.bus.nats import connect
from tidemill_common.bus.protocol import StreamSpec
from tidemill_local.broker import program

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")


@pytest.fixture
def certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 that nobody trusts yet; its key lies beside it."""
    request: list[str] = ["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=test"]
    request += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(folder / "key")]
    names += ["-out", str(folder / "cert")]
    subprocess.run(["openssl", *request, *names], check=True, capture_output=True)
    return folder / "cert"


@pytest.fixture
async def url(folder: Path, certificate: Path) -> AsyncIterator[str]:
    """The address of a server that talks TLS only."""
    configuration = {
        "host": "127.0.0.1",
        "port": -1,
        "ports_file_dir": str(folder),
        "jetstream": {"store_dir": str(folder / "store")},
        "tls": {"cert_file": str(certificate), "key_file": str(folder / "key")},
    }
    (folder / "nats.conf").write_text(json.dumps(configuration))
    process = subprocess.Popen([program(), "-c", folder / "nats.conf"], stderr=subprocess.DEVNULL)
    ports = folder / f"{program().stem}_{process.pid}.ports"
    await until(lambda: ports.exists() and ports.read_text().endswith("}"))
    yield json.loads(ports.read_text())["nats"][0].replace("nats://", "tls://")
    process.kill()
    process.wait()


async def test_a_trusted_server_is_used(url: str, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    bus = await connect(url, timeout=60)
    await bus.ensure_stream(StreamSpec("KEPT", ("kept.>",)))
    await asyncio.gather(*(bus.store(f"kept.{n}", bytes(10_000), msg_id=f"{n}") for n in range(100)))
    assert len([1 async for _ in bus.read("KEPT", "kept.>")]) == 100
    bus._connection.cut()
    assert (await bus.store("kept.again", b"", msg_id="again")).sequence == 101
    await bus.close()


async def test_a_server_that_is_not_trusted_is_refused(url: str) -> None:
    with pytest.raises(Disconnected, match=r"(?i)certificate"):
        await connect(url, timeout=60)
