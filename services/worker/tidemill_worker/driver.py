"""What a container needs of NVIDIA's driver: device nodes, and the libraries that go with the kernel's part.

/dev/nvidia<n>            one for each GPU that it has
/dev/nvidiactl ...        for all of them
/opt/tidemill/driver      in a sandbox: libcuda.so.1, libnvidia-ml.so.1 ... of this machine
"""

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tidemill_worker import gpus
from tidemill_worker.devices import Device

INSIDE = "/opt/tidemill/driver"
SMI = "/usr/bin/nvidia-smi"
_DEV = "/dev"
_SHARED = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")
# What belongs to the driver and not to CUDA's toolkit, by the beginnings of names.
_LIBRARIES = ("libcuda.so.", "libcudadebugger.so.", "libnvidia-", "libnvcuvid.so.", "libnvoptix.so.")
_PATIENCE = 10.0  # seconds for the making of device nodes


@dataclass(frozen=True, slots=True)
class Equipment:
    """What a container gets: device nodes, files (source, target), and variables.

    `early` says that its Python has to be started with them, and cannot be a fork of a template.
    """

    nodes: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    early: bool = False


NOTHING = Equipment()


class Driver:
    """The driver's files on this machine; `folder` has its libraries, None for GPUs without a driver."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        searched = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
        self._is_searched = folder is not None and str(folder) in searched

    def prepare(self) -> None:
        """Have the device nodes made that the first CUDA program of a machine would have made."""
        program = shutil.which("nvidia-modprobe")
        if program and not os.path.exists(f"{_DEV}/nvidia-uvm"):  # noqa: PTH110
            subprocess.run([program, "-u", "-c=0"], check=False, capture_output=True, timeout=_PATIENCE)

    def equip(self, devices: tuple[Device, ...], *, isolated: bool) -> Equipment:
        """Return what a container needs that has these GPUs; `isolated` in a sandbox."""
        real = [device for device in devices if device.uuid]
        told = gpus.variables(devices, alone=isolated and bool(real))
        if not real or self._folder is None:
            return Equipment(variables=told)
        if not isolated:
            own = {"LD_LIBRARY_PATH": str(self._folder)} if self._is_searched else {}
            return Equipment(variables={**told, **own}, early=self._is_searched)
        return Equipment(
            nodes(device.minor for device in real),
            files(self._folder),
            {**told, "LD_LIBRARY_PATH": INSIDE},
            early=True,
        )


def nodes(minors: Iterable[int]) -> tuple[str, ...]:
    """Return the device nodes for GPUs of these minor numbers, as far as this machine has them."""
    names = (*(f"nvidia{minor}" for minor in minors), *_SHARED)
    return tuple(path for name in names if os.path.exists(path := f"{_DEV}/{name}"))  # noqa: PTH110


def files(folder: Path) -> tuple[tuple[str, str], ...]:
    """Return the driver's files and where they go in a sandbox, under every name that they have."""
    libraries = [
        (str(path.resolve()), f"{INSIDE}/{path.name}")
        for path in sorted(folder.iterdir())
        if path.name.startswith(_LIBRARIES) and path.is_file()
    ]
    program = shutil.which("nvidia-smi")
    return (*libraries, *(((str(Path(program).resolve()), SMI),) if program else ()))
