"""The routes of the gateway: its health, and the API."""

from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp

from tidemill_common.health import Health


def new_app(health: Health, api: ASGIApp, prefix: str) -> FastAPI:
    """Return the gateway's application, with the API under `prefix`."""
    app = FastAPI(title="Tidemill", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/healthz")
    @app.get("/readyz")
    @app.get("/metrics")
    async def answer(request: Request) -> Response:
        answer = await health.answer(request.url.path, request.headers.get("accept", ""))
        return Response(answer.body, answer.status, media_type=answer.content_type)

    app.mount(prefix, api)
    return app
