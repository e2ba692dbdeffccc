"""docker-compose.yml and the Dockerfiles it names, read as a container engine reads them."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"

_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
_PORT = re.compile(r"(?:(?P<host>[\d.]+):)?(?P<published>\d+):(?P<target>\d+)")


@dataclass(frozen=True)
class Service:
    """One service: what is run, with what, after what."""

    name: str
    record: Mapping[str, Any]
    command: list[str]
    environment: dict[str, str]

    @property
    def image(self) -> str:
        """The image it runs, when it does not build its own."""
        return str(self.record.get("image", ""))

    @property
    def needs(self) -> dict[str, str]:
        """What must be there before: the condition by service."""
        return {name: needed["condition"] for name, needed in self.record.get("depends_on", {}).items()}

    @property
    def healthcheck(self) -> list[str]:
        """The command that ends with 0 when it is healthy."""
        kind, *command = self.record["healthcheck"]["test"]
        assert kind == "CMD"
        return command

    @property
    def patience(self) -> float:
        """Seconds in which it has to become healthy."""
        check = self.record["healthcheck"]
        return seconds(check["interval"]) * check["retries"] + seconds(check.get("start_period", "0s"))

    @property
    def grace(self) -> float:
        """Seconds in which it has to end."""
        return seconds(self.record["stop_grace_period"])

    @property
    def ports(self) -> list[tuple[str, int, int]]:
        """What is published: address, port there, port here."""
        found = [_PORT.fullmatch(text) for text in self.record.get("ports", ())]
        return [(port["host"] or "", int(port["published"]), int(port["target"])) for port in found if port]

    @property
    def volumes(self) -> dict[str, str]:
        """Paths in the container, by volume."""
        return dict(text.split(":")[:2] for text in self.record.get("volumes", ()))


def read_env(path: Path) -> dict[str, str]:
    """Return the variables of a `.env` file."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def read(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the file with its variables filled in."""
    record: dict[str, Any] = _filled(yaml.safe_load(FILE.read_text()), variables)
    return record


def services(record: Mapping[str, Any]) -> dict[str, Service]:
    """Return the services, each with what its image says."""
    return {name: _service(name, service) for name, service in record["services"].items()}


def seconds(text: str) -> float:
    """Return a duration such as `30s`."""
    assert text.endswith("s")
    return float(text[:-1])


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(part, variables) for key, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, variables) for part in value]
    return _VARIABLE.sub(lambda match: _value(match, variables), value) if isinstance(value, str) else value


def _value(match: re.Match[str], variables: Mapping[str, str]) -> str:
    name, kind, word = match.groups()
    if found := variables.get(name, ""):
        return found
    if kind == "?":
        raise KeyError(f"{name} is not set: {word}")
    return word or ""


def _service(name: str, record: Mapping[str, Any]) -> Service:
    environment, command = _built(ROOT / record["build"]["dockerfile"]) if "build" in record else ({}, [])
    declared = {key: str(value) for key, value in record.get("environment", {}).items()}
    return Service(name, record, list(record.get("command", command)), {**environment, **declared})


def _built(dockerfile: Path) -> tuple[dict[str, str], list[str]]:
    """Return the environment and the command of the image that a Dockerfile makes."""
    environment: dict[str, str] = {}
    command: list[str] = []
    for line in dockerfile.read_text().splitlines():
        word, _, rest = line.partition(" ")
        if word == "ENV":
            environment |= dict(pair.split("=", 1) for pair in rest.split())
        elif word == "CMD":
            command = json.loads(rest)
    return environment, command
