"""The API's OpenAPI document: what FastAPI says of the routes, and our answers to what goes wrong."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from tidemill_gateway.api.call_models import NewCall
from tidemill_gateway.api.models import ProblemDocument
from tidemill_gateway.problems import MEDIA_TYPE, TITLES

_SCHEMAS = "#/components/schemas/{model}"
_REFUSALS = (400, 401, 403, 404, 405, 408, 409, 412, 413, 415, 422, 424, 429, 500, 502, 503, 504)
_METHODS = ("get", "put", "post", "delete", "patch")
_DESCRIPTION = """Apps, functions, calls and everything else of a Tidemill workspace.

Every request carries a token: `Authorization: Bearer <token id>:<token secret>`, or Basic with the same.
Errors are problem documents (RFC 9457). Lists come in pages: `Link: <...>; rel="next"` leads to the next one.
Answers to GET have an `ETag`; `If-None-Match` saves repeating them, `If-Match` keeps a change from being made
to what has changed since it was read."""


def openapi(api: FastAPI, version: str, prefix: str) -> dict[str, Any]:
    """Return the document."""
    document = get_openapi(
        title="Tidemill",
        version=version,
        description=_DESCRIPTION,
        routes=api.routes,
        servers=[{"url": prefix}],
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for model in (ProblemDocument, NewCall):
        schema = model.model_json_schema(ref_template=_SCHEMAS)
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "<token id>:<token secret>"},
        "basic": {"type": "http", "scheme": "basic"},
    }
    document["security"] = [{"bearer": []}, {"basic": []}]
    for path in document["paths"].values():
        for method in _METHODS:
            if method in path:
                _complete(method, path[method])
    return document


def _complete(method: str, operation: dict[str, Any]) -> None:
    """Add what every operation may answer, and the headers that it listens to."""
    problem = {"schema": {"$ref": _SCHEMAS.format(model="ProblemDocument")}}
    responses = operation["responses"]
    for status in _REFUSALS:
        responses[str(status)] = {"description": TITLES[status], "content": {MEDIA_TYPE: problem}}
    if method == "get":
        responses["304"] = {"description": "Not changed"}
    named = "If-None-Match" if method == "get" else "If-Match"
    parameters = operation.setdefault("parameters", [])
    parameters.append({"name": named, "in": "header", "required": False, "schema": {"type": "string"}})
