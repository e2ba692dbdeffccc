"""How a client finds a stack on its machine, and what it says when there can be none."""

import fcntl
import json
import os
import sys
from pathlib import Path

import pytest

from tidemill import _stack, exception
from tidemill._stack import PartInfo, StackInfo

INFO = StackInfo(
    server_url="nats://127.0.0.1:4222",
    token_id="client",
    token_secret="secret",
    gateway_url="http://127.0.0.1:8000",
    pid=1,
    folder="/somewhere",
    parts=(PartInfo("nats", 2, "nats://127.0.0.1:4222", "2.15", "/somewhere/nats.log", "serving"),),
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path))
    return tmp_path


def hold_lock(home: Path) -> int:
    descriptor = os.open(home / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def test_a_record_is_read_as_it_was_written() -> None:
    assert StackInfo.from_json(INFO.to_json()) == INFO


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 2}', json.dumps({"version": 1, "parts": []}), '{"version": 1}']
)
def test_another_record_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        StackInfo.from_json(text)


def test_nothing_is_found_where_nothing_was_started() -> None:
    assert _stack.find() is None
    assert not _stack.is_running()
    assert not _stack.stop_lasting()


def test_a_running_stack_is_found(home: Path) -> None:
    descriptor = hold_lock(home)
    assert _stack.find() is None  # it has not told anything yet
    (home / "stack.json").write_text(INFO.to_json())
    assert _stack.find() == INFO
    os.close(descriptor)


def test_what_a_dead_stack_told_is_not_believed(home: Path) -> None:
    os.close(hold_lock(home))
    (home / "stack.json").write_text(INFO.to_json())
    assert _stack.find() is None


def test_looking_does_not_take_the_lock_away(home: Path) -> None:
    descriptor = hold_lock(home)
    assert _stack.is_running()
    assert _stack.is_running()
    os.close(descriptor)
    assert not _stack.is_running()


def test_missing_packages_are_told_with_the_command_that_installs_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "msgspec", None)
    with pytest.raises(exception.ConnectionError, match="not installed") as caught:
        _stack.start_temporary()
    assert "pip install 'tidemill[local]'" in caught.value.hint
