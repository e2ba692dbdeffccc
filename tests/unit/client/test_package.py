import os
import subprocess
import sys

import pytest

import tidemill

API = [
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


def test_the_public_names() -> None:
    assert tidemill.__all__ == API
    assert dir(tidemill) == sorted(API)
    assert all(getattr(tidemill, name) is not None for name in API)


def test_star_imports_everything() -> None:
    namespace: dict[str, object] = {}
    exec("from tidemill import *", namespace)
    assert set(API) <= set(namespace)


def test_the_package_loads_nothing_before_it_is_used() -> None:
    program = """
import sys
before = set(sys.modules)
import tidemill
tidemill.__version__
added = sorted(set(sys.modules) - before)
assert added == ["tidemill"], added
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, env=dict(os.environ))


def test_declaring_loads_neither_connection_nor_screen() -> None:
    program = """
import sys
import tidemill
app = tidemill.App("a", image=tidemill.Image.debian_slim().pip_install("x"))
def f(x): return x
app.function(retries=tidemill.Retries(max_retries=1), serialized=True)(f)
app.local_entrypoint()(f)
loaded = {name.partition(".")[0] for name in sys.modules}
heavy = loaded & {"nats", "click", "rich", "asyncio", "cloudpickle", "msgspec"}
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, env=dict(os.environ))


@pytest.mark.parametrize("name", ["Sandbox", "Server", "Dict", "Queue", "forward"])
def test_what_is_not_here_yet_says_so(name: str) -> None:
    with pytest.raises(AttributeError, match=f"tidemill.{name} is not in this version"):
        getattr(tidemill, name)
    with pytest.raises(ImportError, match=name):
        exec(f"from tidemill import {name}")


def test_what_nobody_knows_is_an_ordinary_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        tidemill.nonsense


def test_the_version_is_the_distributions() -> None:
    from importlib.metadata import version

    assert tidemill.__version__ == version("tidemill")
