"""Endpoints: what reaches a handler, and what a requester is told."""

from collections.abc import Awaitable, Callable

import pytest
import structlog
from prometheus_client import CollectorRegistry

from tidemill import exception
from tidemill._bus.protocol import Message, RequestFailed
from tidemill._wire import coding, errors
from tidemill._wire.apps import AppHeartbeat
from tidemill._wire.control import Done
from tidemill_common.requests import REQUEST_INFO, Endpoints, asked_by, signature

REQUEST = coding.encode(AppHeartbeat("ap-1"))


def endpoint(
    handler: Callable[[str, AppHeartbeat], Awaitable[object]], registry: CollectorRegistry | None = None
) -> Callable[[bytes], Awaitable[bytes]]:
    made = Endpoints(structlog.get_logger(), registry or CollectorRegistry())
    served = made.endpoint("heartbeat", AppHeartbeat, handler)
    return lambda data: served(Message("tm.registry.main.heartbeat", data, "", {}))


async def done(workspace: str, request: AppHeartbeat) -> Done:
    return Done()


async def refused(endpoint: Callable[[bytes], Awaitable[bytes]], data: bytes = REQUEST) -> RequestFailed:
    with pytest.raises(RequestFailed) as caught:
        await endpoint(data)
    return caught.value


async def test_a_handler_gets_the_typed_request_and_its_answer_is_encoded() -> None:
    async def answer(workspace: str, request: AppHeartbeat) -> AppHeartbeat:
        return AppHeartbeat(request.app_id + "!")

    assert coding.decode(AppHeartbeat, await endpoint(answer)(REQUEST)) == AppHeartbeat("ap-1!")


DEEP = b"\x81\xa4mood" + b"\x91" * 100_000 + b"\x90"


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x93", DEEP, coding.encode({}), coding.encode({"app_id": 7}), REQUEST[:-1]]
)
async def test_what_is_no_request_of_this_kind_is_refused(data: bytes) -> None:
    failure = await refused(endpoint(done), data)
    assert failure.code == "invalid"
    assert "not a valid request" in failure.message


async def test_fields_of_a_later_version_do_no_harm() -> None:
    data = coding.encode({"app_id": "ap-1", "mood": "good"})
    assert coding.decode(Done, await endpoint(done)(data)) == Done()


SIGNED, UNSIGNED = "tm.signed.main.heartbeat", "tm.registry.main.heartbeat"


@pytest.mark.parametrize(
    ("subject", "headers", "who"),
    [
        (SIGNED, signature("ak-1"), "ak-1"),
        (SIGNED, {"nats-request-info": '{"user": "ak-2"}', **signature("ak-1")}, "ak-1"),
        (UNSIGNED, signature("ak-1"), ""),
    ],
)
def test_who_asks_is_told_on_signed_subjects_only(subject: str, headers: dict[str, str], who: str) -> None:
    assert asked_by(Message(subject, REQUEST, "", headers)) == who


@pytest.mark.parametrize("header", [None, "", "{}", '"ak-1"', '{"user": ""}', '{"user": 7}', '["ak-1"]', "{"])
def test_a_member_of_whom_nothing_is_told_is_refused(header: str | None) -> None:
    headers = {} if header is None else {REQUEST_INFO: header}
    with pytest.raises(exception.AuthError):
        asked_by(Message(SIGNED, REQUEST, "", headers))


@pytest.mark.parametrize("code", sorted(errors.CLASSES))
async def test_an_error_of_ours_keeps_its_code_its_words_and_its_hint(code: str) -> None:
    async def fail(workspace: str, request: AppHeartbeat) -> Done:
        raise errors.CLASSES[code]("no", hint="try this")

    failure = await refused(endpoint(fail))
    assert (failure.code, failure.message, failure.hint) == (code, "no", "try this")


async def test_a_crash_of_a_handler_is_told_without_its_details() -> None:
    async def crash(workspace: str, request: AppHeartbeat) -> Done:
        raise RuntimeError("password=hunter2")

    failure = await refused(endpoint(crash))
    assert failure.code == "internal"
    assert "hunter2" not in failure.message
    assert "heartbeat" in failure.message


async def test_requests_are_counted_by_verb_and_outcome() -> None:
    registry = CollectorRegistry()

    async def fail(workspace: str, request: AppHeartbeat) -> Done:
        if request.app_id == "ap-2":
            raise exception.NotFoundError("none")
        return Done()

    served = endpoint(fail, registry)
    await served(REQUEST)
    await refused(served, coding.encode(AppHeartbeat("ap-2")))

    def count(code: str) -> float | None:
        return registry.get_sample_value("tidemill_requests_total", {"verb": "heartbeat", "code": code})

    assert (count("ok"), count("not_found")) == (1, 1)
    assert registry.get_sample_value("tidemill_request_duration_seconds_count", {"verb": "heartbeat"}) == 2
