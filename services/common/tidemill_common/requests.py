"""Endpoints of micro services: typed requests in, typed answers or clear refusals out."""

import json
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar, get_type_hints

import msgspec
from prometheus_client import Counter, Histogram

from tidemill import exception
from tidemill._bus.protocol import Message, RequestFailed
from tidemill._wire import coding, errors, subjects
from tidemill_common import metrics
from tidemill_common.bus import micro
from tidemill_common.bus.protocol import Endpoint
from tidemill_common.logging import Logger

Request = TypeVar("Request")

REQUEST_INFO = "Nats-Request-Info"  # the header in which the server tells who asks, as JSON


class Endpoints:
    """Makes endpoints out of handlers: checks the request's type, maps errors, counts and times."""

    def __init__(self, log: Logger, registry: metrics.Registry) -> None:
        self._log = log
        self._count = Counter("tidemill_requests", "Requests answered.", ["verb", "code"], registry=registry)
        self._seconds = Histogram(
            "tidemill_request_duration_seconds",
            "Time from a request's arrival to its answer.",
            ["verb"],
            buckets=metrics.REQUEST_SECONDS,
            registry=registry,
        )

    def endpoint(
        self, verb: str, kind: type[Request], handler: Callable[[str, Request], Awaitable[object]]
    ) -> Endpoint:
        """Return an endpoint that hands a workspace and its request of type `kind` to `handler`.

        The workspace is the one in the subject that was asked on: that is what NATS lets nobody else do.
        A handler refuses by raising an error of `tidemill.exception`; anything else it raises is logged
        and told to the requester as an internal error, without details.
        """

        def ask(request: Message, asked: Request) -> Awaitable[object]:
            return handler(_requester(request.subject), asked)

        return self._answering(verb, kind, handler, ask)

    def noted(
        self, verb: str, kind: type[Request], handler: Callable[[str, Request, str], Awaitable[object]]
    ) -> Endpoint:
        """Return an endpoint whose handler is also given the id of the token that asks; else as `endpoint`.

        It is empty for what workers ask for their containers.
        """

        def ask(request: Message, asked: Request) -> Awaitable[object]:
            return handler(_requester(request.subject), asked, asked_by(request))

        return self._answering(verb, kind, handler, ask)

    def internal(
        self, verb: str, kind: type[Request], handler: Callable[[Request], Awaitable[object]]
    ) -> Endpoint:
        """Return an endpoint that only services ask, of no workspace; else as `endpoint`."""
        return self._answering(verb, kind, handler, lambda _, asked: handler(asked))

    def _answering(
        self,
        verb: str,
        kind: type[Request],
        handler: Callable[..., Awaitable[object]],
        ask: Callable[[Message, Request], Awaitable[object]],
    ) -> Endpoint:
        decoder = msgspec.msgpack.Decoder(kind)

        async def answer(request: Message) -> bytes:
            with self._observed(verb):
                return coding.encode(await ask(request, _decoded(decoder, request.data)))

        return micro.Described(answer, lambda: described(kind, handler))

    @contextmanager
    def _observed(self, verb: str) -> Iterator[None]:
        began = time.perf_counter()
        code = "ok"
        try:
            yield
        except exception.Error as error:
            reply = errors.to_reply(error)
            code = reply.code
            raise RequestFailed(reply.code, reply.message, reply.hint) from error
        except Exception as error:
            code = "internal"
            self._log.exception("a request failed", verb=verb)
            raise RequestFailed("internal", f"{verb} failed: {type(error).__name__}") from error
        finally:
            self._count.labels(verb, code).inc()
            self._seconds.labels(verb).observe(time.perf_counter() - began)


def _requester(subject: str) -> str:
    try:
        return subjects.requester(subject)
    except ValueError as error:
        raise exception.InvalidError(str(error)) from error


def asked_by(request: Message) -> str:
    """Return the id of the token that asks, empty where nobody signs; `AuthError` if it cannot be read."""
    if not subjects.is_signed(request.subject):
        return ""
    try:
        user = json.loads(request.headers[REQUEST_INFO])["user"]
    except (KeyError, ValueError, TypeError):
        user = None
    if not isinstance(user, str) or not user:
        raise exception.AuthError(
            "the request does not tell whose it is", hint="send it with headers that can be read, or none"
        )
    return user


def signature(token_id: str) -> dict[str, str]:
    """Return the headers with which the gateway tells for whom it asks."""
    return {REQUEST_INFO: json.dumps({"user": token_id})}


def described(kind: Any, handler: Callable[..., Awaitable[object]]) -> dict[str, str]:
    """Return what `$SRV.INFO` tells of an endpoint: the JSON schemas of what it takes and gives."""
    function = handler.func if isinstance(handler, partial) else handler
    answer = get_type_hints(function).get("return", object)
    return {
        "encoding": "msgpack",
        "request": json.dumps(msgspec.json.schema(kind)),
        "answer": json.dumps(msgspec.json.schema(Any if answer is object else answer)),
    }


def _decoded(decoder: "msgspec.msgpack.Decoder[Any]", data: bytes) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise exception.InvalidError(f"not a valid request: {error}") from error
