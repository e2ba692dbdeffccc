"""Web functions that not everybody may ask, or not often."""

from fastapi import Request

import tidemill

app = tidemill.App("guarded-program")


@app.function()
@tidemill.fastapi_endpoint(requires_proxy_auth=True)
def guarded(request: Request) -> list[str]:
    return [name for name in request.headers if name.startswith(("modal-", "tidemill-"))]


@app.function()
@tidemill.fastapi_endpoint()
def open_to_all() -> str:
    return "open"


@app.function()
@tidemill.fastapi_endpoint()
def never_reached() -> None: ...
