"""An image of five pure Python packages: with nothing in the worker's cache, and with everything there."""

import shutil
from pathlib import Path

from measure import RUNS, Report
from stacks import ready
from suite_containers import roomy

import tidemill

PACKAGES = ("click", "humanize", "idna", "itsdangerous", "tabulate")


def forget(home: Path) -> None:
    """Remove the images, as they go when they take too much space: packages and exact versions stay."""
    for made in (home / "worker" / "images").iterdir():
        if not made.name.startswith("."):
            shutil.rmtree(made)


def main() -> None:
    report = Report("images")
    for _ in range(RUNS):
        image = tidemill.Image.debian_slim().uv_pip_install(*PACKAGES)
        with roomy("process") as home:
            for metric in ("image_cold", "image_warm", "image_warm", "image_warm"):
                known = len(ready(home))
                image.build()
                (said,) = ready(home)[known:]
                report.add(metric, said["image"], "s")
                forget(home)
            tidemill.Client.from_env().close()  # the next run has another stack
    report.note(", ".join(PACKAGES))
    report.write()


if __name__ == "__main__":
    main()
