"""What every method of `Image` puts into a recipe, and what the recipe takes from this machine."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from tidemill import FilePatternMatcher, Image, Secret, image
from tidemill._image_parts import Collected
from tidemill.exception import InvalidError

FACTOR = 2
BASE = Image.debian_slim("3.12")


def last(made: Image) -> tuple[str, Any]:
    return made._spec().layers[-1]


def names(made: Image) -> set[str]:
    """Return the files in the last bundle of an image."""
    import io
    import tarfile

    into = Collected()
    made._collect(into)
    *_, data = into.blobs.values()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return set(archive.getnames())


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("A")
    (tmp_path / "data" / "b.log").write_text("B")
    (tmp_path / "data" / "deep").mkdir()
    (tmp_path / "data" / "deep" / "c.txt").write_text("C")
    (tmp_path / "run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "run.sh").chmod(0o755)
    return tmp_path


def test_layers_are_named_as_the_methods_that_made_them() -> None:
    made = (
        BASE.apt_install("git", ["curl"])
        .run_commands("make", ["make install"], env={"B": "1"})
        .dockerfile_commands("RUN true", build_args={"V": "1"})
        .shell(["/bin/bash", "-c"])
        .entrypoint(["/init"])
        .cmd(["serve"])
    )
    assert made._spec().layers[1:] == (
        ("apt_install", {"packages": ["git", "curl"]}),
        ("run_commands", {"commands": ["make", "make install"], "env": {"B": "1"}}),
        ("dockerfile_commands", {"commands": ["RUN true"], "build_args": {"V": "1"}}),
        ("shell", {"words": ["/bin/bash", "-c"]}),
        ("entrypoint", {"words": ["/init"]}),
        ("cmd", {"words": ["serve"]}),
    )
    assert BASE.apt_install() == BASE.run_commands() == BASE.dockerfile_commands() == BASE


def test_bases_may_get_a_python_of_their_own() -> None:
    assert last(Image.from_registry("debian:12", add_python="3.12")) == (
        "from_registry",
        {"tag": "debian:12", "add_python": "3.12"},
    )
    assert last(Image.from_registry("a/b", setup_dockerfile_commands=["RUN true"]))[1]["setup"]
    assert last(Image.from_scratch()) == ("from_scratch", {})
    for refused in ("", "a b", "-x"):
        with pytest.raises(InvalidError):
            Image.from_registry(refused)
    with pytest.raises(InvalidError, match="no option"):
        Image.from_registry("a", nonsense=1)


def test_secrets_of_a_build_are_in_no_key() -> None:
    def made(token: str, other: str = "x") -> tuple[Image, Collected]:
        secrets = [Secret.from_dict({"TOKEN": token}), Secret.from_dict({"OTHER": other})]
        recipe = BASE.run_commands("true", secrets=secrets).apt_install("git", secrets=secrets[1:])
        return recipe, Collected()

    (one, into), (two, _) = made("a"), made("b")
    spec = one._collect(into)
    assert [layer[1].get("secrets") for layer in spec.layers] == [None, [0, 1], [1]]
    assert [secret._variables() for secret in into.secrets] == [{"TOKEN": "a"}, {"OTHER": "x"}]
    assert image.key(spec) == image.key(two._spec())
    assert "TOKEN" not in str(spec)


def test_a_changed_file_makes_another_image_and_its_place_does_not(project: Path) -> None:
    copied = BASE.add_local_dir(project / "data", "/data", copy=True)
    before = image.key(copied._spec())
    (project / "moved").mkdir()
    os.rename(project / "data", project / "moved" / "data")
    moved = BASE.add_local_dir(project / "moved" / "data", "/data", copy=True)
    assert image.key(moved._spec()) == before
    (project / "moved" / "data" / "a.txt").write_text("changed")
    assert image.key(moved._spec()) != before


def test_attached_files_cost_no_build(project: Path) -> None:
    attached = BASE.add_local_dir(project / "data", "/data").add_local_file(project / "run.sh", "/opt/")
    spec = attached._spec()
    assert image.key(spec) == image.key(BASE._spec())
    assert [place for place, _ in spec.attached] == ["/data", "/opt"]
    with pytest.raises(InvalidError, match="comes after"):
        attached.run_commands("true")


def test_files_are_ignored_by_patterns_and_by_functions(project: Path) -> None:
    for ignore in (["**/*.log"], FilePatternMatcher("*.log"), ~FilePatternMatcher("**/*.txt")):
        assert names(BASE.add_local_dir(project / "data", "/d", ignore=ignore)) == {"a.txt", "deep/c.txt"}
    assert names(BASE.add_local_dir(project / "data", "/d", ignore=lambda path: path.name != "a.txt")) == {
        "a.txt"
    }
    assert names(BASE.add_local_dir(project / "data", "/d", ignore=["deep"])) == {"a.txt", "b.log"}
    with pytest.raises(InvalidError, match="list of patterns"):
        BASE.add_local_dir(project / "data", "/d", ignore="*.log")


def test_what_is_not_there_is_told_when_the_app_starts(project: Path) -> None:
    for made in (
        BASE.add_local_file(project / "none", "/x"),
        BASE.add_local_dir(project / "run.sh", "/x"),
        Image.from_dockerfile(project / "Dockerfile"),
        BASE.uv_sync(project),
        BASE.pip_install_from_pyproject(project / "pyproject.toml"),
    ):
        with pytest.raises(InvalidError):
            made._spec()
    for path in ("relative", "/a/../b"):
        with pytest.raises(InvalidError, match="absolute"):
            BASE.add_local_file(project / "run.sh", path)


def test_a_dockerfile_has_its_context_without_what_is_ignored(project: Path) -> None:
    (project / "Dockerfile").write_text("FROM debian\nCOPY . /x\n")
    (project / ".dockerignore").write_text("data\n!data/a.txt\n")
    made = Image.from_dockerfile(project / "Dockerfile", build_args={"V": "1"})
    assert last(made)[1]["dockerfile"] == "FROM debian\nCOPY . /x\n"
    assert names(made) == {"Dockerfile", ".dockerignore", "run.sh", "data/a.txt"}
    assert "data/b.log" in names(Image.from_dockerfile(project / "Dockerfile", ignore=[]))


def test_projects_are_read_when_the_app_starts(project: Path) -> None:
    (project / "pyproject.toml").write_text(
        '[project]\nname="p"\nversion="1"\ndependencies=["a>=1"]\n[project.optional-dependencies]\nx=["b"]\n'
    )
    (project / "uv.lock").write_text("version = 1\n")
    (project / "more.txt").write_text("e\n")
    (project / "requirements.txt").write_text("c==1 \\\n  --hash=sha256:00\n# no\nd  # why\n-r more.txt\n")
    made = BASE.pip_install_from_pyproject(project / "pyproject.toml", ["x"])
    assert last(made)[1]["requirements"] == [["a>=1", "b"]]
    made = BASE.pip_install_from_requirements(project / "requirements.txt")
    assert last(made)[1]["requirements"] == [["c==1 --hash=sha256:00", "d", "e"]]
    assert last(BASE.uv_sync(project, groups=["dev"]))[1]["lock"] == "version = 1\n"
    with pytest.raises(InvalidError, match="no optional dependencies 'y'"):
        BASE.pip_install_from_pyproject(project / "pyproject.toml", ["y"])._spec()
    (project / "requirements.txt").write_text("-e .\n")
    with pytest.raises(InvalidError, match="-e cannot be carried out"):
        BASE.pip_install_from_requirements(project / "requirements.txt")._spec()


def test_a_function_counts_by_its_text_its_arguments_and_what_it_uses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def key(*args: int) -> str:
        return image.key(BASE.run_function(double, args=args)._spec())

    first = key(1)
    assert key(1) == first
    assert key(2) != first
    monkeypatch.setitem(double.__globals__, "FACTOR", 3)
    assert key(1) != first
    with pytest.raises(InvalidError, match="plain function"):
        BASE.run_function("name")


def double(x: int) -> None:
    print(x * FACTOR)


def test_what_is_declared_is_the_same_where_the_files_are_not(project: Path) -> None:
    made = BASE.add_local_dir(project / "data", "/data", copy=True).pip_install_from_requirements("r.txt")
    declared = made._declared()
    (project / "data" / "a.txt").unlink()
    assert (
        made._declared()
        == declared
        == BASE.add_local_dir(project / "data", "/data", copy=True)
        .pip_install_from_requirements("r.txt", force_build=True)
        ._declared()
    )
    assert pickle.loads(pickle.dumps(made))._declared() == declared


def test_private_repositories_need_a_token() -> None:
    with pytest.raises(InvalidError, match="GITHUB_TOKEN"):
        BASE.pip_install_private_repos("github.com/a/b", git_user="me")
    secret = Secret.from_dict({"GITHUB_TOKEN": "t"})
    with pytest.raises(InvalidError, match="none of GitHub or GitLab"):
        BASE.pip_install_private_repos("example.com/a", git_user="me", secrets=[secret])
    made = BASE.pip_install_private_repos("github.com/a/b@v1", git_user="me", secrets=[secret])
    assert last(made)[1]["repositories"] == ["github.com/a/b@v1"]


def test_patterns_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "ignore").write_text("# comment\n*.pyc\n!keep.pyc\n")
    matcher = FilePatternMatcher.from_file(tmp_path / "ignore")
    assert [matcher(name) for name in ("a.pyc", "keep.pyc", "a.py")] == [True, False, False]
    assert not matcher.can_prune_directories()
    assert FilePatternMatcher("*.pyc").can_prune_directories()
    assert (~matcher)(Path("a.py"))
    with pytest.raises(InvalidError, match="cannot be read"):
        FilePatternMatcher.from_file(tmp_path / "none")
