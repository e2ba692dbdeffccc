"""docker-compose.yml: it is valid, says what it must, and its services, as it starts them, run an app."""

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import compose_file
import pytest
from compose_file import ROOT, Service
from compose_stage import ComposeStage, missing

from tidemill_common import identities
from tidemill_common.settings import ServiceSettings
from tidemill_gateway.settings import GatewaySettings
from tidemill_registry import cipher, jwt
from tidemill_registry.settings import RegistrySettings
from tidemill_scheduler.settings import Settings as SchedulerSettings
from tidemill_worker.settings import Settings as WorkerSettings

EXAMPLE = compose_file.read_env(ROOT / ".env.example")
ACCOUNTS = ROOT / "deploy" / "nats" / "accounts.conf"


def _filled_in() -> dict[str, str]:
    """Return what an operator writes into `.env`."""
    seed = jwt.new_seed()
    keys = {
        "NATS_ISSUER": jwt.Issuer(seed).public,
        "NATS_ISSUER_SEED": seed,
        "TIDEMILL_SECRETS_KEY": cipher.new_key(),
        "TIDEMILL_PUBLIC_URL": "https://mill.example",
    }
    return {name: value or keys.get(name) or secrets.token_hex(24) for name, value in EXAMPLE.items()}


VARIABLES = _filled_in()
RECORD = compose_file.read(VARIABLES)
SERVICES = compose_file.services(RECORD)
SETTINGS: dict[str, type[ServiceSettings]] = {
    "migrate": RegistrySettings,
    "registry": RegistrySettings,
    "scheduler": SchedulerSettings,
    "gateway": GatewaySettings,
    "worker": WorkerSettings,
    "gpu-worker": WorkerSettings,
}
STAYING = [service for name, service in SERVICES.items() if name != "migrate"]
NATS_NODES = ("nats-1", "nats-2", "nats-3")

PROGRAM = """
import tidemill

app = tidemill.App("composed")


@app.function(serialized=True)
def square(x):
    return x * x


if __name__ == "__main__":
    with app.run():
        print(square.remote(7), sum(square.map(range(100))))
"""


# --- the file


def test_the_file_is_valid_by_the_compose_specification() -> None:
    checked = subprocess.run(
        [
            sys.executable,
            "-m",
            "check_jsonschema",
            "--builtin-schema",
            "vendor.compose-spec",
            compose_file.FILE,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


def test_the_accounts_of_nats_are_those_of_the_code() -> None:
    names = {user: f"$NATS_{user.upper()}_PASSWORD" for user in (*identities.SERVICE_USERS, "system")}
    text = json.dumps(identities.configuration(names, "$NATS_ISSUER"), indent=2)
    for name in (*names.values(), "$NATS_ISSUER"):
        text = text.replace(f'"{name}"', name)  # in quotes it would not be replaced by the server
    body = text.removeprefix("{\n").removesuffix("\n}")
    assert ACCOUNTS.read_text().partition("\n\n")[2] == f"{body}\n", (
        "write this into deploy/nats/accounts.conf"
    )


def test_it_cannot_be_started_without_passwords() -> None:
    with pytest.raises(KeyError, match=r"NATS_CLUSTER_PASSWORD is not set: set it in \.env"):
        compose_file.read({})


def test_ports_are_published_on_loopback_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.ports]
    assert ports
    assert {host for host, _, _ in ports} == {"127.0.0.1"}


@pytest.mark.parametrize("service", STAYING, ids=lambda service: service.name)
def test_every_service_is_checked_restarted_and_given_time_to_drain(service: Service) -> None:
    assert service.record["restart"] == "unless-stopped"
    assert service.record["healthcheck"]["test"]
    if kind := SETTINGS.get(service.name):
        assert service.grace > kind.model_fields["drain_timeout"].default


def test_volumes_are_named_and_declared() -> None:
    used = {volume for service in SERVICES.values() for volume in service.volumes}
    assert used == set(RECORD["volumes"])


@pytest.mark.parametrize("name", SETTINGS)
def test_a_service_is_told_nothing_that_it_does_not_know(name: str) -> None:
    told = {key.removeprefix("TIDEMILL_").lower() for key in SERVICES[name].environment}
    assert told <= set(SETTINGS[name].model_fields)


def test_the_gpu_worker_is_asked_for_by_its_profile() -> None:
    assert SERVICES["gpu-worker"].record["profiles"] == ["gpu"]
    assert not any("profiles" in service.record for name, service in SERVICES.items() if name != "gpu-worker")


# --- its services


@pytest.fixture(scope="module")
def composed() -> Iterator[ComposeStage]:
    """All services that start by default, healthy."""
    if reason := missing():
        assert not os.environ.get("CI"), reason
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="tm-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        stage = ComposeStage(SERVICES, RECORD["configs"], Path(folder))
        with stage.network():
            for name, service in SERVICES.items():
                if "profiles" not in service.record:
                    stage.up(name)
            yield stage


def _run_app(stage: ComposeStage, folder: Path) -> str:
    program = folder / "composed.py"
    program.write_text(PROGRAM)
    client = {
        "TIDEMILL_SERVER_URL": ",".join(f"nats://{node}:4222" for node in NATS_NODES),
        "TIDEMILL_TOKEN_ID": "ak-main-00000000000000000000000000",
        "TIDEMILL_TOKEN_SECRET": VARIABLES["FIRST_TOKEN_SECRET"],
        "TIDEMILL_HOME": str(folder),
    }
    done = stage.run("client", "python", str(program), environment=client, timeout=100)
    assert done.returncode == 0, f"{done.stderr}\n{stage.log('worker')}"
    return done.stdout.strip()


@pytest.mark.long
@pytest.mark.timeout(240)
def test_its_services_run_an_app_drain_and_lose_no_node_that_they_need(
    composed: ComposeStage, tmp_path: Path
) -> None:
    """One claim after the other: the services take long to start."""
    assert _run_app(composed, tmp_path) == "49 328350"

    answered = composed.run("client", "wget", "-qO-", "http://gateway:8080/readyz", environment={})
    assert answered.stdout == "ready\n", answered.stderr

    composed.processes["nats-2"].kill()  # of three nodes two are enough
    composed.processes["nats-2"].wait()
    assert _run_app(composed, tmp_path) == "49 328350"
    composed.start("nats-2")

    for name in ("worker", "gateway", "scheduler", "registry"):
        assert composed.stop(name) == 0, composed.log(name)
