"""An image of five pure Python packages: with nothing in the worker's cache, and with everything there."""

import json
import shutil
from pathlib import Path

from measure import RUNS, Report
from suite_containers import roomy

import tidemill

PACKAGES = ("click", "humanize", "idna", "itsdangerous", "tabulate")


def phases(home: Path) -> list[float]:
    """Return how long each container's image took, in the worker's own words."""
    lines = (line for log in (home / "logs").glob("worker*.log") for line in log.read_text().splitlines())
    return [json.loads(line)["image"] for line in lines if '"container ready"' in line]


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
                known = len(phases(home))
                image.build()
                (seconds,) = phases(home)[known:]
                report.add(metric, seconds, "s")
                forget(home)
            tidemill.Client.from_env().close()  # the next run has another stack
    report.note(", ".join(PACKAGES))
    report.write()


if __name__ == "__main__":
    main()
