"""The programs of the App reference that deploy, look up and tag run, with `import modal` unchanged."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_stacks import RunningStack

SEEDS = Path(__file__).parent / "seeds"


def script(stack: RunningStack, path: Path) -> "subprocess.CompletedProcess[str]":
    """Run a program as `python app_module.py` does where Tidemill stands for Modal."""
    return subprocess.run(
        [sys.executable, "-m", "tidemill", str(path)],
        env=stack.environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture
def my_app(stack: RunningStack) -> Iterator[str]:
    """The app of the reference, deployed by the command line."""
    done = stack.cli("deploy", str(SEEDS / "app_deploying.py"))
    assert done.returncode == 0, done.stderr
    yield "my-app"
    assert stack.cli("app", "stop", "-y", "my-app").returncode == 0


def test_the_script_deploys_itself(stack: RunningStack, my_app: str) -> None:
    done = script(stack, SEEDS / "app_deploying.py")
    assert done.returncode == 0, done.stderr
    assert "✓ Created objects.\n└── Created function some_modal_function.\n" in done.stderr
    # The same code under the same name: what the command line did is recognised.
    assert "Deployment skipped: no changes detected" in done.stderr


def test_a_deployed_app_is_looked_up_tagged_and_called(stack: RunningStack, my_app: str) -> None:
    done = script(stack, SEEDS / "app_lookup.py")
    assert done.returncode == 0, done.stderr
    app_id, url, tags, result = done.stdout.splitlines()
    assert re.fullmatch("ap-[0-9a-z]{26}", app_id)
    assert url == "" or app_id in url
    assert tags == "{'team': 'moon'}"
    assert result == "some result of 2"


def test_an_app_is_made_by_looking_it_up(stack: RunningStack, tmp_path: Path) -> None:
    (tmp_path / "made_so.py").write_text(
        'import modal\napp = modal.App.lookup("made-so", create_if_missing=True)\nprint(app.app_id)\n'
    )
    first, second = (script(stack, tmp_path / "made_so.py").stdout.strip() for _ in range(2))
    assert first == second
    assert stack.cli("app", "stop", "-y", first).returncode == 0


def test_an_app_with_a_secret_and_a_schedule_is_deployed(stack: RunningStack, tmp_path: Path) -> None:
    assert stack.cli("secret", "create", "some_secret", "WORD=tide").returncode == 0
    done = script(stack, SEEDS / "app_secrets_and_schedules.py")
    assert done.returncode == 0, done.stderr
    assert "App deployed in" in done.stderr
    (tmp_path / "call.py").write_text(
        'import modal\nprint(modal.Function.from_name("with-a-secret", "foo").remote())\n'
    )
    assert script(stack, tmp_path / "call.py").stdout == "the secret says tide\n"
    assert stack.cli("app", "stop", "-y", "with-a-secret").returncode == 0
    assert stack.cli("secret", "delete", "-y", "some_secret").returncode == 0
