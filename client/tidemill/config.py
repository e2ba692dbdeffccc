"""Settings from the environment: `TIDEMILL_<NAME>`, and `MODAL_<NAME>` where Modal has the same setting."""

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tidemill.exception import InvalidError

MIN_PAYLOAD_LIMIT, MAX_PAYLOAD_LIMIT = 64 << 10, 4 << 30


def _flag(text: str) -> bool:
    value = text.strip().lower()
    if value in ("1", "true", "yes", "on"):
        return True
    if value in ("", "0", "false", "no", "off"):
        return False
    raise ValueError("is neither true nor false")


def _payload_limit(text: str) -> int:
    limit = int(text)
    if not MIN_PAYLOAD_LIMIT <= limit <= MAX_PAYLOAD_LIMIT:
        raise ValueError(f"it has to be between {MIN_PAYLOAD_LIMIT:,} and {MAX_PAYLOAD_LIMIT:,} bytes")
    return limit


class _Setting(NamedTuple):
    default: Any
    read: Callable[[str], Any]
    as_modal: bool = False  # whether MODAL_<NAME> is read too


# What concerns a server of Modal's (its URL, tokens) is never read from MODAL_... variables.
_SETTINGS: Mapping[str, _Setting] = {
    "server_url": _Setting("", str),
    "token_id": _Setting("", str),
    "token_secret": _Setting("", str),
    "home": _Setting("~/.tidemill", str),
    "environment": _Setting("main", str, as_modal=True),
    "loglevel": _Setting("WARNING", str.upper, as_modal=True),
    "logs_timeout": _Setting(10.0, float, as_modal=True),  # seconds to wait for the last output of a run
    "heartbeat_interval": _Setting(15.0, float),  # seconds between signs of life of a running app
    "force_build": _Setting(False, _flag, as_modal=True),
    "max_payload": _Setting(MAX_PAYLOAD_LIMIT, _payload_limit),  # bytes of arguments or of a result
}


class Config:
    """The settings of this process. The environment is read at each look, so that tests can change it."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return a setting, or `default` where it is not set.

        Raises:
            InvalidError: the environment has something that cannot be its value.
        """
        setting = _SETTINGS.get(key)
        if setting is None:
            return default
        for name in self._variables(key, setting):
            text = os.environ.get(name)
            if text is not None and text != "":
                return _read(name, setting, text)
        return setting.default if default is None else default

    def __getitem__(self, key: str) -> Any:
        if key not in _SETTINGS:
            raise KeyError(key)
        return self.get(key)

    def to_dict(self) -> dict[str, Any]:
        """Return all settings; the secret ones are masked."""
        values = {key: self.get(key) for key in _SETTINGS}
        return {key: "***" if key == "token_secret" and value else value for key, value in values.items()}

    def __repr__(self) -> str:
        return repr(self.to_dict())

    @staticmethod
    def _variables(key: str, setting: _Setting) -> list[str]:
        prefixes = ("TIDEMILL_", "MODAL_") if setting.as_modal else ("TIDEMILL_",)
        return [prefix + key.upper() for prefix in prefixes]


def _read(name: str, setting: _Setting, text: str) -> Any:
    try:
        return setting.read(text)
    except ValueError as error:
        raise InvalidError(f"{name}={text!r} cannot be read: {error}") from error


config = Config()
