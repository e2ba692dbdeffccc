"""Everything that goes wrong over HTTP, as a problem document (RFC 9457)."""

from typing import Any

import msgspec
from fastapi import HTTPException, Response

from tidemill import exception
from tidemill._outcome import Outcome
from tidemill._wire import errors, failure
from tidemill._wire.messages import Status
from tidemill_gateway.decisions import STATUSES

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = "1"  # seconds

TITLES = {
    400: "Bad request", 401: "Not authenticated", 403: "Not allowed", 404: "Not found",
    405: "Method not allowed", 406: "Not acceptable", 408: "Request timeout", 409: "Conflict",
    412: "Precondition failed", 413: "Content too large", 415: "Unsupported media type",
    422: "Cannot be processed", 424: "The function failed", 429: "Too many requests", 500: "Internal error",
    501: "Not implemented", 502: "Bad answer of a service", 503: "Not available for now", 504: "Timeout",
}  # fmt: skip


class Problem(HTTPException):
    """Ends a request with a problem document. `code` names the kind; `members` are further fields."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        hint: str = "",
        headers: dict[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(status, detail, headers)
        self.body = {
            "type": f"urn:tidemill:problem:{code.replace('_', '-')}",
            "title": TITLES.get(status, "Error"),
            "status": status,
            "detail": detail,
            "code": code,
            **({"hint": hint} if hint else {}),
            **members,
        }


def of_error(error: exception.Error) -> Problem:
    """Return an error of ours as a problem."""
    if isinstance(error, exception.OutputExpiredError):
        return Problem(404, "not_found", str(error), hint=error.hint)
    if isinstance(error, exception.ConnectionError):
        return unreachable()
    if isinstance(error, exception.RequestSizeError):
        return Problem(413, "too_large", str(error), hint=error.hint)
    code = errors.to_reply(error).code
    status = STATUSES[code]
    return Problem(status, code, str(error), hint=error.hint, headers=_later(status))


def unreachable() -> Problem:
    """Return what is said while there is no connection to the broker."""
    return Problem(503, "service", "the message broker cannot be reached", headers=_later(503))


def of_outcome(outcome: Outcome, index: int, headers: dict[str, str]) -> Problem:
    """Return an input that ended without a value as a problem: what it raised, and where."""
    if outcome.status == Status.CANCELLED:
        return Problem(424, "cancelled", "the input was cancelled", headers=headers, index=index)
    try:
        told = failure.summary(outcome.data)
    except ValueError:
        detail = "the function failed, and its failure cannot be read"
        return Problem(424, "function_failed", detail, headers=headers, index=index)
    members: dict[str, Any] = {
        "index": index,
        "exception": {"type": told.type, "module": told.module, "message": told.message},
        "traceback": told.traceback,
    }
    if told.kind == exception.SerializationError.__name__:
        return Problem(422, "not_representable", told.message, headers=headers, **members)
    code = "function_timeout" if outcome.status == Status.TIMEOUT else "function_failed"
    detail = f"{told.type}: {told.message}" if told.message else told.type
    return Problem(424, code, detail, headers=headers, **members)


def response(problem: Problem, request_id: str) -> Response:
    """Return the answer to a request."""
    body = msgspec.json.encode({**problem.body, "request_id": request_id})
    return Response(body, problem.status_code, problem.headers, MEDIA_TYPE)


def _later(status: int) -> dict[str, str]:
    if status == 401:
        return {"WWW-Authenticate": 'Bearer realm="tidemill", Basic realm="tidemill"'}
    return {"Retry-After": RETRY_AFTER} if status in (429, 503) else {}
