"""`python -m tidemill`: programs run as `python` itself would run them, with `import modal`."""

import os
import subprocess
import sys
from pathlib import Path


def run(folder: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tidemill", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        env={name: value for name, value in os.environ.items() if name != "TIDEMILL_ALIAS_MODAL"},
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


PROGRAM = """
import sys, modal, tidemill, helper
assert modal is tidemill
assert sys.modules["__main__"].__dict__ is globals()
print(__name__, __package__, sys.argv[1:], helper.__name__)
"""


def test_a_script_runs_as_main(tmp_path: Path) -> None:
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "program.py").write_text(PROGRAM)
    (folder / "helper.py").write_text("")
    assert run(tmp_path, "scripts/program.py", "a", "--b") == "__main__ None ['a', '--b'] helper\n"


def test_a_module_runs_as_main(tmp_path: Path) -> None:
    package = tmp_path / "pkg"
    package.mkdir()
    (tmp_path / "helper.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "program.py").write_text(PROGRAM + "from . import other\n")
    (package / "other.py").write_text("")
    (package / "__main__.py").write_text("print('main of', __package__)")
    assert run(tmp_path, "-m", "pkg.program", "x") == "__main__ pkg ['x'] helper\n"
    assert run(tmp_path, "-m", "pkg") == "main of pkg\n"


def test_threads_may_outlive_the_last_line(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import threading, time\nwords = ['still here']\n"
        "def later():\n    time.sleep(0.05)\n    print(words[0])\n"
        "threading.Thread(target=later).start()\n"
    )
    assert run(tmp_path, "program.py") == "still here\n"


def test_exit_codes_and_errors_are_the_programs(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import sys; sys.exit(7)")
    run(tmp_path, "program.py", code=7)
    (tmp_path / "broken.py").write_text("1 / 0")
    shown = run(tmp_path, "broken.py", code=1)
    assert "ZeroDivisionError" in shown
    assert shown.count("File ") == 1


def test_what_cannot_be_run_is_said(tmp_path: Path) -> None:
    assert "cannot be read" in run(tmp_path, "none.py", code=1)
    assert "no module named no_such" in run(tmp_path, "-m", "no_such", code=1)
    assert "usage:" in run(tmp_path, code=1)
    assert "usage:" in run(tmp_path, "--help")
