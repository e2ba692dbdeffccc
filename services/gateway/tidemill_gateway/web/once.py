"""Requests with an `Idempotency-Key`: run once, and answered alike to whoever comes with the key.

They are kept calls: the response is stored for as long as results are, and a client that has gone cancels
nothing, so that the same request, sent again, finds what became of the first one. That holds over gateways
and their ends too.
"""

import asyncio
import hashlib
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive, Scope, Send

from tidemill._outcome import Outcome
from tidemill._wire.messages import Format, Status
from tidemill_gateway import calling, decisions
from tidemill_gateway.problems import Problem
from tidemill_gateway.sessions import Session
from tidemill_gateway.web import calls
from tidemill_gateway.web.http import answered, body_in_time, fields
from tidemill_gateway.web.routes import Target

NAME = b"idempotency-key"
MAX_BODY = 1 << 20  # bytes of a request that is kept


def key_of(scope: Scope) -> str | None:
    """Return the key that a request is to be run once under, None where it says nothing of the kind.

    Raises `Problem`: the key cannot be one.
    """
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    found = next((value for name, value in scope["headers"] if name == NAME), None)
    if found is None:
        return None
    if not 0 < len(found) <= decisions.MAX_KEY:
        raise Problem(400, "invalid", f"an Idempotency-Key has 1 to {decisions.MAX_KEY} characters")
    return str(found.decode("latin-1"))


async def serve(
    session: Session, target: Target, key: str, root_path: str, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer a request that is run once. Raises `Problem`, `Error` as long as nothing was answered."""
    body = await _body(receive)
    request = fields(scope, root_path, body, more=False)._replace(keep=True)
    payload = calls.encode(request)
    async with session.broker.needed():  # what is queued all the same is found by whoever comes again
        started = await calling.start(
            session, target.handle, [payload], key, _digest(scope, body), form=Format.HTTP
        )
    limit = target.route.startup_timeout + target.route.timeout
    outcome = await _outcome(calling.results(session, started.record, limit), receive)
    if outcome is None:
        return  # nobody is there any more
    if outcome.status != Status.SUCCESS or outcome.format != Format.HTTP:
        raise calls.of_failure(outcome)
    status, headers, content, _ = calls.response(outcome.data)
    kept = answered(headers)
    if started.repeated:
        kept.append((b"idempotency-replayed", b"true"))
    await send({"type": "http.response.start", "status": status, "headers": kept})
    await send({"type": "http.response.body", "body": content})


def _digest(scope: Scope, body: bytes) -> str:
    """Return what two requests with the same key must have in common."""
    kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    parts = (scope["raw_path"], scope["query_string"], kind, body)
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


async def _body(receive: Receive) -> bytes:
    pieces, size, more = [], 0, True
    async with body_in_time():
        while more:
            message = await receive()
            if message["type"] != "http.request":
                raise Problem(400, "invalid", "the body broke off")
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            more = message.get("more_body", False)
            if size > MAX_BODY:
                detail = f"a request with an Idempotency-Key has at most {MAX_BODY:,} bytes"
                raise Problem(413, "too_large", detail)
    return b"".join(pieces)


async def _outcome(reading: Coroutine[Any, Any, list[Outcome] | None], receive: Receive) -> Outcome | None:
    """Return what a request came to, or None when its client has gone. Raises `Problem`."""
    read, gone = asyncio.ensure_future(reading), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((read, gone), return_when=asyncio.FIRST_COMPLETED)
        if not read.done():
            return None
        outcomes = read.result()
    finally:
        read.cancel()
        gone.cancel()
        await asyncio.gather(read, gone, return_exceptions=True)
    if outcomes is None:
        raise Problem(504, "timeout", "no container has answered in time")
    return outcomes[0]


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
