"""The key that a stack's secrets are encrypted with."""

import base64
import stat
from pathlib import Path

from tidemill_local.folders import Folders


def test_a_stack_makes_its_key_once_for_nobody_else_to_read(tmp_path: Path) -> None:
    folders = Folders(tmp_path, temporary=False)
    file = folders.secrets_key()
    made = file.read_text()
    assert len(base64.b64decode(made)) == 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert folders.secrets_key().read_text() == made


def test_a_key_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "secrets.key").write_text("damaged")
    assert Folders(tmp_path, temporary=False).secrets_key().read_text() == "damaged"


def test_every_stack_has_a_key_of_its_own(tmp_path: Path) -> None:
    keys = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        keys.add(Folders(tmp_path / name, temporary=True).secrets_key().read_text())
    assert len(keys) == 2
