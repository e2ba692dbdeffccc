"""The decorators that put a function behind a URL."""

import inspect
import math
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from tidemill import _runtime
from tidemill._partial import PartialFunction, check_parentheses, with_web
from tidemill._wire.specs import Web
from tidemill.exception import DeprecationError, InvalidError, UnimplementedError

P = ParamSpec("P")
R = TypeVar("R")
Plain = Callable[P, R] | PartialFunction[P, R, R]
Decorator = Callable[[Plain[P, R]], PartialFunction[P, R, R]]

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def asgi_app(
    _warn_parentheses_missing: None = None,
    *,
    label: str | None = None,
    custom_domains: Sequence[str] | None = None,
    requires_proxy_auth: bool = False,
) -> Decorator[P, R]:
    """Return a decorator for a function that returns an ASGI app: FastAPI, Starlette, Django, Quart, ...

    The function is called once in each container; the app's lifespan runs around all its requests.
    WebSockets and streams work as the framework has them.

    Args:
        label: what stands in the URL instead of the names of app and function: a-z, 0-9 and `-`.
        custom_domains: not in this version.
        requires_proxy_auth: answer only requests that carry a token for the proxy (`Modal-Key`).

    Raises:
        InvalidError: the label cannot be one, or the function takes parameters.

    Example:
        @app.function()
        @tidemill.asgi_app()
        def web():
            return fastapi_app
    """
    return _decorator(
        "asgi_app", _warn_parentheses_missing, custom_domains, Web("asgi", _label(label), requires_proxy_auth)
    )


def wsgi_app(
    _warn_parentheses_missing: None = None,
    *,
    label: str | None = None,
    custom_domains: Sequence[str] | None = None,
    requires_proxy_auth: bool = False,
) -> Decorator[P, R]:
    """Return a decorator for a function that returns a WSGI app: Flask, Django, Bottle, ...

    Each request runs in a thread; how many at once `@concurrent` says. The parameters are those of
    `asgi_app`.
    """
    return _decorator(
        "wsgi_app", _warn_parentheses_missing, custom_domains, Web("wsgi", _label(label), requires_proxy_auth)
    )


def fastapi_endpoint(
    _warn_parentheses_missing: None = None,
    *,
    method: str = "GET",
    label: str | None = None,
    custom_domains: Sequence[str] | None = None,
    docs: bool = False,
    requires_proxy_auth: bool = False,
) -> Decorator[P, R]:
    """Return a decorator that makes a function answer requests itself, by the rules of FastAPI.

    Parameters come from the query, or from a JSON body where they are a `dict` or a pydantic model; forms,
    files, headers and dependencies are declared as in FastAPI. Any site may call it from a browser (CORS).

    Args:
        method: the HTTP method that it answers, `GET` by default.
        label, custom_domains, requires_proxy_auth: as those of `asgi_app`.
        docs: serve a page with its documentation at `/docs`.

    Raises:
        InvalidError: the method or the label cannot be one, or the function is a generator.

    Example:
        @app.function()
        @tidemill.fastapi_endpoint()
        def square(x: int):
            return {"square": x**2}
    """
    web = Web("endpoint", _label(label), requires_proxy_auth, _method(method), docs)
    return _decorator("fastapi_endpoint", _warn_parentheses_missing, custom_domains, web)


def web_endpoint(
    _warn_parentheses_missing: None = None,
    *,
    method: str = "GET",
    label: str | None = None,
    custom_domains: Sequence[str] | None = None,
    docs: bool = False,
    requires_proxy_auth: bool = False,
) -> Decorator[P, R]:
    """Do as `fastapi_endpoint`, under its older name."""
    if _runtime.is_local():
        warnings.warn("web_endpoint is now called fastapi_endpoint", DeprecationError, stacklevel=2)
    web = Web("endpoint", _label(label), requires_proxy_auth, _method(method), docs)
    return _decorator("web_endpoint", _warn_parentheses_missing, custom_domains, web)


def web_server(
    port: int,
    *,
    startup_timeout: float = 5.0,
    label: str | None = None,
    custom_domains: Sequence[str] | None = None,
    requires_proxy_auth: bool = False,
) -> Decorator[P, R]:
    """Return a decorator for a function that starts a web server of whatever kind, and returns.

    It is called once in each container. HTTP and WebSockets are passed on to the port.

    Args:
        port: where the server listens, 1 to 65,535.
        startup_timeout: seconds that it may take until it listens. Default 5.
        label, custom_domains, requires_proxy_auth: as those of `asgi_app`.

    Raises:
        InvalidError: the port, the time or the label cannot be one.

    Example:
        @app.function()
        @tidemill.web_server(8000)
        def files():
            subprocess.Popen("python -m http.server -d / 8000", shell=True)
    """
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65_535:
        raise InvalidError(
            f"port has to be a number from 1 to 65,535, not {port!r}", hint="@web_server(8000)"
        )
    is_number = isinstance(startup_timeout, int | float) and not isinstance(startup_timeout, bool)
    if not is_number or not 0 < startup_timeout < math.inf:
        raise InvalidError(f"startup_timeout has to be a number of seconds, not {startup_timeout!r}")
    web = Web("server", _label(label), requires_proxy_auth, port=port, startup_timeout=float(startup_timeout))
    return _decorator("web_server", None, custom_domains, web)


def _decorator(decorator: str, missing: Any, custom_domains: Any, web: Web) -> Decorator[P, R]:
    check_parentheses(decorator, missing)
    if custom_domains:
        raise UnimplementedError("custom_domains: they are not in this version of Tidemill")
    for name in ("requires_proxy_auth", "docs"):
        if not isinstance(getattr(web, name), bool):
            raise InvalidError(f"{name} has to be True or False, not {getattr(web, name)!r}")

    def decorate(function: Plain[P, R]) -> PartialFunction[P, R, R]:
        made: PartialFunction[P, R, R] = with_web(decorator, function, web)
        _check_function(decorator, made.raw, web)
        return made

    return decorate


def _check_function(decorator: str, raw: Callable[..., Any], web: Web) -> None:
    if inspect.isgeneratorfunction(raw) or inspect.isasyncgenfunction(raw):
        raise InvalidError(
            f"@{decorator} cannot be used on the generator {raw.__qualname__!r}",
            hint="return a StreamingResponse of what it yields",
        )
    if web.kind == "endpoint":
        return
    if web.kind in ("asgi", "wsgi") and inspect.iscoroutinefunction(raw):
        raise InvalidError(
            f"{raw.__qualname__!r} is async: @{decorator} needs a function that returns the app itself",
            hint="define it with def",
        )
    required = [
        name
        for name, parameter in inspect.signature(raw).parameters.items()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        and name != "self"
    ]
    if required:
        raise InvalidError(
            f"{raw.__qualname__!r} is called without arguments, but {required[0]!r} is required",
            hint="give the parameter a default",
        )


def _label(label: Any) -> str:
    if label is None:
        return ""
    if not isinstance(label, str) or not _LABEL.fullmatch(label):
        raise InvalidError(
            f"not a label: {label!r}", hint="up to 63 of a-z, 0-9 and '-', for instance 'my-page'"
        )
    return label


def _method(method: Any) -> str:
    if not isinstance(method, str) or method.upper() not in METHODS:
        raise InvalidError(f"not a method: {method!r}", hint=f"use one of {', '.join(METHODS)}")
    return method.upper()
