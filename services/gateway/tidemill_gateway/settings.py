"""Settings of the gateway."""

from pydantic import Field

from tidemill_common.settings import ServiceSettings


class GatewaySettings(ServiceSettings):
    """Where the gateway listens. Port 0: any free one, told in the log."""

    gateway_host: str = "127.0.0.1"
    gateway_port: int = Field(default=0, ge=0, le=65535)
    # Proxies in front of it, whose word counts for who a client is: addresses or networks, with commas.
    gateway_trusted_proxies: str = ""
    # Web functions are found at <label>.<this domain>.
    gateway_domain: str = "localhost"
