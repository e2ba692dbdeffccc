"""The programs of the async document and of the App reference run as they stand: `seeds/` has their lines.

What a program takes from outside is put around it: names that its document leaves open, and pages for the
hosts that it names. Its own lines are not touched.
"""

import shutil
import ssl
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from running_stacks import RunningStack, run

SEEDS = Path(__file__).parent / "seeds"
NAMES = ["Alice", "Bob", "Charlie"]


def seed(name: str) -> str:
    return (SEEDS / f"{name}.py").read_text()


class Stage:
    """A folder for one program, and a stack to run it on."""

    def __init__(self, folder: Path, stack: RunningStack) -> None:
        self.folder = folder
        self.stack = stack

    def write(self, *parts: str, name: str = "app_module.py") -> None:
        (self.folder / name).write_text("\n\n".join(parts))

    def run(self, *words: str, loud: bool = False) -> str:
        """Run the program as a user does; return what it prints."""
        quiet = [] if loud else ["-q"]
        return self._finish("tidemill.cli", "run", *quiet, *(words or ("app_module.py",)))

    def python(self, file: str) -> str:
        """Run a file by itself; return what it prints."""
        return self._finish("tidemill", file)

    def _finish(self, *words: str) -> str:
        done = run([sys.executable, "-m", *words], self.stack.environment, cwd=self.folder)
        assert done.returncode == 0, done.stderr
        self.errors = done.stderr
        return done.stdout


@pytest.fixture
def stage(tmp_path: Path, stack: RunningStack) -> Stage:
    return Stage(tmp_path, stack)


# --- the async document


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("async_from_async", "Hello, Alice!\n"),
        ("async_from_sync", "Hello, Bob!\n"),
        ("async_map", "".join(f"Hello, {name}!\n" for name in NAMES)),
        ("async_gather", f"{[f'Hello, {name}!' for name in NAMES]}\n"),
        ("async_generators", "".join(f"Received: {number}\n" for number in range(10))),
        ("async_mixed", "11\n"),
        ("async_client", ""),
    ],
)
def test_the_async_document(name: str, printed: str, stage: Stage) -> None:
    stage.write(seed("async_functions"), seed(name))
    assert stage.run() == printed


DATABASE = """
class Connection:
    async def query(self, statement):
        return [statement]

    async def close(self):
        print("closed")

async def connect_to_db():
    return Connection()

@app.local_entrypoint()
def main():
    print(process_with_cleanup.remote())
"""


def test_a_context_manager_is_left_in_the_container(stage: Stage) -> None:
    stage.write(seed("async_functions"), seed("async_context_managers"), DATABASE)
    assert sorted(stage.run().splitlines()) == ["['SELECT * FROM users']", "closed"]


DATASET = """
large_dataset = range(1000)

def process(item):
    return item * item

@app.local_entrypoint()
async def main():
    print([piece async for piece in stream_data.remote_gen.aio()] == [item * item for item in large_dataset])
"""


def test_a_data_set_is_streamed(stage: Stage) -> None:
    stage.write(seed("async_functions"), seed("async_stream"), DATASET)
    assert stage.run() == "True\n"


# The lines of the best practices stand in no function: they are run as in a shell that knows `await`.
AWAITED = """
@app.function()
async def fails(name: str):
    raise ValueError(f"not {name}")

@app.local_entrypoint()
async def main():
    import ast

    names = {"asyncio": asyncio, "my_function": async_hello, "arg": "Alice"}
    names["tasks"] = [async_hello.remote.aio("Bob"), fails.remote.aio("Bob")] if FILE == "tasks.py" else []
    code = compile(open(FILE).read(), FILE, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    await eval(code, names)
    print(names.get("result"))
"""


def test_a_call_that_blocks_the_loop_warns_and_returns_all_the_same(stage: Stage) -> None:
    stage.write(seed("async_blocking"), name="blocking.py")
    stage.write(seed("async_functions"), "FILE = 'blocking.py'", AWAITED)
    assert stage.run() == "Hello, Alice!\n"
    assert stage.errors.count("AsyncUsageWarning") == 1


def test_exceptions_can_be_gathered(stage: Stage) -> None:
    stage.write(seed("async_exceptions"), name="tasks.py")
    stage.write(seed("async_functions"), "FILE = 'tasks.py'", AWAITED)
    assert stage.run() == "Task failed: not Bob\nnot Bob\n"


# --- pages for the hosts that the documents name

