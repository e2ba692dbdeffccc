import hashlib
import importlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import declared
import pytest

from tidemill import App, Image, _plan, _source
from tidemill._image_parts import LocalModule
from tidemill._source import Packer
from tidemill.exception import InvalidError, ModuleNotMountable, SerializationError


def write(root: Path, *files: str, content: str = "x = 1\n") -> Path:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def names(bundle: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(bundle)) as archive:
        return archive.getnames()


@pytest.fixture
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose modules can be imported, and are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def pack(
    function: Any, *, serialized: bool = False, include: bool = True, modules: Any = ()
) -> _source.Packed:
    return Packer().pack(function, "f", serialized=serialized, include_source=include, modules=modules)


# --- what is shipped


def test_a_script_ships_its_one_file() -> None:
    packed = pack(declared.plain)
    assert (packed.source.module, packed.source.qualname) == ("declared", "plain")
    assert [names(packed.blobs[bundle]) for bundle in packed.source.bundles] == [["declared.py"]]


PROGRAM = "def f(): pass\n"


def test_a_module_of_a_package_ships_the_top_level_package(importable: Path) -> None:
    write(importable, "pkg_one/__init__.py", "pkg_one/sub/__init__.py", "pkg_one/sub/data.txt", "other.py")
    write(importable, "pkg_one/sub/mod.py", content=PROGRAM)
    packed = pack(importlib.import_module("pkg_one.sub.mod").f)
    assert packed.source.module == "pkg_one.sub.mod"
    (bundle,) = packed.source.bundles
    assert names(packed.blobs[bundle]) == [
        "pkg_one/__init__.py",
        "pkg_one/sub/__init__.py",
        "pkg_one/sub/mod.py",
    ]


def test_environments_caches_and_hidden_files_are_never_shipped(importable: Path) -> None:
    write(importable, "pkg_two/__init__.py", content=PROGRAM)
    write(
        importable / "pkg_two", "a.py", "__pycache__/b.py", ".hidden/c.py", ".d.py", "env/lib/e.py", "f.pyc"
    )
    write(importable / "pkg_two", "env/pyvenv.cfg", ".venv/pyvenv.cfg", ".venv/lib/g.py")
    packed = pack(importlib.import_module("pkg_two").f)
    (bundle,) = packed.source.bundles
    assert names(packed.blobs[bundle]) == ["pkg_two/__init__.py", "pkg_two/a.py"]


def test_a_link_to_a_folder_above_is_followed_once(tmp_path: Path) -> None:
    write(tmp_path, "a.py", "sub/b.py")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    assert [path.name for path in _source.python_files(tmp_path)] == ["a.py", "b.py"]


def test_a_namespace_package_ships_all_its_parts(tmp_path: Path, importable: Path) -> None:
    write(importable / "one", "space/a.py", content=PROGRAM)
    write(importable / "two", "space/b.py")
    sys.path[:0] = [str(importable / "one"), str(importable / "two")]
    try:
        packed = pack(importlib.import_module("space.a").f)
    finally:
        del sys.path[:2]
    (bundle,) = packed.source.bundles
    assert names(packed.blobs[bundle]) == ["space/a.py", "space/b.py"]


def test_source_can_be_left_out() -> None:
    packed = pack(declared.plain, include=False)
    assert packed.source.bundles == ()
    assert packed.source.module == "declared"
    assert packed.blobs == {}


