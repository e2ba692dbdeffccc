"""Settings come from the environment and are checked."""

import pytest
from pydantic import ValidationError

from tidemill_common.settings import ServiceSettings, load


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ServiceSettings.model_fields:
        monkeypatch.delenv(f"TIDEMILL_{name.upper()}", raising=False)


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_NATS_URL", "nats://broker:4222")
    monkeypatch.setenv("TIDEMILL_NATS_PASSWORD", "hunter2")
    monkeypatch.setenv("TIDEMILL_REPLICAS", "3")
    settings = ServiceSettings()
    assert settings.nats_url == "nats://broker:4222"
    assert settings.nats_password.get_secret_value() == "hunter2"
    assert settings.replicas == 3


def test_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_NATS_PASSWORD", "hunter2")
    assert "hunter2" not in repr(ServiceSettings())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TIDEMILL_HEALTH_PORT", "70000"),
        ("TIDEMILL_LOG_LEVEL", "loud"),
        ("TIDEMILL_REPLICAS", "0"),
        ("TIDEMILL_DRAIN_TIMEOUT", "-1"),
    ],
)
def test_settings_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError):
        ServiceSettings()


def test_a_service_says_which_setting_is_wrong_and_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIDEMILL_HEALTH_PORT", "70000")
    monkeypatch.setenv("TIDEMILL_LOG_LEVEL", "loud")
    with pytest.raises(SystemExit, match="2"):
        load(ServiceSettings)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        ["error", "TIDEMILL_HEALTH_PORT"],
        ["error", "TIDEMILL_LOG_LEVEL"],
    ]
