"""Settings that every service has, read from `TIDEMILL_*` in the environment."""

import sys
from typing import Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

Settings = TypeVar("Settings", bound="ServiceSettings")


class ServiceSettings(BaseSettings):
    """What a service needs before it can do anything of its own. Subclasses add their own fields."""

    model_config = SettingsConfigDict(env_prefix="TIDEMILL_", frozen=True, extra="ignore")

    nats_url: str = "nats://127.0.0.1:4222"
    nats_user: str = ""
    nats_password: SecretStr = SecretStr("")

    # Where /healthz, /readyz and /metrics are answered. Port 0: any free one, told in the log.
    health_host: str = "127.0.0.1"
    health_port: int = Field(default=0, ge=0, le=65535)
    # A file descriptor that is told, in one line of JSON, when the service serves.
    ready_fd: int | None = Field(default=None, ge=0)

    # A file descriptor that is closed when it makes sense to connect to NATS: services that NATS lets in by
    # their token cannot connect before the registry serves.
    gate_fd: int | None = Field(default=None, ge=0)

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"

    # Copies that NATS keeps of each stream and bucket.
    replicas: int = Field(default=1, ge=1, le=5)
    # How long a service that was told to stop may take to finish or hand back its work, in seconds.
    drain_timeout: float = Field(default=30.0, gt=0)


def load(kind: type[Settings]) -> Settings:
    """Return a service's settings, or end the process with a line for each that is missing or wrong."""
    try:
        return kind()
    except ValidationError as error:
        for problem in error.errors(include_input=False, include_url=False):
            name = f"TIDEMILL_{'_'.join(str(part) for part in problem['loc']).upper()}"
            sys.stderr.write(f"error: {name}: {problem['msg']}\n")
        sys.exit(2)
