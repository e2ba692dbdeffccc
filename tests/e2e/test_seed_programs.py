"""The programs of the async document and of the App reference run, with `import modal` unchanged."""

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

SEEDS = Path(__file__).parent / "seeds"
NAMES = ["Alice", "Bob", "Charlie"]


def run(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("entrypoint", "printed"),
    [
        ("from_async", "Hello, Alice!\n"),
        ("from_sync", "Hello, Bob!\n"),
        ("with_map", "".join(f"Hello, {name}!\n" for name in NAMES)),
        ("with_gather", f"{[f'Hello, {name}!' for name in NAMES]}\n"),
        ("with_generator", "".join(f"Received: {number}\n" for number in range(10))),
        ("mixed", "11\n"),
        ("with_client", "Client\n"),
    ],
)
def test_the_async_document(entrypoint: str, printed: str, stack_environment: dict[str, str]) -> None:
    target = f"{SEEDS / 'hello_async.py'}::{entrypoint}"
    assert run(stack_environment, "tidemill.cli", "run", "-q", target) == printed


@pytest.fixture
def pages() -> Iterator[str]:
    """Serve one page on loopback; yields its URL.

    It has no title: the program would return that as a class of bs4, which its caller's image lacks.
    """

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"<html>Low tide</html>"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_the_complete_async_example(pages: str, stack_environment: dict[str, str]) -> None:
    urls = f"{pages} {pages}second http://127.0.0.1:1/refused"
    printed = run(
        {**stack_environment, "SCRAPER_URLS": urls}, "tidemill.cli", "run", "-q", str(SEEDS / "scraper.py")
    )
    assert "Processed 2 URLs successfully\nFailed: 1\n" in printed
    assert f"  {pages}: No title\n  {pages}second: No title\n" in printed


def test_an_included_app_is_called_through_the_one_that_includes_it(
    stack_environment: dict[str, str],
) -> None:
    target = f"{SEEDS / 'app_reference.py'}::main"
    assert run(stack_environment, "tidemill.cli", "run", "-q", target) == "bar of b\nfoo of a\n"


def test_arguments_of_an_entrypoint_are_parsed(stack_environment: dict[str, str]) -> None:
    target = f"{SEEDS / 'app_reference.py'}::with_arguments"
    printed = run(stack_environment, "tidemill.cli", "run", "-q", target, "--foo", "1", "--bar", "hello")
    assert printed == "1 hello\n"


def test_the_script_runs_by_itself_with_enabled_output(stack_environment: dict[str, str]) -> None:
    assert "foo of a\n" in run(stack_environment, "tidemill", str(SEEDS / "app_reference.py"))
