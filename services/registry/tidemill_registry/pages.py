"""Cursors: where a page of a listing ended, as text that means nothing to whoever carries it."""

import base64
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from tidemill.exception import InvalidError

Cursor = TypeVar("Cursor")
Row = TypeVar("Row")


def after(rows: Sequence[Row], limit: int, cursor: Callable[[Row], tuple[Any, ...]]) -> str:
    """Return the cursor behind a page of which one row more was read, or "" if that was all."""
    if len(rows) <= limit:
        return ""
    packed = msgspec.msgpack.encode(cursor(rows[limit - 1]))
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def read(text: str, kind: type[Cursor]) -> Cursor | None:
    """Return the cursor that a request carries, a named tuple; None for the first page.

    Raises:
        InvalidError: the text is no cursor of this listing.
    """
    if not text:
        return None
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return msgspec.msgpack.decode(packed, type=kind)
    except (ValueError, msgspec.DecodeError) as error:
        raise InvalidError(
            "not a cursor of this listing", hint="begin again without one, or give what a page ended with"
        ) from error
