"""`python -m tidemill_gateway`: run the gateway."""

from tidemill_common.service import run
from tidemill_common.settings import load
from tidemill_gateway.service import Gateway
from tidemill_gateway.settings import GatewaySettings

run(Gateway(load(GatewaySettings)))
