"""Every program in README and docs runs as it is shown, and prints what is shown."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from pseudo_terminal import AtTerminal

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```(python|console)\n(.*?)```", re.DOTALL)
# Are in test_other_callers.py, test_serving.py and test_gpu_workers.py.
TESTED_ELSEWHERE = ("rest.md", "other-languages.md", "serve.md", "gpus.md")
SESSION = re.compile(r"\$ tidemill (?:deploy|secret create) ")
COMMAND = re.compile(r"\$ (.+)\n((?:(?!\$ ).*\n)*)")
TALK = re.compile(r"\$ tidemill run -i (\S+\.py)\n((?:(?!\$ ).*\n)*)")
PROMPTS = ("(Pdb) ", "name? ")
SHOWN = re.compile(r"\$ ((?:tidemill run -q|python) (\S+\.py).*)\n((?:(?!\$ ).*\n)*)")


@dataclass(frozen=True)
class Program:
    """A file shown on a page, the command that runs it, and what it is said to print."""

    page: str
    file: str
    text: str
    command: str
    output: str


@dataclass(frozen=True)
class Session:
    """Commands shown on a page, and the files of the page that they work with."""

    page: str
    files: dict[str, str]
    commands: list[tuple[str, str]]


@dataclass(frozen=True)
class Talk:
    """A file shown on a page, and what is said at a terminal while it runs."""

    page: str
    file: str
    text: str
    lines: list[str]


sessions: list[Session] = []
talks: list[Talk] = []


def programs() -> list[Program]:
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        if page.name in TESTED_ELSEWHERE:
            continue
        files: dict[str, str] = {}
        for language, text in BLOCK.findall(page.read_text()):
            if language == "python":
                name = text.partition("\n")[0].removeprefix("# ")
                assert name.endswith(".py"), f"{page.name}: a program does not say its file name: {name}"
                files[name] = text
                continue
            if files and SESSION.match(text):
                sessions.append(Session(page.name, files, COMMAND.findall(text)))
                files = {}
                continue
            for file, said in TALK.findall(text):
                talks.append(Talk(page.name, file, files.pop(file), said.splitlines()))
            for command, file, output in SHOWN.findall(text):
                if file in files:
                    found.append(Program(page.name, file, files.pop(file), command, output))
        assert not files, f"{page.name}: no command runs {', '.join(files)}"
    return found


PROGRAMS = programs()


def test_the_pages_have_programs() -> None:
    assert len(PROGRAMS) >= 10


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: f"{program.page}-{program.file}")
def test_a_program_prints_what_its_page_shows(
    program: Program, tmp_path: Path, stack_environment: dict[str, str]
) -> None:
    (tmp_path / program.file).write_text(program.text)
    binaries = Path(sys.executable).parent
    environment = {**stack_environment, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        program.command if "2>" in program.command else shlex.split(program.command),
        shell="2>" in program.command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == sorted(program.output.splitlines()), done.stderr


@pytest.mark.parametrize("session", sessions, ids=lambda session: session.page)
def test_the_commands_of_a_session_print_what_their_page_shows(
    session: Session, tmp_path: Path, stack_environment: dict[str, str]
) -> None:
    for file, text in session.files.items():
        (tmp_path / file).write_text(text)
    binaries = Path(sys.executable).parent
    environment = {**stack_environment, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    for command, output in session.commands:
        done = subprocess.run(
            shlex.split(command),
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, output), done.stderr


@pytest.mark.parametrize("talk", talks, ids=lambda talk: f"{talk.page}-{talk.file}")
def test_a_program_talks_as_its_page_shows(
    talk: Talk, tmp_path: Path, stack_environment: dict[str, str]
) -> None:
    path = tmp_path / talk.file
    path.write_text(talk.text)
    command = [sys.executable, "-m", "tidemill.cli", "run", "-i", str(path)]
    with AtTerminal(command, stack_environment) as terminal:
        for line in talk.lines:
            prompt = next((prompt for prompt in PROMPTS if line.startswith(prompt)), "")
            terminal.see(prompt)
            if prompt:
                terminal.type(line.removeprefix(prompt) + "\r")
            terminal.see(line.removeprefix(prompt))
        assert terminal.end() == 0


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_an_example_runs(example: Path, stack_environment: dict[str, str]) -> None:
    alone = "__main__" in example.read_text()
    command = (
        [sys.executable, str(example)]
        if alone
        else [sys.executable, "-m", "tidemill.cli", "run", str(example)]
    )
    done = subprocess.run(
        command, env=stack_environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
