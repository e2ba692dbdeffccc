"""Settings of the worker."""

from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from tidemill._wire import gpus
from tidemill_common.settings import ServiceSettings
from tidemill_worker.sandbox.network import PRIVATE


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
    # The GPUs to give to containers: those that NVIDIA's driver tells of (`auto`), none (empty), or these,
    # by type, as `H100:2,L4`, whether they are there or not.
    worker_gpus: Annotated[dict[str, int] | Literal["auto"], NoDecode] = "auto"

    # What keeps containers from this machine: `bubblewrap`, `process` (nothing does), or `auto`, which is
    # bubblewrap where it holds.
    runtime: Literal["auto", "bubblewrap", "process"] = "auto"
    # Whether the worker starts where nothing would keep them from it.
    allow_unisolated: bool = False
    # The first of the 65,536 ids that containers have on this machine, of a worker that is root.
    worker_ids: int = Field(default=300_000, ge=65_536)
    # Processes and threads that one sandboxed container may have.
    worker_tasks: int = Field(default=4096, ge=16)
    # Networks that sandboxed containers may not reach, as `10.0.0.0/8,192.168.0.0/16`.
    deny_networks: Annotated[tuple[str, ...], NoDecode] = PRIVATE

    # What functions can ask for by `region=` and `cloud=`, and any other label, as `disk=ssd,zone=b`.
    # `*` stands for every value.
    worker_region: str = ""
    worker_cloud: str = ""
    worker_labels: Annotated[dict[str, str], NoDecode] = Field(default_factory=dict)

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().resolve()

    @field_validator("deny_networks", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(str(IPv4Network(part.strip())) for part in value.split(",") if part.strip())

    @field_validator("worker_gpus", mode="before")
    @classmethod
    def _counted(cls, value: object) -> object:
        if not isinstance(value, str) or value.strip() == "auto":
            return value.strip() if isinstance(value, str) else value
        parts = (part.strip().partition(":") for part in value.split(",") if part.strip())
        return {gpus.named(kind): int(count or 1) for kind, _, count in parts}

    @field_validator("worker_labels", mode="before")
    @classmethod
    def _paired(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        parts = (part.strip().partition("=") for part in value.split(",") if part.strip())
        return {name: text for name, _, text in parts}
