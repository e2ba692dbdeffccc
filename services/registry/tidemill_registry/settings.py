"""Settings of the registry."""

import re
from pathlib import Path

from pydantic import Field, SecretStr, field_validator, model_validator

from tidemill_common.settings import ServiceSettings
from tidemill_registry import cipher


class RegistrySettings(ServiceSettings):
    """What the registry needs beyond what every service needs."""

    # For SQLAlchemy with asyncpg: postgresql+asyncpg://user:password@host/database
    database_url: SecretStr
    database_connections: int = Field(default=10, ge=2)
    # Bring the schema to this version's at the start. Off where a job of its own does it.
    migrate: bool = True
    # Made at the start if it is not there; more are made with `python -m tidemill_registry workspace create`.
    first_workspace: str = "main"
    # Tokens (id -> secret, in JSON) that are made at the start, with which an installation begins.
    first_tokens: dict[str, SecretStr] = Field(default_factory=dict)
    # Where people and programs find the gateway, `https://tidemill.example`: told with apps, if it is known.
    public_url: str = ""

    # Where web functions are found: a URL with `{label}` in it, as host or below the gateway's `/f/`.
    web_url: str = "http://{label}.localhost"

    # The seed (`SA...`) of the key that NATS's auth callout trusts. Without it nobody is asked here.
    nats_issuer_seed: SecretStr = SecretStr("")
    # Of the user `system` of NATS's system account, who ends the connections of revoked tokens.
    nats_system_password: SecretStr = SecretStr("")

    # The keys that secrets are encrypted with, 32 bytes in base64 each, or a file with them. The first
    # one encrypts, the others only decrypt. Without any, no secret can be stored or read.
    secrets_key: SecretStr = SecretStr("")
    secrets_key_file: Path | None = None

    @field_validator("public_url")
    @classmethod
    def _address(cls, value: str) -> str:
        if value and not re.match(r"https?://[^/\s]+", value):
            raise ValueError("it has to begin with http:// or https:// and a host")
        return value.rstrip("/")

    @field_validator("web_url")
    @classmethod
    def _with_label(cls, value: str) -> str:
        if "{label}" not in value or not value.startswith(("http://", "https://")):
            raise ValueError("it has to be a URL with {label} in it")
        return value.rstrip("/")

    @field_validator("secrets_key")
    @classmethod
    def _readable(cls, value: SecretStr) -> SecretStr:
        cipher.read_keys(value.get_secret_value())
        return value

    @field_validator("secrets_key_file")
    @classmethod
    def _with_keys(cls, value: Path | None) -> Path | None:
        if value is not None and not _keys_in(value):
            raise ValueError(f"there is no key in {value}")
        return value

    @model_validator(mode="after")
    def _one_of_them(self) -> "RegistrySettings":
        if self.secrets_key.get_secret_value() and self.secrets_key_file:
            raise ValueError("set TIDEMILL_SECRETS_KEY or TIDEMILL_SECRETS_KEY_FILE, not both")
        return self

    def keyring(self) -> cipher.Keyring:
        """Return the keys, which may be none."""
        if self.secrets_key_file is not None:
            return cipher.Keyring(_keys_in(self.secrets_key_file))
        return cipher.Keyring(cipher.read_keys(self.secrets_key.get_secret_value()))


def _keys_in(file: Path) -> tuple[bytes, ...]:
    try:
        return cipher.read_keys(file.read_text())
    except OSError as error:
        raise ValueError(f"cannot read the keys for secrets: {error}") from error
