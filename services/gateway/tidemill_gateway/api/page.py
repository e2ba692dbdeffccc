"""The API's documentation as a page: no scripts, and nothing that needs a network."""

from html import escape
from typing import Any

_HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Tidemill API</title>
<meta name="viewport" content="width=device-width,initial-scale=1"><style>
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
code{font:14px ui-monospace,monospace}section{border-top:1px solid #8884;margin-top:1rem}
dt{margin-top:.3rem}dd{margin-left:1.5rem;opacity:.8}pre{white-space:pre-wrap}</style>
"""


def render(document: dict[str, Any], path: str) -> str:
    """Return an OpenAPI document as HTML; `path` is where the document itself lies."""
    info = document["info"]
    sections = [
        _section(method, document["servers"][0]["url"] + route, operation)
        for route, operations in sorted(document["paths"].items())
        for method, operation in operations.items()
    ]
    return (
        f"{_HEAD}<h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        f"<p>{escape(info['description'])}</p>"
        f'<p><a href="{escape(path)}">The OpenAPI document</a></p>{"".join(sections)}'
    )


def _section(method: str, route: str, operation: dict[str, Any]) -> str:
    rows = [_parameter(parameter) for parameter in operation.get("parameters", ())]
    answers = ", ".join(code for code in operation["responses"] if code.startswith("2"))
    text = escape(operation.get("description", ""))
    return (
        f"<section><h3><code>{method.upper()} {escape(route)}</code></h3><p>{text}</p>"
        f"<dl>{''.join(rows)}</dl><p>answers {answers}</p></section>"
    )


def _parameter(parameter: dict[str, Any]) -> str:
    where = f"{parameter['in']}{', required' if parameter.get('required') else ''}"
    text = escape(parameter.get("description", ""))
    return f"<dt><code>{escape(parameter['name'])}</code> ({where})</dt><dd>{text}</dd>"
