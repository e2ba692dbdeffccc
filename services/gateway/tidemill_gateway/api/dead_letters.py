"""Inputs that were given up: listed, looked at, tried again."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import Field

from tidemill._wire import calls as wire
from tidemill._wire.messages import Try
from tidemill_gateway.api.answering import Cursor, Limit, OfApp, OfFunction, Requester, show, show_page
from tidemill_gateway.api.models import Page, fields_of, moment

router = APIRouter(tags=["dead letters"])

InputRef = Annotated[str, Path(pattern=r"^in-[0-9a-z]{1,60}-[0-9]{1,10}$", description="an input's id")]


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that did not finish its input."""

    attempt: int
    container: str
    started: datetime | None
    finished: datetime | None
    reason: str

    @classmethod
    def of(cls, tried: Try) -> "Attempt":
        """Return it as it is shown."""
        return cls(
            attempt=tried.attempt,
            container=tried.container,
            started=moment(tried.started) if tried.started else None,
            finished=moment(tried.finished) if tried.finished else None,
            reason=tried.reason,
        )


@dataclass(frozen=True, slots=True)
class Dead:
    """An input that was given up. One that is not `readable` cannot be replayed."""

    id: str
    call: str
    index: int
    app_id: str
    function: str
    pool: str
    reason: str
    given_up: datetime
    attempts: int
    readable: bool
    replayed_as: Annotated[str, Field(description="the call that tried it again, if one did")]

    @classmethod
    def of(cls, info: wire.DeadInfo) -> "Dead":
        """Return it as it is shown."""
        return cls(
            id=info.input_id,
            call=info.call,
            index=info.index,
            app_id=info.app_id,
            function=info.function,
            pool=info.pool,
            reason=info.reason,
            given_up=moment(info.time),
            attempts=info.attempts,
            readable=info.readable,
            replayed_as=info.replayed_as,
        )


@dataclass(frozen=True, slots=True)
class DeadLetter(Dead):
    """A dead letter with its earlier attempts and the traceback of the last failure."""

    tries: list[Attempt]
    traceback: str
    size: Annotated[int, Field(description="bytes of its arguments")]


@dataclass(frozen=True, slots=True)
class Replayed:
    """The call that an input runs in again; `again` where an earlier request had started it."""

    call: str
    url: str
    again: bool


@router.get("/dead-letters", response_model=Page[Dead])
async def list_dead_letters(
    request: Request,
    requester: Requester,
    app: OfApp = "",
    function: OfFunction = "",
    limit: Limit = 100,
    cursor: Cursor = "",
) -> Response:
    """List what was given up in the last 30 days, newest first."""
    wanted = wire.ListDead(app, function, limit, _opened(cursor))
    found = await requester.page("list_dead", wanted, wire.DeadList, cursor)
    return show_page(request, [Dead.of(info) for info in found.letters], _closed(found.next))


@router.get("/dead-letters/{input}", response_model=DeadLetter)
async def get_dead_letter(request: Request, requester: Requester, input: InputRef) -> Response:  # noqa: A002
    """Show why an input was given up."""
    found = await requester.registry("get_dead", wire.GetDead(input), wire.DeadDetails)
    letter = DeadLetter(
        **fields_of(Dead.of(found.letter)),
        tries=[Attempt.of(tried) for tried in found.tries],
        traceback=found.traceback,
        size=found.size,
    )
    return show(request, letter)


@router.post("/dead-letters/{input}/replay", response_model=Replayed)
async def replay_dead_letter(requester: Requester, input: InputRef) -> Replayed:  # noqa: A002
    """Run an input again with the present code of its function: once, however often this is asked for."""
    done = await requester.registry("replay_dead", wire.ReplayDead(input), wire.Replayed)
    return Replayed(done.call, f"/api/v1/calls/{done.call}", done.again)


def _closed(position: str) -> str:
    """Return a cursor of the registry as it can stand in an address."""
    return position.encode().hex()


def _opened(cursor: str) -> str:
    try:
        return bytes.fromhex(cursor).decode()
    except ValueError:
        return cursor  # the registry refuses it
