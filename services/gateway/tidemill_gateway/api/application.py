"""The API's application: its routers, its document, and what every error looks like."""

import asyncio
from collections.abc import Iterable

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match

from tidemill import exception
from tidemill_gateway import problems
from tidemill_gateway.admission import Admission
from tidemill_gateway.api import (
    apps,
    calls,
    containers,
    dead_letters,
    logs,
    registered,
    tokens,
    web_access,
)
from tidemill_gateway.api.bodies import Bodies
from tidemill_gateway.api.document import openapi
from tidemill_gateway.api.page import render
from tidemill_gateway.following import Followers
from tidemill_gateway.handles import Handles
from tidemill_gateway.problems import Problem

VERSION = "1.0.0"  # of the API
PREFIX = "/api/v1"
DOCUMENT, DOCS = "/openapi.json", "/docs"
PUBLIC = frozenset((DOCUMENT, DOCS))
MAX_FAULTS = 20  # of one request that are told

_METHODS = ("GET", "PUT", "POST", "DELETE", "PATCH")
_POLICY = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


def new_api(stopping: asyncio.Event, handles: Handles, admission: Admission) -> FastAPI:
    """Return the API's application, to stand behind an `Edge`. `stopping` ends its long waits."""
    api = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    api.state.stopping = stopping
    api.state.bodies = Bodies()
    api.state.reading = asyncio.Semaphore(logs.READ_AT_ONCE)
    api.state.followers = Followers()
    api.state.handles = handles
    api.state.admission = admission
    for part in (apps, calls, containers, dead_letters, logs, registered, tokens, web_access):
        api.include_router(part.router)
    document = openapi(api, VERSION, PREFIX)
    encoded, page = msgspec.json.encode(document), render(document, PREFIX + DOCUMENT)

    @api.get(DOCUMENT)
    async def show_document() -> Response:
        return Response(encoded, media_type="application/json")

    @api.get(DOCS)
    async def show_docs() -> Response:
        return Response(page, media_type="text/html", headers=_POLICY)

    api.add_exception_handler(Problem, _on_problem)
    api.add_exception_handler(HTTPException, _on_http_error)
    api.add_exception_handler(RequestValidationError, _on_invalid)
    api.add_exception_handler(exception.Error, _on_error)
    return api


def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return problems.response(error, request.state.request_id)


def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, exception.Error)
    return problems.response(problems.of_error(error), request.state.request_id)


def _on_http_error(request: Request, error: Exception) -> Response:
    """Show what the framework itself refuses: unknown paths and methods, bodies that are no JSON."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    detail, code = str(error.detail), "invalid"
    if error.status_code == 405:
        allowed = _allowed(request, request.app.routes)
        headers, detail, code = (
            {"Allow": ", ".join(allowed)},
            f"{request.method} is not possible here",
            "method",
        )
    elif error.status_code == 404:
        detail, code = "there is nothing at this address", "not_found"
    return problems.response(
        Problem(error.status_code, code, detail, headers=headers), request.state.request_id
    )


def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [
        {"where": ".".join(str(part) for part in fault["loc"]), "what": fault["msg"]}
        for fault in error.errors()[:MAX_FAULTS]
    ]
    first = faults[0]
    problem = Problem(422, "invalid", f"{first['where']}: {first['what']}", errors=faults)
    return problems.response(problem, request.state.request_id)


def _allowed(request: Request, routes: Iterable[BaseRoute]) -> list[str]:
    """Return the methods that a path can be asked with: a path may have several routes."""
    found = []
    for method in _METHODS:
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in routes):
            found.append(method)
    return found
