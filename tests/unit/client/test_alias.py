"""The alias is installed in processes of their own: it changes how the whole process imports."""

import os
import subprocess
import sys
from pathlib import Path


def run(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"from tidemill import _alias\n{program}"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_modal_is_the_very_module() -> None:
    program = """
assert _alias.install()
import modal, tidemill
assert modal is tidemill and sys.modules["modal"] is sys.modules["tidemill"]
assert modal.__name__ == "tidemill" and modal.__spec__.name == "tidemill"
"""
    run(f"import sys\n{program}")


def test_submodules_are_the_very_modules() -> None:
    program = """
import sys, importlib
_alias.install()
for name in ("exception", "functions", "app", "image", "secret", "retries", "schedule", "volume", "config"):
    theirs, ours = importlib.import_module(f"modal.{name}"), importlib.import_module(f"tidemill.{name}")
    assert theirs is ours, name
    assert ours.__name__ == ours.__spec__.name == f"tidemill.{name}", name
    assert sys.modules[f"modal.{name}"] is sys.modules[f"tidemill.{name}"], name
import modal.client, tidemill._client, modal.output, tidemill._output
assert modal.client is tidemill._client and modal.output is tidemill._output
from modal.exception import InvalidError
assert InvalidError is tidemill._client.exception.InvalidError
"""
    run(program)


def test_whichever_name_is_imported_first() -> None:
    same = "assert modal.exception is tidemill.exception"
    run(f"_alias.install()\nimport modal.exception\nimport tidemill.exception\n{same}")
    run(f"import tidemill.exception\n_alias.install()\nimport modal.exception\n{same}")


def test_modules_that_are_not_here_say_so() -> None:
    program = """
_alias.install()
for name in ("modal.volumes", "modal._utils", "modal._app", "modal.nonsense", "modal.exception.deeper"):
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        assert error.name == name, (error.name, name)
    else:
        raise AssertionError(name)
try:
    from modal import Sandbox
except ImportError as error:
    print(error)
"""
    assert "Sandbox" in run(program)


def test_a_module_can_be_reloaded_under_both_names() -> None:
    run("_alias.install()\nimport modal.retries, importlib\nimportlib.reload(modal.retries)")


def test_pickles_name_our_modules() -> None:
    program = """
_alias.install()
import modal, pickle
policy = modal.Retries(max_retries=2)
data = pickle.dumps(policy, protocol=0)
assert b"tidemill.retries" in data
assert pickle.loads(data) == pickle.loads(data.replace(b"tidemill.retries", b"modal.retries")) == policy
"""
    run(program)


def test_names_below_modal_alone_are_ours() -> None:
    run("_alias.install()\nimport importlib.util\nassert importlib.util.find_spec('modality') is None")


def test_it_is_installed_once() -> None:
    program = """
import sys
_alias.install(); _alias.install(force=True)
assert sum(isinstance(finder, _alias.Finder) for finder in sys.meta_path) == 1
assert isinstance(sys.meta_path[0], _alias.Finder)
"""
    run(program)


def a_real_modal(folder: Path) -> str:
    package = folder / "modal"
    package.mkdir()
    (package / "__init__.py").write_text("REAL = True\n")
    return str(folder)


def test_the_real_package_is_not_shadowed(tmp_path: Path) -> None:
    program = "assert not _alias.install()\nimport modal\nassert modal.REAL"
    run(program, PYTHONPATH=a_real_modal(tmp_path))


def test_the_real_package_is_shadowed_on_request(tmp_path: Path) -> None:
    path = a_real_modal(tmp_path)
    program = "import modal, tidemill\nassert modal is tidemill"
    run(f"assert _alias.install()\n{program}", PYTHONPATH=path, TIDEMILL_ALIAS_MODAL="1")
    run(f"assert _alias.install(force=True)\n{program}", PYTHONPATH=path)


def test_the_alias_can_be_kept_off() -> None:
    run("assert not _alias.install()", TIDEMILL_ALIAS_MODAL="0")


def test_it_imports_no_other_package() -> None:
    program = """
import sys
_alias.install()
import modal, modal.exception
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"nats", "click", "rich", "msgpack", "asyncio", "cloudpickle", "msgspec"}, loaded
"""
    run(program)
