import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tidemill import _profiles, _runtime, config
from tidemill.exception import InvalidError, NotFoundError

File = Callable[[str], Path]

TWO = """\
# servers of ours
[dev]
server_url = "nats://dev:4222"
token_id = "dev-id"
token_secret = "dev-secret"
environment = "staging"
logs_timeout = 3

[prod]
active = true
server_url = "nats://prod:4222"  # the large one
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> File:
    """Write the configuration file, in an environment that sets nothing."""
    for name in list(os.environ):
        if name.startswith(("TIDEMILL_", "MODAL_")):
            monkeypatch.delenv(name)
    path = tmp_path / "tidemill.toml"
    monkeypatch.setenv("TIDEMILL_CONFIG_PATH", str(path))

    def write(text: str) -> Path:
        path.write_text(text)
        return path

    return write


def test_without_a_file_there_is_an_empty_default_profile(file: File) -> None:
    assert (_profiles.active().name, dict(_profiles.active().settings)) == ("default", {})
    assert config.config["environment"] == "main"


def test_settings_come_from_the_active_profile(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    file(TWO)
    assert config.config["server_url"] == "nats://prod:4222"
    assert config.config["environment"] == "main"
    monkeypatch.setenv("TIDEMILL_PROFILE", "dev")
    assert config.config["environment"] == config.environment() == "staging"
    assert config.config["logs_timeout"] == 3.0


def test_the_environment_wins_over_the_file(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    file(TWO)
    monkeypatch.setenv("TIDEMILL_PROFILE", "dev")
    monkeypatch.setenv("MODAL_ENVIRONMENT", "theirs")
    assert config.environment() == "theirs"
    assert config.environment("given") == "given"


def test_a_token_is_not_shown_to_another_server(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    file(TWO)
    monkeypatch.setenv("TIDEMILL_PROFILE", "dev")
    assert config.config["token_secret"] == "dev-secret"
    monkeypatch.setenv("TIDEMILL_SERVER_URL", "nats://elsewhere:4222")
    assert (config.config["token_id"], config.config["token_secret"]) == ("", "")


def test_the_only_profile_need_not_be_marked(file: File) -> None:
    file('[mine]\nserver_url = "nats://mine:4222"\n')
    assert config.config["server_url"] == "nats://mine:4222"


def test_a_container_belongs_to_its_own_environment(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    file(TWO)
    container = _runtime.Container("co-1", "ap-1", "app", "f", "inside", {})
    monkeypatch.setattr(_runtime, "container", container)
    assert config.environment() == "inside"
    assert config.config["server_url"] == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not toml", "cannot be read"),
        ("environment = 'x'\n", "outside of a profile"),
        ("[a]\nactive = true\n[b]\nactive = true\n", "more than one active profile: a, b"),
        ("[a]\nlogs_timeout = 'long'\n", "logs_timeout = 'long' in the configuration file"),
        ("[a]\nforce_build = []\n", "force_build"),
    ],
)
def test_what_cannot_be_read_is_told(file: File, text: str, said: str) -> None:
    file(text)
    with pytest.raises(InvalidError, match=said):
        config.config.to_dict()


def test_a_profile_that_is_not_there_is_told(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    file(TWO)
    monkeypatch.setenv("TIDEMILL_PROFILE", "nowhere")
    with pytest.raises(NotFoundError, match="nowhere") as caught:
        _profiles.active()
    assert caught.value.hint == "profiles: dev, prod"


def test_a_change_keeps_everything_else_and_is_private(file: File) -> None:
    path = file(TWO)
    path.chmod(0o644)
    _profiles.store("dev", {"environment": "other"})
    assert path.read_text() == TWO.replace('"staging"', '"other"')
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_one_profile_is_active_at_a_time(file: File) -> None:
    file(TWO)
    _profiles.activate("dev")
    assert _profiles.active().name == "dev"
    assert _profiles.read().marked == "dev"
    with pytest.raises(NotFoundError, match="nowhere"):
        _profiles.activate("nowhere")


def test_two_active_profiles_are_repaired_by_activating_one(file: File) -> None:
    file("[a]\nactive = true\n[b]\nactive = true\n")
    _profiles.activate("b")
    assert _profiles.active().name == "b"


def test_the_first_profile_is_the_active_one(file: File, tmp_path: Path) -> None:
    _profiles.store("first", {"token_id": "1"})
    _profiles.store("second", {"token_id": "2"})
    assert _profiles.active().name == "first"
    _profiles.store("third", {"token_id": "3"}, make_active=True)
    assert _profiles.active().name == "third"
    assert stat.S_IMODE((tmp_path / "tidemill.toml").stat().st_mode) == 0o600


def test_a_link_to_the_file_stays_one(file: File, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles" / "tidemill.toml"
    real.parent.mkdir()
    real.write_text(TWO)
    (tmp_path / "tidemill.toml").symlink_to(real)
    _profiles.activate("dev")
    assert (tmp_path / "tidemill.toml").is_symlink()
    assert _profiles.active().name == "dev"


def test_a_reader_sees_the_file_before_or_after_a_change(file: File) -> None:
    file(TWO)
    ended = threading.Event()
    seen: list[int] = []

    def look() -> None:
        while not ended.is_set():
            seen.append(len(_profiles._parse(_profiles.path()).profiles))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for number in range(50):
            _profiles.store("dev", {"environment": f"e{number}"})
    finally:
        ended.set()
        thread.join()
    assert set(seen) <= {2}


def test_a_changed_file_is_read_again(file: File) -> None:
    file(TWO)
    assert _profiles.active().name == "prod"
    file(TWO.replace("active = true", "").replace("[dev]", "[dev]\nactive = true"))
    assert _profiles.active().name == "dev"
