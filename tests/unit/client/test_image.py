import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tidemill import Image, _runtime, image
from tidemill._wire import coding
from tidemill._wire.specs import ImageSpec
from tidemill.exception import ExecutionError, InvalidError, UnimplementedError


def print_nothing() -> None:
    print(end="")


HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def layers(made: Image) -> list[tuple[str, object]]:
    return list(made._spec().layers)


def test_the_base_has_the_local_version_of_python() -> None:
    assert layers(Image.debian_slim()) == [("debian_slim", {"python_version": HERE})]
    assert layers(Image.debian_slim("3.12")) == [("debian_slim", {"python_version": "3.12"})]


@pytest.mark.parametrize("version", [3.12, "3", "3.8", "2.7", "3.12rc1", "3.x", ""])
def test_versions_that_cannot_be_are_refused(version: object) -> None:
    with pytest.raises(InvalidError):
        Image.debian_slim(version)


def test_every_method_returns_a_new_image() -> None:
    base = Image.debian_slim()
    more = base.pip_install("a").env({"X": "1"}).workdir("/srv")
    assert len(layers(base)) == 1
    assert [operation for operation, _ in layers(more)] == ["debian_slim", "pip_install", "env", "workdir"]


def test_packages_may_be_lists() -> None:
    made = Image.debian_slim().pip_install("a", ["b>=2", "c"], index_url="http://i", pre=True)
    assert layers(made)[1] == (
        "pip_install",
        {"packages": ["a", "b>=2", "c"], "index_url": "http://i", "pre": True},
    )


def test_options_nobody_gave_leave_no_trace() -> None:
    assert layers(Image.debian_slim().uv_pip_install("a", uv_version="0.9"))[1] == (
        "uv_pip_install",
        {"packages": ["a"]},
    )


def test_installing_nothing_changes_nothing() -> None:
    assert Image.debian_slim().pip_install() == Image.debian_slim()


