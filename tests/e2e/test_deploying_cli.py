"""`tidemill deploy` and the commands that look after what was deployed."""

import json
import re
import signal
import stat
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from running_stacks import RunningStack, run, run_cli, wait_until

from tidemill import App, Client
from tidemill.exception import NotFoundError

LACKING = """\
import tidemill
app = tidemill.App("a", secrets=[tidemill.Secret.from_name("absent")])
@app.function()
def f(): pass
"""

PROGRAM = """\
import tidemill

app = tidemill.App("{name}", tags={{"team": "tide"}})


@app.function()
def word() -> str:
    print("saying {word}")
    return "{word}"
"""


class Deployed:
    """An app that the command line deploys, version by version."""

    def __init__(self, stack: RunningStack, folder: Path) -> None:
        self.stack = stack
        self.folder = folder
        self.name = f"app-{uuid.uuid4().hex[:8]}"

    def deploy(self, word: str, *options: str) -> str:
        """Deploy a version; return what is said about it."""
        (self.folder / "mill.py").write_text(PROGRAM.format(name=self.name, word=word))
        return self.cli("deploy", *options, "mill.py").stderr

    def cli(self, *arguments: str, status: int = 0, **options: Any) -> "CompletedProcess[str]":
        settings = {"environment": self.stack.environment, "cwd": self.folder} | options
        done = run_cli(*arguments, **settings)
        assert done.returncode == status, done.stderr
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self.cli(*arguments, "--json").stdout)

    def call(self, *, environment: str = "main") -> str:
        """Call the deployed function from a program of its own."""
        (self.folder / "call.py").write_text(
            "import tidemill\n"
            f"f = tidemill.Function.from_name({self.name!r}, 'word', environment_name={environment!r})\n"
            "app = tidemill.App()\n"
            "@app.local_entrypoint()\n"
            "def main():\n    print(f.remote())\n"
        )
        said: str = self.cli("run", "-q", "call.py").stdout
        return said.strip()


@pytest.fixture
def deployed(stack: RunningStack, client: Client, tmp_path: Path) -> Iterator[Deployed]:
    app = Deployed(stack, tmp_path)
    yield app
    with suppress(NotFoundError):
        App.lookup(app.name, client=client).stop()


def test_what_is_deployed_stays_and_what_has_not_changed_is_skipped(deployed: Deployed) -> None:
    said = deployed.deploy("low")
    assert re.search(
        r"✓ Created objects\.\n└── Created function word\.\n✓ App deployed in \d+\.\d\d s! \(version 1\)",
        said,
    )
    assert deployed.call() == "low"
    assert "Deployment skipped: no changes detected (version 1)" in deployed.deploy("low")
    assert "(version 2)" in deployed.deploy("high", "--strategy", "recreate")
    assert deployed.call() == "high"


def test_versions_are_listed_rolled_back_and_rolled_over(deployed: Deployed) -> None:
    deployed.deploy("low", "--tag", "first")
    deployed.deploy("high", "--tag", "second")
    listed = deployed.json("app", "history", deployed.name)
    assert [(each["version"], each["tag"], each["current"]) for each in listed] == [
        ("v2", "second", True),
        ("v1", "first", False),
    ]
    assert "version 3" in deployed.cli("app", "rollback", deployed.name).stderr
    assert deployed.call() == "low"
    assert "version 4" in deployed.cli("app", "rollback", deployed.name, "v2").stderr
    assert deployed.call() == "high"
    assert "version 5" in deployed.cli("app", "rollover", deployed.name).stderr
    newest = deployed.json("app", "history", deployed.name)[:3]
    assert [each["rolled_back_to"] for each in newest] == [None, 2, 1]
    assert "not a version: two" in deployed.cli("app", "rollback", deployed.name, "two", status=2).stderr


