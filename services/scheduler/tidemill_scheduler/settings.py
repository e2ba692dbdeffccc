"""Settings of the scheduler."""

from pydantic import Field

from tidemill_common.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the scheduler is told by `TIDEMILL_*`."""

    # Messages of inputs that may wait for one workspace. Above it callers are told to add nothing.
    max_queued: int = Field(default=1_000_000, ge=1)