def test_requirements_are_read_from_files(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("# top\na==1  # pinned\n\nb\n")
    made = Image.debian_slim().uv_pip_install("c", requirements=[str(file)])
    assert layers(made)[1] == ("uv_pip_install", {"packages": ["c"], "requirements": [["a==1", "b"]]})
    with pytest.raises(InvalidError, match="cannot be read"):
        Image.debian_slim().uv_pip_install(requirements=[str(tmp_path / "none.txt")])._spec()


@pytest.mark.parametrize("packages", [(1,), (["a", 2],), (None,), ("--index-url=x",)])
def test_packages_that_cannot_be_are_refused(packages: tuple[object, ...]) -> None:
    with pytest.raises(InvalidError):
        Image.debian_slim().pip_install(*packages)


def test_build_options_of_later_versions_are_refused_and_not_forgotten() -> None:
    with pytest.raises(UnimplementedError, match="volumes"):
        Image.debian_slim().run_commands("true", volumes={"/data": object()})
    with pytest.raises(UnimplementedError, match="gpu"):
        Image.debian_slim().run_function(print_nothing, gpu="H100")


@pytest.mark.parametrize(
    "given",
    [
        {"cpu": 0},
        {"cpu": float("inf")},
        {"memory": 0.5},
        {"memory": True},
        {"region": 5},
        {"cloud": ["a", "b"]},
    ],
)
def test_what_a_build_needs_and_where_it_may_be_is_checked_as_for_functions(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidError, match=next(iter(given))):
        Image.debian_slim().run_function(print_nothing, **given)
    made = Image.debian_slim().run_function(
        print_nothing, cpu=0.5, memory=512, cloud="auto", region=["a", "b"]
    )
    assert made._layers[1][1].items() >= {"cpu": 0.5, "memory": 512}.items()


def test_equal_recipes_have_equal_keys_in_every_process() -> None:
    made = Image.debian_slim("3.12").pip_install("a").env({"B": "2", "A": "1"})
    assert image.key(made._spec()) == image.key(
        Image.debian_slim("3.12").pip_install("a").env({"A": "1", "B": "2"})._spec()
    )
    program = (
        "from tidemill import Image, image; "
        "print(image.key(Image.debian_slim('3.12').pip_install('a').env({'B': '2', 'A': '1'})._spec()))"
    )
    other = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert other.stdout.strip() == image.key(made._spec())


def test_the_order_of_layers_matters() -> None:
    base = Image.debian_slim()
    assert base.pip_install("a").pip_install("b") != base.pip_install("b").pip_install("a")


def test_a_recipe_survives_the_wire() -> None:
    spec = Image.debian_slim().pip_install("a").env({"X": "1"})._spec()
    assert image.key(coding.decode(ImageSpec, coding.encode(spec))) == image.key(spec)


def test_a_forced_layer_is_new_in_each_process_and_the_same_within_it() -> None:
    forced = Image.debian_slim().pip_install("a", force_build=True)
    assert forced != Image.debian_slim().pip_install("a")
    assert forced == Image.debian_slim().pip_install("a", force_build=True)


def test_all_layers_can_be_forced_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODAL_FORCE_BUILD", "1")
    assert "build" in Image.debian_slim()._layers[0][1]


def test_local_files_that_are_attached_come_last() -> None:
    attached = Image.debian_slim().add_local_python_source("a", "b.c")
    assert [module.name for module in attached._modules] == ["a", "b.c"]
    assert attached.add_local_python_source("d")._modules[-1].name == "d"
    with pytest.raises(InvalidError, match="comes after") as caught:
        attached.pip_install("x")
    assert "copy=True" in caught.value.hint
    assert Image.debian_slim().add_local_python_source("a", copy=True).pip_install("x")


@pytest.mark.parametrize("name", ["a/b", "a.py/", "", "1a", None])
def test_only_modules_are_local_sources(name: object) -> None:
    with pytest.raises(InvalidError):
        Image.debian_slim().add_local_python_source(name)


@pytest.mark.parametrize("path", ["work", "", "/a/../b"])
def test_a_working_directory_is_absolute(path: str) -> None:
    with pytest.raises(InvalidError):
        Image.debian_slim().workdir(path)


def test_an_environment_of_strings() -> None:
    with pytest.raises(InvalidError):
        Image.debian_slim().env({"A": 1})


def test_pipe_applies_a_recipe() -> None:
    def add(base: Image, name: str, *, extra: str) -> Image:
        return base.pip_install(name, extra)

    assert Image.debian_slim().pipe(add, "a", extra="b") == Image.debian_slim().pip_install("a", "b")


def test_imports_pass_over_what_is_not_here() -> None:
    with Image.debian_slim().imports():
        import no_such_module_anywhere  # noqa: F401


def test_imports_tell_what_else_goes_wrong() -> None:
    with pytest.warns(RuntimeWarning, match="ValueError: odd"), Image.debian_slim().imports():
        raise ValueError("odd")


def test_in_its_own_containers_imports_are_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Image.debian_slim().pip_install("a")
    monkeypatch.setattr(_runtime, "container", _runtime.Container("co-1", "ap-1", "app", "f", "main", {}))
    monkeypatch.setenv("TIDEMILL_IMAGE_RECIPE", made._declared())
    with pytest.raises(ImportError), made.imports():
        raise ImportError("gone")
    with Image.debian_slim().imports():
        raise ImportError("of another image")


def test_an_image_can_be_pickled_with_a_function_that_names_it() -> None:
    made = Image.debian_slim().pip_install("a")
    assert pickle.loads(pickle.dumps(made)) == made


def test_an_image_has_an_id_when_it_was_built_or_is_named_by_one() -> None:
    by_id = Image.from_id("im-1")
    assert by_id.object_id == pickle.loads(pickle.dumps(by_id)).object_id == "im-1"
    for unknown in (by_id.env({"A": "b"}), Image.from_name("a:v1"), Image.debian_slim()):
        assert not unknown.is_hydrated
        with pytest.raises(ExecutionError, match="has no id yet"):
            unknown.object_id
    with pytest.raises(InvalidError, match="not the id of an image"):
        Image.from_id("fu-1")
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        Image.debian_slim().nonsense
