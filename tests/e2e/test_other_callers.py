"""The pages about REST and other languages: their programs and commands do what is shown."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from running_stacks import RunningStack

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"```(python|js|console)\n(.*?)```", re.DOTALL)
COMMAND = re.compile(r"\$ (.*)\n((?:(?!\$ ).*\n)*)")
MARK = "--- next command ---"


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip a test where a program is missing; in CI none may be."""
    missing = [program for program in programs if not shutil.which(program)]
    return pytest.mark.skipif(
        bool(missing) and "CI" not in os.environ, reason=f"not installed: {', '.join(missing)}"
    )


@dataclass(frozen=True)
class Page:
    """The files that a page shows, and its commands with what they are said to print."""

    files: dict[str, str]
    commands: list[tuple[str, str]]


def read_page(name: str) -> Page:
    files, commands = {}, []
    for language, text in BLOCK.findall((DOCS / name).read_text()):
        if language == "console":
            commands += COMMAND.findall(text)
        else:
            files[text.partition("\n")[0].split(" ")[1]] = text
    return Page(files, commands)


def run(page: Page, folder: Path, environment: dict[str, str]) -> list[str]:
    """Run a page's commands in one shell; return what each of them printed."""
    for name, text in page.files.items():
        (folder / name).write_text(text)
    script = "".join(f"{command}\necho; echo '{MARK}'\n" for command, _ in page.commands)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [printed.strip() for printed in done.stdout.split(MARK)[:-1]]


def is_shown(shown: str, printed: str) -> bool:
    """Tell whether something was printed as it is shown, where `…` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in shown.strip().split("…"))
    return re.fullmatch(pattern, printed, re.DOTALL) is not None


@pytest.fixture
def environment(stack: RunningStack) -> Iterator[dict[str, str]]:
    """What the pages tell to set. The app that they deploy is stopped at the end."""
    info = stack.info
    binaries = Path(sys.executable).parent
    environment = {
        **stack.environment,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "API": f"{info.gateway_url}/api/v1",
        "AUTH": f"Authorization: Bearer {info.token_id}:{info.token_secret}",
        "JSON": "Content-Type: application/json",
        "TIDEMILL_SERVER_URL": info.server_url,
        "TIDEMILL_TOKEN_ID": info.token_id,
        "TIDEMILL_TOKEN_SECRET": info.token_secret,
    }
    yield environment
    stack.cli("app", "stop", "greetings", "--yes")


def check(page: Page, folder: Path, environment: dict[str, str]) -> None:
    printed = run(page, folder, environment)
    for (command, shown), output in zip(page.commands, printed, strict=True):
        assert not shown or is_shown(shown, output), f"{command}\nprinted:\n{output}\nshown:\n{shown}"


@needs("curl")
def test_the_requests_of_the_page_about_rest_are_answered_as_shown(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    page = read_page("rest.md")
    assert len(page.commands) >= 8
    check(page, tmp_path, environment)


@needs("node", "npm")
def test_a_program_in_another_language_calls_a_function(tmp_path: Path, environment: dict[str, str]) -> None:
    page = read_page("other-languages.md")
    assert "call.mjs" in page.files
    check(page, tmp_path, environment)
