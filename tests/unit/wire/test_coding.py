"""Messages survive their journey, and what is none is refused."""

import msgspec
import pytest

from tidemill._wire import apps, coding, control, errors, ids, specs, subjects
from tidemill._wire.messages import Blob, Chunk, Output, Outputs, Payload

CHUNK = Chunk(
    "fc-1", [0, 1], 0, "tm.replies.main.cl-1", [Payload(1, b"x"), Payload(2, Blob("aa", "n", 5, 1))], 1.5
)
SPEC = specs.FunctionSpec(
    "f",
    specs.Source(("digest",), "hello", "f"),
    specs.ImageSpec((("debian_slim", {"python_version": "3.11"}),)),
    resources=specs.Resources(gpus=(("H100", 2),)),
    labels={"region": ("eu", "us")},
)
MESSAGES = [
    CHUNK,
    Outputs("fc-1", 0, [Output(0, 0, Payload(1, b"y")), Output(1, 4, Payload(1, b"z"), 3)], 0.25),
    SPEC,
    apps.FunctionsPublished({"f": control.FunctionHandle("fu-1", "f", "ap-1", "po-1", "tm.inputs.cpu.0")}),
    specs.Pool("po-1", "ap-1", "a", "fu-1", "w", "main", "cpu", 0, "INPUTS_cpu_0", "p", SPEC),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_equal(message: object) -> None:
    assert coding.decode(type(message), coding.encode(message)) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_services_that_check_types_read_the_same(message: object) -> None:
    decoded = msgspec.msgpack.decode(coding.encode(message), type=type(message))
    assert decoded == message


@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x01", b"\x91\x01", b"\x81\xa1a\x01", b"junk"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a"):
        coding.decode(apps.CreateApp, data)


def test_unknown_fields_of_a_newer_version_are_passed_over() -> None:
    data = msgspec.msgpack.encode({"app_id": "ap-1", "added later": 1})
    assert coding.decode(apps.AppHeartbeat, data) == apps.AppHeartbeat("ap-1")


def test_an_input_subject_is_parsed_as_it_was_built() -> None:
    prefix = subjects.inputs_prefix("main", "gpu-h100+gpu-a100", 3, "po-1")
    parsed = subjects.parse_inputs(subjects.inputs(prefix, "fc-1", 7, 2))
    assert parsed == ("gpu", 3, "main", "gpu-h100+gpu-a100", "po-1", "fc-1", 7, 2)


@pytest.mark.parametrize("bad", ["", "a.b", "a b", "*", ">", "a\r\nPUB x", "x" * 129])
def test_no_foreign_text_becomes_part_of_a_subject(bad: str) -> None:
    with pytest.raises(ValueError, match="not a subject token"):
        subjects.replies("main", bad)


@pytest.mark.parametrize("bad", ["", "Main", "a.b", "-a", "a_b", "*", ">", "a\n", "x" * 33])
def test_a_workspace_is_named_by_a_slug(bad: str) -> None:
    with pytest.raises(ValueError, match="not the name of a workspace"):
        subjects.demand(bad, "po-1")


@pytest.mark.parametrize("workspace", ["a", "my-team", "0-0", "x" * 32])
def test_the_id_of_a_token_names_its_workspace(workspace: str) -> None:
    assert ids.workspace_of_token(ids.new_token(workspace)) == workspace


@pytest.mark.parametrize(
    "bad", ["", "client", "ak-main", "ak-Main-" + "0" * 26, "ak--" + "0" * 26, "ak-a.b-" + "0" * 26]
)
def test_what_is_not_the_id_of_a_token_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="not the id of a token"):
        ids.workspace_of_token(bad)


@pytest.mark.parametrize(
    ("subject", "allowed"),
    [
        ("tm.replies.main.cl-1", True),
        ("tm.replies.other.cl-1", False),
        ("tm.replies.main.cl-1.more", False),
        ("tm.replies.main.*", False),
        ("tm.results.main.cl-1", False),
        ("tm.replies.main.", False),
    ],
)
def test_outputs_are_sent_to_callers_of_the_same_workspace_only(subject: str, allowed: bool) -> None:
    assert subjects.is_reply("main", subject) is allowed


def test_ids_sort_by_time_and_fit_a_token() -> None:
    made = [ids.new(ids.CALL) for _ in range(100)]
    assert len(set(made)) == 100
    assert all(subjects.token(one) == one and len(one) == 29 for one in made)


def test_every_error_code_gives_its_class_back() -> None:
    for code, kind in errors.CLASSES.items():
        reply = errors.to_reply(kind("message", hint="do this"))
        assert (reply.code, reply.message, reply.hint) == (code, "message", "do this")
        assert type(errors.to_exception(reply)) is kind
