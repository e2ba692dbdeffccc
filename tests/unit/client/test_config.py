import pytest

from tidemill.config import config
from tidemill.exception import InvalidError


def test_settings_have_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TIDEMILL_ENVIRONMENT", "MODAL_ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)
    assert config["environment"] == "main"
    assert config["logs_timeout"] == 10.0


def test_our_variable_wins_over_modals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODAL_ENVIRONMENT", "theirs")
    assert config["environment"] == "theirs"
    monkeypatch.setenv("TIDEMILL_ENVIRONMENT", "ours")
    assert config.get("environment") == "ours"


def test_a_server_of_modals_is_never_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIDEMILL_SERVER_URL", raising=False)
    monkeypatch.setenv("MODAL_SERVER_URL", "https://api.modal.com")
    assert config["server_url"] == ""


def test_flags_and_numbers_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODAL_FORCE_BUILD", "true")
    monkeypatch.setenv("TIDEMILL_LOGS_TIMEOUT", "2.5")
    assert config["force_build"] is True
    assert config["logs_timeout"] == 2.5


@pytest.mark.parametrize(
    ("name", "text"),
    [("MODAL_FORCE_BUILD", "maybe"), ("TIDEMILL_LOGS_TIMEOUT", "long"), ("TIDEMILL_LOGS_TIMEOUT", "-1")],
)
def test_what_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(InvalidError, match=name):
        config.get(name.partition("_")[2].lower())


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_TOKEN_ID", "ak-local-1")
    monkeypatch.setenv("TIDEMILL_TOKEN_SECRET", "hunter2")
    assert "hunter2" not in repr(config)
    assert config["token_secret"] == "hunter2"


@pytest.mark.parametrize("name", ["TIDEMILL_TOKEN_ID", "TIDEMILL_TOKEN_SECRET"])
def test_half_a_token_does_not_go_with_the_half_of_another(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for variable in ("TIDEMILL_TOKEN_ID", "TIDEMILL_TOKEN_SECRET"):
        monkeypatch.delenv(variable, raising=False)
    assert config["token_id"] == config["token_secret"] == ""
    monkeypatch.setenv(name, "half")
    for setting in ("token_id", "token_secret"):
        with pytest.raises(InvalidError, match=f"{name} is set"):
            config.get(setting)


def test_unknown_settings_are_none_or_an_error() -> None:
    assert config.get("nonsense") is None
    with pytest.raises(KeyError):
        config["nonsense"]