def test_apps_are_listed_and_shown(deployed: Deployed) -> None:
    deployed.deploy("low")
    app = next(each for each in deployed.json("app", "list") if each["name"] == deployed.name)
    assert (app["state"], app["version"], app["functions"], app["tags"]) == (
        "deployed",
        1,
        1,
        {"team": "tide"},
    )
    assert deployed.json("app", "list", "--tag", "team=moon") == []
    assert len(deployed.json("app", "list", "--limit", "1")) == 1
    for reference in (deployed.name, app["app_id"]):
        shown = deployed.json("app", "info", reference)
        assert (shown["app_id"], shown["functions"]) == (app["app_id"], ["word"])
    assert app["app_id"] in deployed.cli("app", "list").stdout
    page = urllib.request.Request(deployed.cli("app", "dashboard", deployed.name).stdout.strip())
    token = f"{deployed.stack.info.token_id}:{deployed.stack.info.token_secret}"
    page.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(page, timeout=60) as answer:
        assert json.load(answer)["id"] == app["app_id"]


def test_an_app_is_stopped_once_it_is_asked_for(deployed: Deployed) -> None:
    deployed.deploy("low")
    app_id = deployed.json("app", "info", deployed.name)["app_id"]
    assert deployed.cli("app", "stop", deployed.name, status=1, input="n\n")
    deployed.cli("app", "stop", deployed.name, input="y\n")
    assert deployed.cli("app", "info", deployed.name, status=1).stderr.startswith("error: there is no ")
    assert deployed.json("app", "info", app_id)["state"] == "stopped"
    assert app_id in {each["app_id"] for each in deployed.json("app", "list", "--all")}
    assert app_id not in {each["app_id"] for each in deployed.json("app", "list")}


def test_the_name_and_the_module_can_be_chosen(deployed: Deployed) -> None:
    (deployed.folder / "mill.py").write_text(PROGRAM.format(name="another", word="low"))
    deployed.cli("deploy", "-m", "mill::app", "--name", deployed.name)
    assert deployed.call() == "low"


def test_output_is_followed_until_it_is_interrupted(deployed: Deployed) -> None:
    deployed.deploy("low")
    process = deployed.stack.start_cli("deploy", "--stream-logs", "mill.py", cwd=deployed.folder)
    assert process.stderr is not None
    assert process.stdout is not None
    said = ""
    while "Deployment skipped" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    assert deployed.call() == "low"
    assert process.stdout.readline() == "saying low\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said


