"""What a traceback shows: the user's frames here and there, and none of ours."""

import re
import sys
from pathlib import Path

import pytest
from running_stacks import RunningStack, run

import tidemill

PROGRAMS = Path(__file__).parent / "programs"
OWN = str(Path(tidemill.__file__).parent)
REMOTE = re.compile(r'File "<co-\w+>:\S+/plain.py", line \d+, in broken')
FRAME = re.compile(r'File "(.*?)"')


@pytest.fixture(scope="module")
def shown(stack: RunningStack) -> tuple[dict[str, str], str]:
    """The traceback of each way of calling, and what an uncaught exception left on standard error."""
    done = run([sys.executable, str(PROGRAMS / "plain.py")], stack.environment)
    assert done.returncode == 1, done.stderr
    found = dict(each.split("\n", 1) for each in done.stdout.split("--- ")[1:])
    return found, done.stderr


def test_no_frame_of_ours_is_in_the_traceback_of_any_way_of_calling(
    shown: tuple[dict[str, str], str],
) -> None:
    tracebacks, uncaught = shown
    assert len(tracebacks) == 14
    for name, text in {**tracebacks, "uncaught": uncaught}.items():
        assert not [file for file in FRAME.findall(text) if file.startswith(OWN)], f"{name}: {text}"


def test_the_frames_of_the_container_follow_those_of_the_caller(shown: tuple[dict[str, str], str]) -> None:
    tracebacks, uncaught = shown
    for name, text in {**tracebacks, "uncaught": uncaught}.items():
        if name not in ("refused", "iterator"):
            assert REMOTE.search(text), f"{name}: {text}"
            assert "return {}[x]" in text
    assert "in broken" in tracebacks["iterator"]  # the user's own iterator, called by us
    assert "hint: value.remote(...) runs it elsewhere" in tracebacks["refused"]


def test_our_frames_can_be_asked_for(stack: RunningStack) -> None:
    done = run([sys.executable, str(PROGRAMS / "plain.py")], stack.environment | {"TIDEMILL_TRACEBACK": "1"})
    assert f'File "{OWN}' in done.stderr


def test_a_result_of_a_package_that_the_reader_lacks_names_the_package(stack: RunningStack) -> None:
    done = stack.cli("run", "-q", str(PROGRAMS / "packages.py"))
    assert done.returncode == 0, done.stderr
    first, here, inside, failed, *_, last = done.stdout.splitlines()
    assert (first, last) == ("1.2.3", "1.2.3")
    assert here == (
        "DeserializationError: the result cannot be read: the module 'semver' is not available in the local "
        "environment (install semver here, or return plain data)"
    )
    assert inside.startswith("DeserializationError: the result cannot be read: the module 'semver' is not")
    assert failed.startswith("ExecutionError: the remote exception cannot be read here (ModuleNotFoundError")
    assert "(install semver here)" in done.stdout
