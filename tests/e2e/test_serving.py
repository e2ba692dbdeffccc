"""`tidemill serve` follows the files of an app."""

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from running_stacks import RunningStack
from waiting import wait_until

PAGE = Path(__file__).parents[2] / "docs" / "serve.md"


class Serving:
    """A `tidemill serve` that runs, and what it has said so far."""

    def __init__(self, folder: Path, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self._folder = folder
        self._seen = 0

    def said(self) -> str:
        return (self._folder / "out").read_text() + (self._folder / "err").read_text()

    def printed(self, text: str) -> None:
        """Wait until containers print this anew."""
        before = (self._folder / "out").read_text().count(text)
        wait_until(lambda: (self._folder / "out").read_text().count(text) > before, what=f"for {text}")

    def tells(self, text: str) -> None:
        """Wait until it says this, after what was waited for before."""

        def told() -> bool:
            said = (self._folder / "err").read_text()
            found = said.find(text, self._seen)
            self._seen = max(self._seen, found + len(text)) if found >= 0 else self._seen
            return found >= 0

        wait_until(told, what=f"for {text!r} in {self.said()}")


@contextmanager
def serving(stack: RunningStack, folder: Path, *arguments: str) -> Iterator[Serving]:
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        process = stack.start_cli("serve", *arguments, cwd=folder, stdout=out, stderr=err)
        try:
            yield Serving(folder, process)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def test_an_app_follows_its_file_and_survives_broken_code(stack: RunningStack, tmp_path: Path) -> None:
    shown = re.search(r"```python\n(# clock\.py\n.*?)```", PAGE.read_text(), re.DOTALL)
    assert shown
    first = shown[1]
    second = first.replace("version 1", "version 2")
    file = tmp_path / "clock.py"
    file.write_text(first)
    with serving(stack, tmp_path, "clock.py") as served:
        served.tells("✓ Created objects.\n└── Created function tick.\n")
        served.tells("✓ Serving")
        served.printed("version 1")

        file.write_text(second)
        served.tells("Reloading: clock.py changed\n✓ Created objects.")
        served.printed("version 2")

        file.write_text(second + "\nx = (")
        served.tells("SyntaxError: '(' was never closed")
        served.tells("error: clock.py cannot be imported")
        served.tells("the version before goes on being served")
        served.printed("version 2")

        file.write_text(second + "\nwhile True: pass")  # never ends to be imported
        served.tells("Reloading: clock.py changed")
        file.write_text(second)
        served.tells("Reloading: clock.py changed\n✓ Nothing to replace")

        file.write_text(second.replace("def tick", "def tock"))
        served.tells("✓ Removed function tick.\n✓ Created objects.\n└── Created function tock.")

        def goes_on() -> bool:
            """Tell that the old version ended: what it had begun may be printed after the new one's first."""
            return (tmp_path / "out").read_text().rpartition("version 1")[2].count("version 2") >= 3

        wait_until(goes_on, what="for the new version alone")
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(60) == 0, served.said()


def test_a_served_web_function_is_replaced_without_a_failed_request(
    stack: RunningStack, tmp_path: Path
) -> None:
    text = (
        "import tidemill\napp = tidemill.App('page')\n"
        "@app.function()\n@tidemill.fastapi_endpoint()\ndef page() -> str:\n    return 'version 1'\n"
    )
    (tmp_path / "page.py").write_text(text)
    with serving(stack, tmp_path, "page.py") as served:
        served.tells("Created web function page => http://")
        served.tells("✓ Serving")
        found = re.search(r"=> http://\S*?(local--[a-z0-9-]+-dev)\b", served.said())
        assert found, served.said()
        url = f"{stack.info.gateway_url}/f/{found[1]}"
        assert httpx.get(url, timeout=60).json() == "version 1"
        (tmp_path / "page.py").write_text(text.replace("version 1", "version 2"))

        def is_new() -> bool:
            answer = httpx.get(url, timeout=60)
            assert answer.status_code == 200, answer.text
            return bool(answer.json() == "version 2")

        wait_until(is_new, what="for the new version")
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(60) == 0, served.said()
    wait_until(lambda: httpx.get(url, timeout=60).status_code == 404, what="for the end of the route")


def test_serving_ends_after_its_time_and_with_the_app(stack: RunningStack, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import tidemill\napp = tidemill.App('ended')\n")
    assert stack.cli("serve", "app.py", "--timeout", "0.1", cwd=tmp_path).returncode == 0
    (tmp_path / "app.py").write_text("import tidemill\n1 / 0\n")
    done = stack.cli("serve", "app.py", cwd=tmp_path)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert done.stderr.endswith("error: app.py cannot be imported\n")
