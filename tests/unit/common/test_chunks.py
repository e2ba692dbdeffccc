"""What callers write into a queue is read as a chunk, or refused with `ValueError` and nothing else."""

from typing import Any

import msgpack
import pytest

from tidemill._wire import subjects
from tidemill_common import chunks

PREFIX = subjects.inputs_prefix("main", "cpu", 0, "po-1")
REPLY = subjects.replies("main", "cl-1")


def packed(**fields: Any) -> bytes:
    chunk = {"call": "fc-1", "indices": [3], "attempt": 0, "reply": REPLY, "inputs": [[1, b""]], "sent": 0.0}
    return bytes(msgpack.packb(list((chunk | fields).values())))


def test_a_chunk_is_read_from_its_own_subject() -> None:
    chunk = chunks.read(subjects.inputs(PREFIX, "fc-1", 3, 0), packed(), "main")
    assert (chunk.call, chunk.indices) == ("fc-1", [3])


@pytest.mark.parametrize(
    "fields",
    [
        {"call": "fc-2"},
        {"call": "a.fc-1"},
        {"call": 1},
        {"indices": [4]},
        {"indices": "3"},
        {"indices": [3, 2**40], "inputs": [[1, b""]] * 2},
        {"indices": [3, -1], "inputs": [[1, b""]] * 2},
        {"inputs": []},
        {"reply": "tm.replies.other.cl-1"},
    ],
    ids=str,
)
def test_what_is_no_chunk_of_its_subject_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of many kinds
        chunks.read(subjects.inputs(PREFIX, "fc-1", 3, 0), packed(**fields), "main")


@pytest.mark.parametrize("rest", ["one", "a=b.0.0", "fc-1.99999999999999.0", "fc-1.-1.0", "fc-1.a.b"])
def test_a_subject_that_can_name_no_input_names_an_unknown_one(rest: str) -> None:
    assert chunks.named(f"{PREFIX}.{rest}") == ("unknown", 0)


@pytest.mark.parametrize("part", ["po\0", "a=b", "", "*", ">"])
def test_a_prefix_with_what_can_be_no_token_is_refused(part: str) -> None:
    prefix = f"{PREFIX.removesuffix('po-1')}{part}"
    with pytest.raises(ValueError, match="not a prefix"):
        subjects.stream_of(prefix)
