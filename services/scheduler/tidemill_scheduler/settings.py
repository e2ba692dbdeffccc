"""Settings of the scheduler."""

from tidemill_common.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the scheduler is told by `TIDEMILL_*`; nothing of its own so far."""