@pytest.mark.parametrize(
    ("text", "arguments", "error", "hint"),
    [
        ("x = 1\n", [], "has no app", "make one"),
        ("import tidemill\napp = tidemill.App()\n", [], "without a name", "--name"),
        ("import tidemill\napp = tidemill.App('a')\n", ["--tag", "a b"], "not a tag", "50"),
        ("import tidemill\napp = tidemill.App('a')\n", ["-e", "nowhere"], "nowhere", ""),
        ("import tidemill\napp = tidemill.App('a')\napp.deploy()\n", [], "cannot be imported", "__main__"),
        (
            LACKING,
            [],
            "no secret 'absent'",
            "tidemill secret create absent",
        ),
    ],
)
def test_what_cannot_be_deployed_is_told_with_a_hint(
    stack: RunningStack, tmp_path: Path, text: str, arguments: list[str], error: str, hint: str
) -> None:
    (tmp_path / "script.py").write_text(text)
    done = stack.cli("deploy", *arguments, "script.py", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    told = re.search(r"^error: (.*)\n(?:hint: (.*)\n)?\Z", done.stderr, re.MULTILINE)
    assert told, done.stderr
    assert error in told[1]
    assert hint in (told[2] or "")


@pytest.mark.parametrize(
    "command",
    [
        "deploy script.py",
        "app list",
        "app logs a",
        "secret list",
        "call list",
        "call info fc-1",
        "dead list --app a",
        "dead replay in-1",
        "container logs co-1",
    ],
)
def test_commands_for_what_stays_start_no_stack_of_their_own(
    stack: RunningStack, tmp_path: Path, command: str
) -> None:
    (tmp_path / "script.py").write_text("import tidemill\napp = tidemill.App('a')\n")
    environment = stack.environment | {"TIDEMILL_HOME": str(tmp_path / "empty")}
    done = run_cli(*command.split(), cwd=tmp_path, environment=environment)
    assert (done.returncode, done.stderr) == (
        1,
        "error: no server is running\nhint: start one with `tidemill up`\n",
    )


def test_a_function_is_not_looked_for_on_a_stack_that_starts_for_it(
    stack: RunningStack, tmp_path: Path
) -> None:
    environment = stack.environment | {"TIDEMILL_HOME": str(tmp_path / "empty")}
    asking = "import tidemill; tidemill.Function.from_name('a', 'f').remote()"
    done = run([sys.executable, "-c", asking], environment)
    assert done.returncode == 1
    assert "ConnectionError: no server is running\nhint: start one with `tidemill up`" in done.stderr


def test_what_is_not_confirmed_does_not_happen(deployed: Deployed) -> None:
    deployed.deploy("high")
    unanswered = deployed.stack.cli("app", "stop", deployed.name, input="")
    assert unanswered.returncode == 1
    assert unanswered.stderr.endswith("error: nobody is there to confirm it\nhint: give --yes\n")
    refused = deployed.stack.cli("app", "stop", deployed.name, input="n\n")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.endswith("Nothing was changed\n")
    assert deployed.call() == "high"


def test_status_tells_of_the_server_that_the_profile_names(stack: RunningStack, tmp_path: Path) -> None:
    file = tmp_path / "configuration.toml"
    info = stack.info
    token = f'token_id = "{info.token_id}"\ntoken_secret = "{info.token_secret}"\n'
    file.write_text(f'[there]\nserver_url = "{info.server_url}"\n{token}')
    elsewhere = {"TIDEMILL_HOME": str(tmp_path / "empty"), "TIDEMILL_CONFIG_PATH": str(file)}

    def shows_workers() -> bool:
        """Tell whether the scheduler has heard of the worker: a moment after it was told to start."""
        done = run_cli("status", "--json", environment=stack.environment | elsewhere)
        assert done.returncode == 0, done.stderr
        shown = json.loads(done.stdout)
        assert (shown["server_url"], shown["parts"]) == (info.server_url, [])
        return bool(shown["workers"])

    wait_until(shows_workers, what="for the worker's report")


# --- environments


def test_environments_keep_apps_and_secrets_apart(deployed: Deployed) -> None:
    environment = f"env-{uuid.uuid4().hex[:8]}"
    deployed.cli("environment", "create", environment)
    try:
        deployed.deploy("in main")
        deployed.deploy("in the other", "-e", environment)
        assert deployed.call() == "in main"
        assert deployed.call(environment=environment) == "in the other"
        deployed.cli("secret", "create", "word", "WORD=other", "-e", environment)
        assert deployed.json("secret", "list", "-e", environment)[0]["keys"] == ["WORD"]
        assert "word" not in {each["name"] for each in deployed.json("secret", "list")}
        deployed.cli("environment", "update", environment, "--set-name", f"{environment}-b")
        environment = f"{environment}-b"
        assert environment in {each["name"] for each in deployed.json("environment", "list")}
    finally:
        deployed.cli("environment", "delete", "-y", environment)
    assert environment not in {each["name"] for each in deployed.json("environment", "list")}


def test_a_run_and_its_containers_belong_to_their_environment(deployed: Deployed) -> None:
    environment = f"env-{uuid.uuid4().hex[:8]}"
    deployed.cli("environment", "create", environment)
    try:
        deployed.deploy("in main")
        deployed.deploy("in the other", "-e", environment)
        (deployed.folder / "asking.py").write_text(
            "import tidemill\n"
            "app = tidemill.App('asking')\n"
            "@app.function()\n"
            "def ask() -> str:\n"
            f"    return tidemill.Function.from_name({deployed.name!r}, 'word').remote()\n"
            "@app.local_entrypoint()\n"
            "def main():\n    print(ask.remote())\n"
        )
        assert deployed.cli("run", "-q", "asking.py").stdout == "in main\n"
        assert deployed.cli("run", "-q", "-e", environment, "asking.py").stdout == "in the other\n"
    finally:
        deployed.cli("environment", "delete", "-y", environment)


def test_a_profile_stands_for_an_environment(deployed: Deployed, tmp_path: Path) -> None:
    file = tmp_path / "configuration.toml"
    environment = deployed.stack.environment | {"TIDEMILL_CONFIG_PATH": str(file)}
    deployed.cli("config", "set-environment", "main", environment=environment)
    assert 'environment = "main"' in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    refused = deployed.cli("config", "set-environment", "nowhere", environment=environment, status=1)
    assert "error: there is no environment 'nowhere'" in refused.stderr


# --- secrets


def test_secrets_are_stored_listed_and_deleted(deployed: Deployed) -> None:
    name = f"secret-{uuid.uuid4().hex[:8]}"
    (deployed.folder / "variables.env").write_text("FROM_FILE=hunter2\nBOTH=file\n")
    (deployed.folder / "variables.json").write_text('{"FROM_JSON": "hunter3"}')
    files = ["--from-dotenv", "variables.env", "--from-json", "variables.json"]
    said = deployed.cli("secret", "create", name, "BOTH=given", *files)
    assert f'Secret.from_name("{name}")' in said.stderr
    listed = next(each for each in deployed.json("secret", "list") if each["name"] == name)
    assert sorted(listed["keys"]) == ["BOTH", "FROM_FILE", "FROM_JSON"]
    taken = deployed.cli("secret", "create", name, "A=1", status=1)
    assert "--force" in taken.stderr
    deployed.cli("secret", "create", name, "A=1", "--force")
    listed = next(each for each in deployed.json("secret", "list") if each["name"] == name)
    assert listed["keys"] == ["A"]
    assert "hunter" not in said.stderr + said.stdout + deployed.cli("secret", "list").stdout
    deployed.cli("secret", "delete", "-y", name)
    assert deployed.cli("secret", "delete", "-y", name, status=1)
    deployed.cli("secret", "delete", "-y", "--allow-missing", name)


def test_a_value_comes_from_the_editor(deployed: Deployed) -> None:
    name = f"secret-{uuid.uuid4().hex[:8]}"
    editor = deployed.folder / "editor.sh"
    editor.write_text("#!/bin/sh\necho 'typed here' >> \"$1\"\n")
    editor.chmod(0o755)
    environment = deployed.stack.environment | {"EDITOR": str(editor), "VISUAL": str(editor)}
    deployed.cli("secret", "create", name, "TYPED=-", environment=environment)
    (deployed.folder / "script.py").write_text(
        "import os, tidemill\napp = tidemill.App('typed')\n"
        f"@app.function(secrets=[tidemill.Secret.from_name({name!r}, required_keys=['TYPED'])])\n"
        "def typed():\n    return os.environ['TYPED']\n"
        "@app.local_entrypoint()\ndef main():\n    print(repr(typed.remote()))\n"
    )
    assert deployed.cli("run", "-q", "script.py").stdout == "'typed here'\n"
    deployed.cli("secret", "delete", "-y", name)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no variables"),
        (["A"], "not KEY=VALUE: A"),
        (["=1"], "not KEY=VALUE"),
        (["--from-json", "list.json"], "not a JSON object"),
        (["--from-dotenv", "nowhere.env"], "cannot be read"),
    ],
)
def test_secrets_that_cannot_be_are_told(deployed: Deployed, arguments: list[str], said: str) -> None:
    (deployed.folder / "list.json").write_text("[1]")
    done = deployed.stack.cli("secret", "create", "wrong", *arguments, cwd=deployed.folder)
    assert done.returncode in (1, 2)
    assert said in done.stderr