HOSTS = ("api.example.com", "example.com", "python.org", "modal.com")

RESOLVER = """
import os
import socket

os.environ["SSL_CERT_FILE"] = {certificate!r}
_resolve = socket.getaddrinfo

def _resolve_here(host, port, *args, **kwargs):
    here = ("127.0.0.1", {port}) if host in {hosts!r} else (host, port)
    return _resolve(*here, *args, **kwargs)

socket.getaddrinfo = _resolve_here
"""

# In place of `modal.App`: the same, with another default image.
WITH_SOUP = """
import functools
import modal

_soup = modal.Image.debian_slim().pip_install("aiohttp", "beautifulsoup4")
modal.App = functools.partial(modal.App, image=_soup)
"""


class Page(BaseHTTPRequestHandler):
    """A page of any host, with a title."""

    def do_GET(self) -> None:
        body = f"<html><head><title>The page of {self.headers['Host']}</title></head></html>".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def resolver(tmp_path: Path) -> Iterator[str]:
    """Serve pages for the hosts; yields what lets a program find and trust them."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    names = ",".join(f"DNS:{host}" for host in HOSTS)
    request = [
        "req",
        "-x509",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=test",
        "-addext",
        f"subjectAltName={names}",
    ]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    made = run(["openssl", *request, *curve, "-keyout", str(key), "-out", str(certificate)], {})
    assert made.returncode == 0, made.stderr
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield RESOLVER.format(certificate=str(certificate), port=server.server_port, hosts=HOSTS)
        server.shutdown()
        thread.join()


def test_pages_are_fetched_at_the_same_time(stage: Stage, resolver: str) -> None:
    stage.write(resolver, seed("async_functions"), seed("async_http"))
    assert stage.run() == "Fetched 3 pages\n"


def test_the_complete_example_finds_the_titles(stage: Stage, resolver: str) -> None:
    """A title is a string of bs4, which every side that reads it has to have."""
    stage.write(resolver, WITH_SOUP, seed("async_scraper"))
    assert stage.run().splitlines() == [
        "Starting async web scraping...",
        "",
        "Processed 3 URLs successfully",
        "Failed: 0",
        "  https://example.com: The page of example.com",
        "  https://python.org: The page of python.org",
        "  https://modal.com: The page of modal.com",
    ]


def test_the_complete_example_fails_as_on_modal_where_a_caller_has_no_bs4(
    stage: Stage, resolver: str
) -> None:
    """`process_batch` has the default image: it cannot read what `fetch_and_parse` returns."""
    stage.write(resolver, seed("async_scraper"))
    printed = stage.run()
    assert "Processed 0 URLs successfully\nFailed: 3\n" in printed


# --- the App reference

MODULE = """
import modal

app = modal.App()

@app.function()
def some_modal_function(*arguments):
    print("called with", *arguments)
"""
IMPORTS = "import modal\nfrom app_module import app, some_modal_function"


@pytest.mark.parametrize(("name", "printed"), [("app_run", ""), ("app_run_with_output", "called with\n")])
def test_a_program_runs_its_app(name: str, printed: str, stage: Stage) -> None:
    stage.write(MODULE)
    stage.write(IMPORTS, seed(name), name="program.py")
    assert stage.python("program.py") == printed


def test_a_module_runs_its_own_app(stage: Stage) -> None:
    stage.write(MODULE, seed("app_run_guarded"))
    assert stage.python("app_module.py") == ""


def test_an_entrypoint_is_run(stage: Stage) -> None:
    stage.write(MODULE, seed("app_entrypoint"))
    assert stage.run() == "called with\n"


def test_arguments_of_an_entrypoint_are_parsed_and_the_old_name_of_remote_warns(stage: Stage) -> None:
    stage.write(MODULE, seed("app_entrypoint_arguments"))
    assert stage.run("app_module.py", "--foo", "1", "--bar", "hello") == "called with 1 hello\n"
    assert stage.errors.count("DeprecationError") == 1


def test_several_entrypoints_are_told_apart_by_name(stage: Stage) -> None:
    other = "@app.local_entrypoint()\ndef some_other_function():\n    print('the other')\n"
    stage.write(MODULE, seed("app_entrypoint"), other)
    assert stage.run("app_module.py::app.some_other_function") == "the other\n"


def test_an_included_app_is_called_through_the_one_that_includes_it(stage: Stage) -> None:
    stage.write("import modal", seed("app_include"))
    stage.run(loud=True)
    assert "bar" in stage.errors
