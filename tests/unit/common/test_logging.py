"""Logs: one JSON object per line, whoever wrote it."""

import json
import subprocess
import sys
from datetime import datetime
from typing import Any

PROGRAM = """
import logging as standard
from tidemill_common import logging
from tidemill_common.settings import ServiceSettings
log = logging.configure("probe", "1.2.3", ServiceSettings())
log.info("began", port=7)
log.debug("quiet")
standard.getLogger("library").warning("beware of %s", "dog")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("failed")
"""


def lines(**environment: str) -> list[str]:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stderr == ""
    return result.stdout.splitlines()


def records(**environment: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(**environment)]


def test_each_line_is_an_object_with_time_level_and_service() -> None:
    began = records()[0]
    assert (
        began.items()
        >= {"msg": "began", "level": "info", "port": 7, "service": "probe", "version": "1.2.3"}.items()
    )
    assert began["time"].endswith("Z")
    assert datetime.fromisoformat(began["time"]).utcoffset() is not None


def test_libraries_that_use_the_standard_logging_come_out_alike() -> None:
    record = records()[1]
    assert record.items() >= {"msg": "beware of dog", "level": "warning", "logger": "library"}.items()
    assert "time" in record


def test_an_exception_stays_within_its_line() -> None:
    record = records()[-1]
    assert record["msg"] == "failed"
    assert "ZeroDivisionError" in record["exception"]


def test_the_level_decides_what_is_said() -> None:
    assert "quiet" in [record["msg"] for record in records(TIDEMILL_LOG_LEVEL="debug")]
    assert "began" not in [record["msg"] for record in records(TIDEMILL_LOG_LEVEL="error")]


def test_the_console_format_is_for_people() -> None:
    text = "\n".join(lines(TIDEMILL_LOG_FORMAT="console"))
    assert "began" in text
    assert "ZeroDivisionError" in text
    assert "{" not in lines(TIDEMILL_LOG_FORMAT="console")[0]
