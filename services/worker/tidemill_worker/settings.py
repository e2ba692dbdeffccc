"""Settings of the worker."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from tidemill_common.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the worker is told by `TIDEMILL_*`."""

    # Images, code and the private folders of containers. Images stay from run to run.
    data_dir: Path = Path("~/.tidemill/worker")

    # MiB that images may take; those that were not used for longest go. And where Debian's packages for
    # the base of `Image.debian_slim()` come from.
    worker_image_space: int = Field(default=51_200, gt=0)
    worker_debian_mirror: str = "http://deb.debian.org/debian"

    # What containers may take in all: cores and MiB. By default every core and 95% of the memory.
    worker_cpu: float | None = Field(default=None, gt=0)
    worker_memory: int | None = Field(default=None, gt=0)
    # GPUs by type, as `H100:2,L4`. Declared, not discovered.
    worker_gpus: Annotated[dict[str, int], NoDecode] = Field(default_factory=dict)

    # What functions can ask for by `region=` and `cloud=`, and any other label, as `disk=ssd,zone=b`.
    # `*` stands for every value.
    worker_region: str = ""
    worker_cloud: str = ""
    worker_labels: Annotated[dict[str, str], NoDecode] = Field(default_factory=dict)

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().resolve()

    @field_validator("worker_gpus", mode="before")
    @classmethod
    def _counted(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        parts = (part.strip().partition(":") for part in value.split(",") if part.strip())
        return {kind: int(count or 1) for kind, _, count in parts}

    @field_validator("worker_labels", mode="before")
    @classmethod
    def _paired(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        parts = (part.strip().partition("=") for part in value.split(",") if part.strip())
        return {name: text for name, _, text in parts}
