"""What can be written after `tidemill run`."""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidemill.cli import reference
from tidemill.cli.reference import Reference
from tidemill.exception import Error, InvalidError, NotFoundError

HEAD = "import tidemill\n"
ONE_FUNCTION = HEAD + "app = tidemill.App('a')\n@app.function()\ndef f(x): pass\n"
ENTRYPOINT = "@app.local_entrypoint()\ndef main(): pass\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def chosen(text: str, *, is_module: bool = False) -> str:
    named = reference.read(text, is_module=is_module)
    return reference.find(reference.load(named), named).name


@pytest.mark.parametrize(
    ("text", "is_module", "expected"),
    [
        ("script.py", False, Reference("script.py", "", is_module=False)),
        ("script.py::f", False, Reference("script.py", "f", is_module=False)),
        ("script.py::app.f", False, Reference("script.py", "app.f", is_module=False)),
        ("package.module::f", True, Reference("package.module", "f", is_module=True)),
    ],
)
def test_a_reference_is_read(folder: Path, text: str, is_module: bool, expected: Reference) -> None:
    (folder / "script.py").touch()
    assert reference.read(text, is_module=is_module) == expected


@pytest.mark.parametrize(
    ("text", "is_module", "kind", "hint"),
    [
        ("script.py:f", False, InvalidError, "script.py::f"),
        ("script.py::", False, InvalidError, "script.py::NAME"),
        ("package.module", False, InvalidError, "tidemill run -m package.module"),
        ("my.script.py", False, InvalidError, "rename"),
        ("missing.py", False, NotFoundError, ""),
        ("script.py", True, InvalidError, "leave -m out"),
    ],
)
def test_a_wrong_reference_is_told_with_the_right_form(
    text: str, is_module: bool, kind: type[Error], hint: str
) -> None:
    with pytest.raises(kind) as caught:
        reference.read(text, is_module=is_module)
    assert hint in caught.value.hint


def test_a_missing_module_is_told() -> None:
    with pytest.raises(NotFoundError, match=r"no module nowhere\.at_all"):
        chosen("nowhere.at_all", is_module=True)


def test_a_lone_function_is_chosen(folder: Path) -> None:
    (folder / "one_function.py").write_text(ONE_FUNCTION)
    assert chosen("one_function.py") == "f"
    assert chosen("one_function.py::app") == "f"
    assert chosen("one_function", is_module=True) == "f"


def test_an_entrypoint_comes_before_functions(folder: Path) -> None:
    (folder / "with_entrypoint.py").write_text(ONE_FUNCTION + ENTRYPOINT)
    assert chosen("with_entrypoint.py") == "main"
    assert chosen("with_entrypoint.py::f") == "f"
    assert chosen("with_entrypoint.py::app.f") == "f"


def test_own_functions_come_before_included_ones(folder: Path) -> None:
    (folder / "library.py").write_text(ONE_FUNCTION.replace("def f", "def included"))
    (folder / "including.py").write_text(ONE_FUNCTION + "import library\napp.include(library.app)\n")
    assert chosen("including.py") == "f"
    assert chosen("including.py::included") == "included"


def test_two_entrypoints_are_listed(folder: Path) -> None:
    (folder / "two.py").write_text(ONE_FUNCTION + ENTRYPOINT + ENTRYPOINT.replace("main", "other"))
    with pytest.raises(InvalidError, match="2 local entrypoints") as caught:
        chosen("two.py")
    assert caught.value.hint == "there is f, main, other"


def test_a_wrong_name_lists_what_there_is(folder: Path) -> None:
    (folder / "named.py").write_text(ONE_FUNCTION)
    with pytest.raises(NotFoundError) as caught:
        chosen("named.py::g")
    assert caught.value.hint == "there is f"


@pytest.mark.parametrize(
    ("text", "message"),
    [("x = 1\n", "has no app"), (HEAD + "app = tidemill.App('a')\n", "has nothing to run")],
)
def test_a_file_without_anything_to_run_is_told(folder: Path, text: str, message: str) -> None:
    (folder / "empty.py").write_text(text)
    with pytest.raises(InvalidError, match=message) as caught:
        chosen("empty.py")
    assert caught.value.hint


def test_the_folders_of_the_script_and_of_the_caller_are_importable(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "beside_caller.py").write_text("x = 1\n")
    (folder / "sub" / "beside_script.py").write_text("y = 2\n")
    (folder / "sub" / "importing.py").write_text("import beside_caller, beside_script\n" + ONE_FUNCTION)
    assert chosen("sub/importing.py") == "f"


def test_running_at_import_is_refused(folder: Path) -> None:
    (folder / "runs_itself.py").write_text(ONE_FUNCTION + "with app.run(): pass\n")
    with pytest.raises(InvalidError):
        chosen("runs_itself.py")


# --- what is deployed


def deployed(text: str) -> str | None:
    named = reference.read(text, is_module=False, command="deploy")
    return reference.find_app(reference.load(named), named).name


def test_the_only_app_is_deployed(folder: Path) -> None:
    (folder / "only.py").write_text(HEAD + "mill = tidemill.App('a')\n")
    assert deployed("only.py") == deployed("only.py::mill") == "a"


def test_of_several_apps_the_one_named_app_is_deployed(folder: Path) -> None:
    (folder / "several.py").write_text(HEAD + "one = tidemill.App('1')\napp = tidemill.App('2')\n")
    assert deployed("several.py") == "2"
    assert deployed("several.py::one") == "1"


def test_of_several_apps_one_has_to_be_named(folder: Path) -> None:
    (folder / "unclear.py").write_text(HEAD + "one = tidemill.App('1')\ntwo = tidemill.App('2')\n")
    with pytest.raises(InvalidError, match=r"2 apps: name one, as in unclear\.py::one"):
        deployed("unclear.py")
    with pytest.raises(NotFoundError, match="no app of the name three") as caught:
        deployed("unclear.py::three")
    assert caught.value.hint == "there is one, two"


def test_a_file_without_an_app_is_not_deployed(folder: Path) -> None:
    (folder / "appless.py").write_text("x = 1\n")
    with pytest.raises(InvalidError, match="has no app"):
        deployed("appless.py")


# --- methods


def test_a_method_takes_the_parameters_of_its_class_too(folder: Path) -> None:
    (folder / "models.py").write_text(
        HEAD
        + """
app = tidemill.App("models")

@app.cls()
class Model:
    size: str = tidemill.parameter()

    @tidemill.method()
    def predict(self, x: int, y: float = 1.0) -> str:
        return self.size

    @tidemill.method()
    def other(self, size: int) -> int:
        return size
"""
    )
    named = reference.read("models.py::Model.predict", is_module=False)
    chosen_ = reference.find(reference.load(named), named)
    parameters = inspect.signature(chosen_.raw).parameters
    assert {name: (each.annotation, each.default) for name, each in parameters.items()} == {
        "x": (int, inspect.Parameter.empty),
        "y": (float, 1.0),
        "size": (str, inspect.Parameter.empty),
    }
    function, rest = chosen_.target._bind({"x": 1, "size": "large"})
    assert (function._of.given.parameters, rest) == ({"size": "large"}, {"x": 1})
    named = reference.read("models.py::Model.other", is_module=False)
    with pytest.raises(InvalidError, match="both have a parameter size"):
        reference.find(reference.load(named), named).raw
