"""What the registry is told about the keys for secrets."""

from pathlib import Path

import pytest

from tidemill_common.settings import load
from tidemill_registry.cipher import new_key
from tidemill_registry.settings import RegistrySettings


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_DATABASE_URL", "postgresql+asyncpg://x")


def test_keys_come_from_a_setting_or_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert load(RegistrySettings).keyring().ids == ()
    first, second = new_key(), new_key()
    monkeypatch.setenv("TIDEMILL_SECRETS_KEY", f"{first},{second}")
    from_setting = load(RegistrySettings).keyring().ids
    file = tmp_path / "secrets.key"
    file.write_text(f"{first}\n{second}\n")
    monkeypatch.setenv("TIDEMILL_SECRETS_KEY", "")
    monkeypatch.setenv("TIDEMILL_SECRETS_KEY_FILE", str(file))
    assert load(RegistrySettings).keyring().ids == from_setting
    assert len(from_setting) == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"TIDEMILL_SECRETS_KEY": "dGhpcyBpcyBubyBrZXk="}, "TIDEMILL_SECRETS_KEY: Value error, key 1 has 14"),
        ({"TIDEMILL_SECRETS_KEY_FILE": "/nowhere/secrets.key"}, "cannot read the keys for secrets"),
        ({"TIDEMILL_SECRETS_KEY_FILE": "/dev/null"}, "there is no key in /dev/null"),
    ],
)
def test_what_is_no_key_ends_the_registry_with_a_word_about_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: dict[str, str], words: str
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as caught:
        load(RegistrySettings)
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert words in told
    assert settings.get("TIDEMILL_SECRETS_KEY", "-----") not in told


def test_two_sources_of_keys_are_one_too_many(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "secrets.key"
    file.write_text(new_key())
    monkeypatch.setenv("TIDEMILL_SECRETS_KEY", new_key())
    monkeypatch.setenv("TIDEMILL_SECRETS_KEY_FILE", str(file))
    with pytest.raises(SystemExit):
        load(RegistrySettings)
    assert "not both" in capsys.readouterr().err
