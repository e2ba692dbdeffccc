import json
import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from tidemill import _profiles
from tidemill.cli.program import program
from tidemill.exception import NotFoundError

TWO = '[dev]\nserver_url = "nats://dev:4222"\ntoken_secret = "hunter2"\n[prod]\nactive = true\n'


@pytest.fixture(autouse=True)
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("TIDEMILL_", "MODAL_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TIDEMILL_PROFILE", "")  # so that what a command sets is taken back
    monkeypatch.setenv("TIDEMILL_CONFIG_PATH", str(tmp_path / "tidemill.toml"))
    (tmp_path / "tidemill.toml").write_text(TWO)


def cli(*arguments: str) -> Result:
    return CliRunner().invoke(program, arguments, catch_exceptions=False)


def test_profiles_are_listed_with_the_one_in_use() -> None:
    listed = json.loads(cli("profile", "list", "--json").stdout)
    assert [(each["name"], each["active"]) for each in listed] == [("dev", False), ("prod", True)]
    assert listed[0]["server"] == "nats://dev:4222"
    assert "hunter2" not in cli("profile", "list").stdout


def test_another_profile_is_activated() -> None:
    assert cli("profile", "current").stdout == "prod\n"
    assert cli("profile", "activate", "dev").exit_code == 0
    assert cli("profile", "current").stdout == "dev\n"
    with pytest.raises(NotFoundError):
        cli("profile", "activate", "nowhere")


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    with click.Context(group) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            if isinstance(command, click.Group):
                yield from commands(command, *path, name)
            else:
                yield " ".join((*path, name)), command


def test_every_command_takes_a_profile() -> None:
    found = dict(commands(program))
    assert {"run", "deploy", "app list", "secret create", "token set", "status"} <= set(found)
    without = [
        name
        for name, command in found.items()
        if not any("--profile" in parameter.opts for parameter in command.params)
    ]
    assert without == []


def test_a_command_uses_the_profile_that_it_is_given() -> None:
    assert cli("profile", "current", "--profile", "dev").stdout == "dev\n"
    assert _profiles.read().marked == "prod"


def test_settings_are_shown_without_secrets() -> None:
    shown = cli("config", "show", "--profile", "dev")
    assert json.loads(shown.stdout)["token_secret"] == "***"
    assert json.loads(shown.stdout)["server_url"] == "nats://dev:4222"
    shown = cli("config", "show", "--no-redact")
    assert json.loads(shown.stdout)["token_secret"] == "hunter2"
