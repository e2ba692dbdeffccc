"""The pages that document an endpoint of a class: what they lead to names the parameters of its object."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi import FastAPI
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.requests import Request

from tidemill._wire.specs import Parameter

_TYPES = {"str": "string", "int": "integer", "bool": "boolean", "bytes": "string"}


class Documented(FastAPI):
    """An app whose document and pages know the parameters of the class that it is a method of."""

    def __init__(self, title: str, parameters: Iterable[Parameter]) -> None:
        super().__init__(title=title, docs_url=None, redoc_url=None)
        self._of_class = {each.name: each for each in parameters}
        self.add_route("/docs", self._docs, include_in_schema=False)
        self.add_route("/redoc", self._redoc, include_in_schema=False)

    def openapi(self) -> dict[str, Any]:
        """Return the document, with the parameters of the class at every operation."""
        document = super().openapi()
        for path in document["paths"].values():
            for operation in path.values():
                told = operation.setdefault("parameters", [])
                known = {each["name"] for each in told if each["in"] == "query"}
                told += [_told(each) for name, each in self._of_class.items() if name not in known]
        return document

    async def _docs(self, request: Request) -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=self._document_url(request), title=f"{self.title} - Swagger UI"
        )

    async def _redoc(self, request: Request) -> HTMLResponse:
        url = self._document_url(request)
        return get_redoc_html(openapi_url=url, title=f"{self.title} - ReDoc")

    def _document_url(self, request: Request) -> str:
        """Return where the same object's document is. What came from outside is percent-encoded."""
        root: str = request.scope.get("root_path", "").rstrip("/")
        given = parse_qsl(request.scope["query_string"].decode("latin-1"), True, encoding="latin-1")
        named = [(name, value) for name, value in given if name in self._of_class]
        query = f"?{urlencode(named, encoding='latin-1')}" if named else ""
        return f"{root}{self.openapi_url}{query}"


def _told(parameter: Parameter) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": _TYPES[parameter.kind], "title": parameter.name}
    if not parameter.required and parameter.kind != "bytes":
        schema["default"] = parameter.default
    return {"name": parameter.name, "in": "query", "required": parameter.required, "schema": schema}
