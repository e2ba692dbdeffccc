"""Tokens by command: made, kept in a profile, replaced and ended, on a real server."""

import json
from pathlib import Path

from running_stacks import RunningStack, run_cli


def test_a_token_is_made_kept_replaced_and_ended(stack: RunningStack, tmp_path: Path) -> None:
    made = json.loads(stack.cli("token", "new", "--name", "elsewhere", "--json").stdout)
    file = tmp_path / "configuration.toml"
    elsewhere = stack.environment | {
        "TIDEMILL_HOME": str(tmp_path / "nothing"),
        "TIDEMILL_CONFIG_PATH": str(file),
    }

    def cli(*arguments: str, status: int = 0, **options: str) -> str:
        done = run_cli(*arguments, environment=elsewhere, **options)
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    given = ["--token-id", made["token_id"], "--token-secret", "-", "--server-url", stack.info.server_url]
    cli("token", "set", *given, "--profile", "mill", input=made["token_secret"])
    assert made["token_id"] in cli("token", "info")
    cli("app", "list")

    cli("token", "rotate", "-y")
    assert made["token_id"] not in file.read_text()
    new = json.loads(cli("token", "info", "--json"))
    assert (new["name"], new["profile"]) == ("elsewhere", "mill")
    assert "does not know these credentials" in cli(
        "token", "set", *given, "--profile", "old", status=1, input=made["token_secret"]
    )

    assert stack.cli("token", "revoke", "-y", new["token_id"]).returncode == 0
    assert "does not know these credentials" in cli("app", "list", status=1)
