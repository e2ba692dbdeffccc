"""The ASGI app of a web function, by what its decorator said."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, cast

from tidemill import _parameters, exception
from tidemill._container.lifespan import App


def make(
    function: Callable[..., Any], web: dict[str, Any], slots: int, loop: asyncio.AbstractEventLoop
) -> App:
    """Return the app. Whatever the user's function raises is raised.

    Args:
        function: the user's.
        web: the fields of its `Web`.
        slots: requests that run at once.
        loop: the one that they run on, which is not running yet.
    """
    match web["kind"]:
        case "asgi":
            made: App = _callable(_called(function, loop), "an ASGI app")
            return made
        case "wsgi":
            return _wsgi(_callable(_called(function, loop), "a WSGI app"), slots)
        case "endpoint":
            return _endpoint(function, web["method"], docs=web["docs"])
        case "server":
            return _server(function, web["port"], web["startup_timeout"], loop)
    raise exception.ExecutionError(f"this container knows no web function of the kind {web['kind']!r}")


def _called(function: Callable[..., Any], loop: asyncio.AbstractEventLoop) -> Any:
    made = function()
    return loop.run_until_complete(made) if inspect.iscoroutine(made) else made


def _callable(made: Any, what: str) -> Any:
    if not callable(made):
        raise exception.ExecutionError(
            f"the function returned {made!r}, which is not {what}", hint="return the app itself"
        )
    return made


def _wsgi(app: Any, slots: int) -> App:
    from a2wsgi import WSGIMiddleware

    return cast(App, WSGIMiddleware(app, workers=max(1, slots)))


def _endpoint(function: Callable[..., Any], method: str, *, docs: bool) -> App:
    try:
        from fastapi import FastAPI
        from fastapi.middleware.cors import CORSMiddleware
    except ImportError as error:
        raise exception.ExecutionError(
            f"FastAPI cannot be imported in this image: {error}",
            hint='add it: image.uv_pip_install("fastapi[standard]")',
        ) from error

    parameters = _parameters.declared(type(getattr(function, "__self__", None))) if docs else ()
    if parameters:
        from tidemill._container.documented import Documented

        app: FastAPI = Documented(function.__name__, parameters)
    else:
        addresses = {} if docs else {"openapi_url": None, "docs_url": None, "redoc_url": None}
        app = FastAPI(title=function.__name__, **addresses)  # type: ignore[arg-type]
    app.add_middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_credentials=True,
        allow_methods=["*"],
        allow_headers=["*"],
    )
    app.add_api_route("/", function, methods=[method])
    return app


def _server(
    function: Callable[..., Any], port: int, startup_timeout: float, loop: asyncio.AbstractEventLoop
) -> App:
    from tidemill._container.port import PortProxy

    _called(function, loop)
    proxy = PortProxy(port)
    loop.run_until_complete(proxy.wait(startup_timeout))
    return proxy
