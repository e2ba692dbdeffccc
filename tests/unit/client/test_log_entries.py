"""Records of output become lines."""

from typing import Any

import click
import pytest

from tidemill._log_entries import Lines, LogEntry, Selection
from tidemill._wire.messages import LogRecord
from tidemill.cli.times import moment, span


def record(text: str, **fields: Any) -> LogRecord:
    values = {"stream": 1, "time": 100.0, "input": "in-1-0", "function": "f", "container": "co-1", **fields}
    return LogRecord(text=text, **values)


def read(*records: LogRecord, functions: dict[str, str] | None = None, **selection: Any) -> list[LogEntry]:
    lines = Lines(Selection("", **selection), functions or {})
    return [*(entry for one in records for entry in lines.add(one, "ap-1")), *lines.rest()]


def test_a_line_in_pieces_is_one_entry_with_the_time_of_its_beginning() -> None:
    one, two = read(record("a li"), record("other\n", container="co-2"), record("ne\n", time=100.5))
    assert (one.message, two.message) == ("other\n", "a line\n")
    assert two.timestamp.timestamp() == 100.0


def test_a_line_that_is_never_ended_comes_when_nothing_more_does() -> None:
    entries = read(record("one\ntwo\nthr"), record("next\n", container="co-2", time=200.0))
    assert [entry.message for entry in entries] == ["one\n", "two\n", "thr", "next\n"]


def test_an_entry_says_where_it_comes_from() -> None:
    (entry,) = read(record("x\n", stream=2), functions={"f": "fu-1"})
    assert (entry.source, entry.object_id) == ("stderr", "co-1")
    assert entry.context_ids == {
        "app_id": "ap-1",
        "function_id": "fu-1",
        "function_name": "f",
        "function_call_id": "fc-1",
        "input_id": "in-1-0",
        "container_id": "co-1",
    }


@pytest.mark.parametrize(
    ("selection", "texts"),
    [
        ({"function": "g"}, ["g\n"]),
        ({"call": "fc-2"}, ["call\n"]),
        ({"call": "fc-"}, []),
        ({"source": "stderr"}, ["bad\n"]),
        ({"search": "al"}, ["call\n"]),
        ({"container": "co-2"}, ["there\n"]),
        ({"since": 150.0}, ["late\n"]),
        ({"until": 150.0}, ["g\n", "call\n", "bad\n", "there\n"]),
    ],
)
def test_only_what_is_wanted_is_read(selection: dict[str, Any], texts: list[str]) -> None:
    records = (
        record("g\n", function="g"),
        record("call\n", input="in-2-0"),
        record("bad\n", stream=2),
        record("there\n", container="co-2"),
        record("late\n", time=200.0),
    )
    assert [entry.message for entry in read(*records, **selection)] == texts


def test_times_are_given_as_ages_or_dates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1_000_000.0)
    assert moment("90s") == 999_910.0
    assert moment("1.5h") == 1_000_000.0 - 5_400
    assert moment("1970-01-02T00:00:00+00:00") == 86_400.0
    with pytest.raises(click.BadParameter, match="not a time"):
        moment("yesterday")
    assert [span(1.0, 1.25), span(1.0, 3.5), span(1.0, 3_661.0), span(None, 1.0)] == [
        "250.0 ms",
        "2.50 s",
        "1:01:00",
        "-",
    ]
