"""How answers are made: encoded once, tagged, and left out where the client has them already."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, TypeVar

import msgspec
from fastapi import Depends, Query, Request, Response

from tidemill import exception
from tidemill_gateway import decisions
from tidemill_gateway.api.models import Page
from tidemill_gateway.problems import Problem
from tidemill_gateway.sessions import Session

Seen = TypeVar("Seen")
Changed = TypeVar("Changed")

JSON = "application/json"


def _session(request: Request) -> Session:
    session: Session = request.state.session
    return session


Requester = Annotated[Session, Depends(_session)]
Environment = Annotated[str, Query(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="the app's environment")]
OfApp = Annotated[str, Query(pattern=r"^(ap-[A-Za-z0-9]{1,60})?$", description="the id of an app")]
OfFunction = Annotated[str, Query(pattern=r"^[^\x00]{0,256}$", description="a function's name")]
Limit = Annotated[int, Query(ge=1, le=1_000, description="of how many items a page is at most")]
Cursor = Annotated[
    str,
    Query(
        max_length=512,
        pattern=r"^[A-Za-z0-9_=.+/-]*$",
        description="where to go on: `next_cursor` of the page before",
    ),
]


def show(request: Request, shown: object) -> Response:
    """Answer with one thing, or 304 when If-None-Match has it."""
    return _tagged(request, msgspec.json.encode(shown), {})


def show_page(request: Request, items: Sequence[object], cursor: str) -> Response:
    """Answer with a page of a list and a link to the next one."""
    body = msgspec.json.encode(Page(list(items), cursor or None))
    headers = {}
    if cursor:
        path = request.scope["path"]
        headers["Link"] = decisions.next_link(path, request.query_params.multi_items(), cursor)
    return _tagged(request, body, headers)


def seen(request: Request, found: Seen) -> Seen | None:
    """Return what a change is to be made to, for the registry to compare, where If-Match asks for that."""
    return found if "if-match" in request.headers else None


async def change(
    request: Request, order: Awaitable[Changed], read: Callable[[], Awaitable[object]]
) -> Changed:
    """Make a change to what was `seen`; if that has changed meanwhile it is a 412, as it was before.

    `read` returns what is shown of it now.
    """
    try:
        return await order
    except exception.ConflictError:
        check_unchanged(request, await read())
        raise


def check_unchanged(request: Request, shown: object) -> None:
    """Refuse a change whose If-Match does not name the present state. Raises `Problem`."""
    wanted = request.headers.get("if-match")
    if wanted is not None and not decisions.matches(
        wanted, decisions.etag(msgspec.json.encode(shown)), weak=False
    ):
        raise Problem(412, "precondition_failed", "it has changed since", hint="read it again")


def _tagged(request: Request, body: bytes, headers: dict[str, str]) -> Response:
    headers = {**headers, "ETag": decisions.etag(body), "Cache-Control": "private, no-cache"}
    known = request.headers.get("if-none-match")
    if known is not None and decisions.matches(known, headers["ETag"], weak=True):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=JSON)
