"""Settings: from the environment, else from the active profile of the configuration file, else defaults.

`TIDEMILL_<NAME>` wins over `MODAL_<NAME>`, which is read where Modal has the same setting, and both over
the file (`tidemill._profiles`). A container has no file: it belongs to the environment that it runs in.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tidemill import _runtime
from tidemill.exception import InvalidError

MIN_PAYLOAD_LIMIT, MAX_PAYLOAD_LIMIT = 64 << 10, 4 << 30


def _flag(text: str) -> bool:
    value = text.strip().lower()
    if value in ("1", "true", "yes", "on"):
        return True
    if value in ("", "0", "false", "no", "off"):
        return False
    raise ValueError("is neither true nor false")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise ValueError("it has to be a number of seconds")
    return seconds


def _payload_limit(text: str) -> int:
    limit = int(text)
    if not MIN_PAYLOAD_LIMIT <= limit <= MAX_PAYLOAD_LIMIT:
        raise ValueError(f"it has to be between {MIN_PAYLOAD_LIMIT:,} and {MAX_PAYLOAD_LIMIT:,} bytes")
    return limit


class _Setting(NamedTuple):
    default: Any
    read: Callable[[str], Any]
    as_modal: bool = False  # whether MODAL_<NAME> is read too
    in_profile: bool = True  # whether a profile may have it


# What concerns a server of Modal's (its URL, tokens) is never read from MODAL_... variables.
_SETTINGS: Mapping[str, _Setting] = {
    "server_url": _Setting("", str),
    "token_id": _Setting("", str),
    "token_secret": _Setting("", str),
    "home": _Setting("~/.tidemill", str, in_profile=False),
    "environment": _Setting("main", str, as_modal=True),
    "loglevel": _Setting("WARNING", str.upper, as_modal=True),
    "logs_timeout": _Setting(10.0, _seconds, as_modal=True),  # seconds to wait for the last output of a run
    "heartbeat_interval": _Setting(15.0, float),  # seconds between signs of life of a running app
    "force_build": _Setting(False, _flag, as_modal=True),
    "max_payload": _Setting(MAX_PAYLOAD_LIMIT, _payload_limit),  # bytes of arguments or of a result
}
_REDACTED = ("token_secret",)
_TOKEN = ("token_id", "token_secret")
_SERVER = ("server_url", *_TOKEN)


class Config:
    """The settings of this process. Environment and file are read at each look."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return a setting, or `default` where it is not set.

        Raises:
            InvalidError: the environment or the file has something that cannot be its value.
        """
        setting = _SETTINGS.get(key)
        if setting is None:
            return default
        if key in _TOKEN:
            _check_token()
        for name in self._variables(key, setting):
            text = os.environ.get(name)
            if text is not None and text != "":
                return _read(f"{name}={text!r}", setting, text)
        profile = self._profile(key, setting)
        if key in profile:
            return _read(f"{key} = {profile[key]!r} in the configuration file", setting, profile[key])
        return setting.default if default is None else default

    def __getitem__(self, key: str) -> Any:
        if key not in _SETTINGS:
            raise KeyError(key)
        return self.get(key)

    def to_dict(self, *, redact: bool = True) -> dict[str, Any]:
        """Return all settings; the secret ones are masked unless `redact` is False."""
        values = {key: self.get(key) for key in _SETTINGS}
        return {
            key: "***" if redact and key in _REDACTED and value else value for key, value in values.items()
        }

    def __repr__(self) -> str:
        return repr(self.to_dict())

    @staticmethod
    def _profile(key: str, setting: _Setting) -> Mapping[str, Any]:
        """Return the profile to read a setting from; an empty one where none may be read."""
        if not setting.in_profile or not _runtime.is_local():
            return {}
        if key in _SERVER and os.environ.get("TIDEMILL_SERVER_URL"):
            return {}  # the token of one server is not shown to another
        from tidemill import _profiles

        return _profiles.active().settings

    @staticmethod
    def _variables(key: str, setting: _Setting) -> list[str]:
        prefixes = ("TIDEMILL_", "MODAL_") if setting.as_modal else ("TIDEMILL_",)
        return [prefix + key.upper() for prefix in prefixes]


def _check_token() -> None:
    """Refuse half a token: the id of one would go with the secret of another."""
    missing = [f"TIDEMILL_{key.upper()}" for key in _TOKEN if not os.environ.get(f"TIDEMILL_{key.upper()}")]
    if len(missing) == 1:
        given = next(f"TIDEMILL_{key.upper()}" for key in _TOKEN if f"TIDEMILL_{key.upper()}" not in missing)
        raise InvalidError(
            f"{given} is set, {missing[0]} is not",
            hint="set both, or neither to use the token of the profile or of the stack on this machine",
        )


def _read(shown: str, setting: _Setting, value: Any) -> Any:
    if type(value) is int and type(setting.default) is float:
        return float(value)
    if type(value) is type(setting.default) and not isinstance(value, str):
        return value
    try:
        return setting.read(value)
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidError(f"{shown} cannot be read: {error}") from error


config = Config()


def environment(given: str | None = None) -> str:
    """Return the environment that is meant: the given one, else the container's, else the configured one."""
    if given:
        return given
    if _runtime.container is not None:
        return _runtime.container.environment
    name: str = config["environment"]
    return name
