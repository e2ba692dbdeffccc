"""The bodies of calls: JSON that is passed on as it is, unread but for its outermost names."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec
from fastapi import Request

from tidemill import exception
from tidemill_gateway.api.call_models import MAX_INPUTS
from tidemill_gateway.edge import MAX_BODY
from tidemill_gateway.problems import Problem

MAX_CALL_BODY = 64 << 20  # bytes
LARGE_AT_ONCE = 8  # bodies above MAX_BODY that are in memory at the same time
PATIENCE = 5.0  # seconds for which another one waits for its turn


class CallBody(NamedTuple):
    """A call's inputs as JSON, each `[[...], {...}]`; `many` when the client sent a list of them."""

    raw: bytes
    inputs: list[bytes]
    many: bool


class _Arguments(msgspec.Struct, forbid_unknown_fields=True):
    args: msgspec.Raw = msgspec.Raw(b"[]")
    kwargs: msgspec.Raw = msgspec.Raw(b"{}")


class _NewCall(_Arguments, forbid_unknown_fields=True):
    inputs: list[_Arguments] | None = None


_decoder = msgspec.json.Decoder(_NewCall)


class Bodies:
    """Reads bodies of calls, of which few large ones are in memory at the same time."""

    def __init__(self) -> None:
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[CallBody]:
        """Read a request's body; what it holds may be used within the context. Raises `Problem`."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Problem(415, "unsupported_media_type", "the body has to be application/json")
        if _size(request) <= MAX_BODY:
            yield _parsed(await request.body())
            return
        try:
            async with asyncio.timeout(PATIENCE):
                await self._large.acquire()
        except TimeoutError:
            raise exception.ResourceExhaustedError("too many large requests at once") from None
        try:
            request.state.max_body = MAX_CALL_BODY
            yield _parsed(await request.body())
        finally:
            self._large.release()


def _size(request: Request) -> int:
    """Return the size that a body is said to have; one that comes in chunks may be large."""
    said = request.headers.get("content-length", "")
    return int(said) if said.isdecimal() else MAX_CALL_BODY


def _parsed(raw: bytes) -> CallBody:
    try:
        raw.decode()
        call = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(422, "invalid", f"the body is not a call: {error}") from error
    if call.inputs is None:
        return CallBody(raw, [_joined(call)], many=False)
    if not 1 <= len(call.inputs) <= MAX_INPUTS:
        raise Problem(422, "invalid", f"a call has between 1 and {MAX_INPUTS:,} inputs")
    if bytes(call.args) != b"[]" or bytes(call.kwargs) != b"{}":
        raise Problem(422, "invalid", "give either `inputs` or `args` and `kwargs`")
    return CallBody(raw, [_joined(each) for each in call.inputs], many=True)


def _joined(arguments: _Arguments) -> bytes:
    args, kwargs = bytes(arguments.args), bytes(arguments.kwargs)
    if not args.startswith(b"["):
        raise Problem(422, "invalid", "`args` has to be an array")
    if not kwargs.startswith(b"{"):
        raise Problem(422, "invalid", "`kwargs` has to be an object")
    return b"[%b,%b]" % (args, kwargs)
