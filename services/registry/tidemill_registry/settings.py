"""Settings of the registry."""

from pydantic import Field, SecretStr

from tidemill_common.settings import ServiceSettings


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

    # The seed (`SA...`) of the key that NATS's auth callout trusts. Without it nobody is asked here.
    nats_issuer_seed: SecretStr = SecretStr("")
    # Of the user `system` of NATS's system account, who ends the connections of revoked tokens.
    nats_system_password: SecretStr = SecretStr("")
