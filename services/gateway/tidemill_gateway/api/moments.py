"""Moments as clients write them: in ISO 8601, and not as the numbers that pydantic would take, too."""

from datetime import datetime
from typing import Annotated

from fastapi import Query
from pydantic import BeforeValidator


def _written_out(value: object) -> object:
    if isinstance(value, str) and value[4:5] != "-":
        raise ValueError("a moment is written as 2026-01-31T12:00:00Z")
    return value


Moment = Annotated[datetime, BeforeValidator(_written_out)]
Since = Annotated[Moment | None, Query(description="from this time")]
Until = Annotated[Moment | None, Query(description="before this time")]
