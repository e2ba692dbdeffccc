"""Requests that the registry refuses."""

from typing import Any

import pytest

from tidemill._bus.protocol import RequestFailed


async def refused(request: Any) -> RequestFailed:
    """Return why a request fails, which it must."""
    with pytest.raises(RequestFailed) as caught:
        await request
    return caught.value
