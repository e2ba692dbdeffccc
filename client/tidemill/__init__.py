"""Tidemill: Python functions that run in containers on machines of your own, with Modal's API.

Everything is loaded when it is first used: containers, too, import this package.
"""

TYPE_CHECKING = False  # type checkers know the name; importing `typing` would take most of the time

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tidemill import exception, experimental, functions
    from tidemill._client import Client
    from tidemill._output import enable_output
    from tidemill._parameters import parameter
    from tidemill._partial import batched, concurrent, enter, exit, method  # noqa: A004 - Modal's name
    from tidemill._runtime import current_function_call_id, current_input_id, interact, is_local
    from tidemill._web import asgi_app, fastapi_endpoint, web_endpoint, web_server, wsgi_app
    from tidemill.app import App
    from tidemill.cls import Cls
    from tidemill.exception import Error
    from tidemill.file_pattern_matcher import FilePatternMatcher
    from tidemill.functions import Function, FunctionCall
    from tidemill.image import Image
    from tidemill.retries import Retries
    from tidemill.schedule import Cron, Period
    from tidemill.secret import Secret
    from tidemill.volume import Volume

__all__ = [
    "App",
    "Client",
    "Cls",
    "Cron",
    "Error",
    "FilePatternMatcher",
    "Function",
    "FunctionCall",
    "Image",
    "Period",
    "Retries",
    "Secret",
    "Volume",
    "__version__",
    "asgi_app",
    "batched",
    "concurrent",
    "current_function_call_id",
    "current_input_id",
    "enable_output",
    "enter",
    "exception",
    "exit",
    "experimental",
    "fastapi_endpoint",
    "functions",
    "interact",
    "is_local",
    "method",
    "parameter",
    "web_endpoint",
    "web_server",
    "wsgi_app",
]

# name -> module that has it; the modules themselves are named by None
_HOMES = {
    "App": "app",
    "Client": "_client",
    "Cls": "cls",
    "Cron": "schedule",
    "Error": "exception",
    "FilePatternMatcher": "file_pattern_matcher",
    "Function": "functions",
    "FunctionCall": "functions",
    "Image": "image",
    "Period": "schedule",
    "Retries": "retries",
    "Secret": "secret",
    "Volume": "volume",
    "asgi_app": "_web",
    "batched": "_partial",
    "concurrent": "_partial",
    "current_function_call_id": "_runtime",
    "current_input_id": "_runtime",
    "enable_output": "_output",
    "enter": "_partial",
    "exit": "_partial",
    "fastapi_endpoint": "_web",
    "interact": "_runtime",
    "is_local": "_runtime",
    "method": "_partial",
    "parameter": "_parameters",
    "web_endpoint": "_web",
    "web_server": "_web",
    "wsgi_app": "_web",
}
_MODULES = frozenset(
    [
        "app",
        "call_graph",
        "cls",
        "config",
        "exception",
        "experimental",
        "file_pattern_matcher",
        "function_call",
        "functions",
        "image",
        "retries",
        "schedule",
        "secret",
        "types",
        "volume",
    ]
)

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        import importlib

        if name in _MODULES:
            return importlib.import_module(f"tidemill.{name}")
        if name not in _HOMES:
            raise AttributeError(_missing(name), name=name)
        value = getattr(importlib.import_module(f"tidemill.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def _missing(name: str) -> str:
    # `from tidemill import _x` asks here before it looks for a module: that must stay cheap.
    if not name.startswith("_"):
        from tidemill._later import PACKAGE, message

        if name in PACKAGE:
            return message(f"tidemill.{name}")
    return f"module 'tidemill' has no attribute {name!r}"


def __dir__() -> list[str]:
    return sorted(__all__)
