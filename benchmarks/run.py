"""Run the suites, each in an environment of its own, and rewrite `docs/performance.md` from the results."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"
ENVIRONMENTS = HERE.parent / ".bench"

# suite -> the packages its environment needs; None: the project's own environment
SUITES: dict[str, list[str] | None] = {
    "floor": None,
    "tidemill": None,
    "deploy": None,
    "web": None,
    "edge": None,
    "containers": None,
    "load": None,
    "images": None,
    "stages": None,
    "celery": ["celery[redis]"],
    "ray": ["ray"],
}


def python_of(suite: str) -> str:
    """Return the interpreter of a suite, making its environment when it is missing."""
    packages = SUITES[suite]
    return sys.executable if packages is None else environment(suite, packages)


def environment(name: str, packages: list[str]) -> str:
    """Return the interpreter of an environment that holds `packages`."""
    python = ENVIRONMENTS / name / "bin" / "python"
    if not python.exists():
        uv = [sys.executable, "-m", "uv"]
        compiled = {**os.environ, "UV_COMPILE_BYTECODE": "1"}
        subprocess.run([*uv, "venv", "-q", "--python", sys.executable, str(python.parent.parent)], check=True)
        subprocess.run(
            [*uv, "pip", "install", "-q", "--python", str(python), *packages], check=True, env=compiled
        )
    return str(python)


def run(suite: str) -> None:
    """Run one suite and keep its result; a suite that fails leaves the earlier result as it was."""
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [python_of(suite), f"suite_{suite}.py"], cwd=HERE, env=environ, stdout=subprocess.PIPE, check=False
    )
    if done.returncode:
        sys.exit(f"suite {suite} ended with status {done.returncode}")
    (RESULTS / f"{suite}.json").write_bytes(done.stdout)


def main() -> None:
    suites = sys.argv[1:] or list(SUITES)
    if unknown := set(suites) - set(SUITES):
        sys.exit(f"error: no such suite: {', '.join(unknown)}\nhint: there are {', '.join(SUITES)}")
    RESULTS.mkdir(exist_ok=True)
    for suite in suites:
        run(suite)
    subprocess.run([environment("report", ["matplotlib"]), "report.py"], cwd=HERE, check=True)


if __name__ == "__main__":
    main()