def run_module(folder: Path, *arguments: str) -> str:
    """Run a program that prints what its function would ship."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


SHOWS_ITSELF = """
from tidemill._source import Packer
import io, tarfile
def f(): pass
packed = Packer().pack(f, "f", serialized=False, include_source=True, modules=())
print(packed.source.module, [tarfile.open(fileobj=io.BytesIO(b)).getnames() for b in packed.blobs.values()])
"""


def test_main_of_a_script_is_named_by_its_file(tmp_path: Path) -> None:
    write(tmp_path, "program.py", content=SHOWS_ITSELF)
    write(tmp_path, "helper.py")
    assert run_module(tmp_path, "program.py") == "program [['program.py']]"


def test_main_of_a_package_is_named_as_it_is_imported(tmp_path: Path) -> None:
    write(tmp_path, "pkg/__init__.py", "pkg/other.py")
    write(tmp_path, "pkg/program.py", "pkg/__main__.py", content=SHOWS_ITSELF)
    files = "['pkg/__init__.py', 'pkg/__main__.py', 'pkg/other.py', 'pkg/program.py']"
    assert run_module(tmp_path, "-m", "pkg.program") == f"pkg.program [{files}]"
    assert run_module(tmp_path, "-m", "pkg") == f"pkg.__main__ [{files}]"


def test_a_script_whose_name_cannot_be_imported_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "my-program.py", content=SHOWS_ITSELF)
    done = subprocess.run(
        [sys.executable, "my-program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "'my-program' is not a module's name" in done.stderr


def test_a_function_of_a_notebook_is_serialized_by_itself(tmp_path: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "notebook_cell"}
    exec("def f(): return helper()\ndef helper(): return 7\n", namespace)
    packed = pack(namespace["f"])
    assert packed.source.bundles == ()
    assert load_elsewhere(packed.blobs[packed.source.serialized], tmp_path) == "7"


def test_a_file_that_is_gone_is_named(importable: Path) -> None:
    write(importable, "vanishing.py", content=PROGRAM)
    function = importlib.import_module("vanishing").f
    (importable / "vanishing.py").unlink()
    with pytest.raises(InvalidError, match="not in a file"):
        pack(function)


# --- local modules of images


def test_local_modules_go_along(importable: Path) -> None:
    write(importable, "lib.py", "tree/__init__.py", "tree/a.py", "tree/deep/__init__.py", "tree/deep/b.py")
    image = Image.debian_slim().add_local_python_source("lib", "tree")
    packed = pack(declared.plain, modules=image._modules)
    assert [names(packed.blobs[bundle]) for bundle in packed.source.bundles] == [
        ["declared.py"],
        ["lib.py"],
        ["tree/__init__.py", "tree/a.py", "tree/deep/__init__.py", "tree/deep/b.py"],
    ]


def test_a_module_inside_a_package_brings_what_makes_it_importable(importable: Path) -> None:
    write(importable, "tree2/__init__.py", "tree2/a.py", "tree2/deep/__init__.py", "tree2/deep/b.py")
    files = _source.module_files(LocalModule("tree2.deep.b", ()))
    assert sorted(files) == ["tree2/__init__.py", "tree2/deep/__init__.py", "tree2/deep/b.py"]


def test_files_can_be_ignored(importable: Path) -> None:
    write(importable, "tree3/__init__.py", "tree3/a.py", "tree3/tests/t.py", "tree3/deep/tests/u.py")

    def shipped(ignore: Any) -> list[str]:
        return sorted(_source.module_files(LocalModule("tree3", ignore)))

    assert shipped(["tests"]) == ["tree3/__init__.py", "tree3/a.py", "tree3/deep/tests/u.py"]
    assert shipped(["**/tests", "!deep/tests/u.py"]) == [
        "tree3/__init__.py",
        "tree3/a.py",
        "tree3/deep/tests/u.py",
    ]
    assert shipped(lambda path: path.name != "a.py") == ["tree3/a.py"]
    assert shipped(["a?.py", "[ab].py"]) == ["tree3/__init__.py", "tree3/deep/tests/u.py", "tree3/tests/t.py"]


@pytest.mark.parametrize("name", ["no_such_module_anywhere", "json.no_such", "sys"])
def test_modules_that_are_no_local_files_are_refused(name: str) -> None:
    with pytest.raises(ModuleNotMountable):
        _source.module_files(LocalModule(name, ()))


# --- the archive


def test_the_same_code_is_the_same_bundle(tmp_path: Path) -> None:
    first, second = write(tmp_path / "1", "a.py", "b.py"), write(tmp_path / "2", "b.py", "a.py")
    os.utime(second / "a.py", (1, 1))
    (second / "b.py").chmod(0o755)
    bundles = [
        _source.pack({p.name: p.read_bytes() for p in _source.python_files(r)}) for r in (first, second)
    ]
    assert bundles[0] == bundles[1]


def test_a_bundle_is_named_by_its_content() -> None:
    packed = pack(declared.plain)
    assert all(hashlib.sha256(data).hexdigest() == name for name, data in packed.blobs.items())


def test_a_bundle_can_be_unpacked() -> None:
    long = "/".join(["folder_with_a_long_name"] * 8) + "/módulo.py"
    data = _source.pack({long: b"x = 2\n", "a.py": b""})
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        unpacked = archive.extractfile(long)
        assert unpacked is not None
        assert unpacked.read() == b"x = 2\n"


def test_what_functions_share_is_read_once(importable: Path) -> None:
    write(importable, "shared_one.py", content="def f(): pass\ndef g(): pass\n")
    module = importlib.import_module("shared_one")
    packer = Packer()
    first = packer.pack(module.f, "f", serialized=False, include_source=True, modules=())
    (importable / "shared_one.py").write_text("changed in between")
    second = packer.pack(module.g, "g", serialized=False, include_source=True, modules=())
    assert first.source.bundles == second.source.bundles


# --- serialized functions


def load_elsewhere(data: bytes, tmp_path: Path) -> str:
    """Call a pickled function in a process that has none of the tests' modules."""
    file = tmp_path / "function"
    file.write_bytes(data)
    program = "import pickle, sys; print(pickle.loads(open(sys.argv[1], 'rb').read())())"
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_serialized_function_travels_by_value(tmp_path: Path) -> None:
    number = 42

    def closure() -> int:
        return declared_helper() + number

    packed = pack(closure, serialized=True)
    assert packed.source.module == ""
    assert load_elsewhere(packed.blobs[packed.source.serialized], tmp_path) == "43"


def declared_helper() -> int:
    return 1


def test_closures_keep_their_own_values(tmp_path: Path) -> None:
    def make(value: str) -> Any:
        return lambda: value

    blobs = [pack(make(value), serialized=True) for value in ("one", "two")]
    assert [load_elsewhere(p.blobs[p.source.serialized], tmp_path) for p in blobs] == ["one", "two"]


def test_a_large_closure_is_warned_about() -> None:
    data = os.urandom(300 * 1024)
    with pytest.warns(UserWarning, match="KiB"):
        pack(lambda: data, serialized=True)


def test_a_closure_above_the_limit_is_refused() -> None:
    data = bytes(17 << 20)
    with pytest.raises(InvalidError, match="16 MiB"):
        pack(lambda: data, serialized=True)


def test_what_cannot_be_pickled_is_refused() -> None:
    generator = (n for n in range(3))
    with pytest.raises(SerializationError, match="'f' cannot be sent"):
        pack(lambda: generator, serialized=True)


def test_a_whole_app_is_packed() -> None:
    app = App("a", include_source=False)
    app.function()(declared.plain)
    app.function(include_source=True)(declared.generator)
    app.function(serialized=True, name="pickled")(declared.coroutine)
    plan = _plan.pack(app, None, "main")
    blobs = plan.blobs
    by_name = {spec.name: spec.source for spec in plan.specs}
    assert by_name["plain"].bundles == ()
    assert len(by_name["generator"].bundles) == 1
    assert by_name["pickled"].serialized in blobs
    assert len(blobs) == 2
