"""What is decided about images before anything is run."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill._wire.specs import ImageSpec
from tidemill.exception import ImageBuildError
from tidemill_worker import build_steps, dockerfiles, recipes, roots, space
from tidemill_worker.build_steps import Step, Written
from tidemill_worker.space import Stored
from tidemill_worker.uses import Uses

BASE = ("debian_slim", {"python_version": "3.11"})
STEP = Step(2, "run_commands", {}, "new", "old", Written({"A": "it's $HOME"}, "/srv"))


def test_a_layer_is_the_same_after_the_same_layers() -> None:
    env, apt = ("env", {"vars": {"A": "1"}}), ("apt_install", {"packages": ["git"]})
    steps, written = build_steps.steps([BASE, env, apt, ("workdir", {"path": "/srv"})], ["salt"], "main")
    assert [step.operation for step in steps] == ["debian_slim", "apt_install"]
    assert steps[1].before == steps[0].key
    assert steps[1].written == Written({"A": "1"})
    assert written == Written({"A": "1"}, "/srv")
    others, _ = build_steps.steps([BASE, apt], ["salt"], "main")
    assert others[0].key == steps[0].key
    assert others[1].key != steps[1].key  # it was built with another environment
    secret = ("run_commands", {"commands": ["true"], "secrets": [0]})
    one, two = (build_steps.steps([BASE, secret, apt], ["salt"], each)[0] for each in ("one", "two"))
    assert [mine.key == theirs.key for mine, theirs in zip(one, two, strict=True)] == [True, False, False]
    assert build_steps.steps([BASE], ["pepper"], "main")[0][0].key != steps[0].key


@given(
    st.dictionaries(
        st.from_regex(r"[A-Z_]{1,8}", fullmatch=True),
        st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"])),
    ),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
)
def test_nothing_that_users_write_becomes_part_of_a_script(variables: dict[str, str], command: str) -> None:
    script = build_steps.run(STEP, [command], variables=variables)
    for line in script.replace(f"{build_steps.LISTEN}\n", "").splitlines():
        assert line.startswith(
            (
                "mkdir -p $(dirname /mnt/own/",
                "c=$(buildah",
                "trap ",
                "buildah ",
                "heard buildah ",
                "m=$(",
                "rm -rf $m/run/tidemill",
            )
        ), line


def test_what_users_write_arrives_as_it_is(tmp_path: Path) -> None:
    text = "echo 'a'\n\"$b\" `c` \\ EOF ü"
    path = tmp_path / "deep" / "file"
    subprocess.run(["sh", "-c", build_steps.write(str(path), text)], check=True, timeout=60)
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("reference", "name", "near"),
    [
        ("python:3.12", "docker.io/library/python:3.12", False),
        ("org/image@sha256:00", "docker.io/org/image@sha256:00", False),
        ("ghcr.io/org/image", "ghcr.io/org/image", False),
        ("localhost/image", "localhost/image", True),
        ("127.0.0.1:5000/image:1", "127.0.0.1:5000/image:1", True),
    ],
)
def test_names_without_a_registry_are_docker_hubs(reference: str, name: str, near: bool) -> None:
    assert build_steps.full_name(reference) == name
    assert build_steps.is_near(reference) is near


def test_what_secrets_took_part_in_belongs_to_its_workspace() -> None:
    install = ("pip_install", {"packages": ["a"], "secrets": [0]})
    private = recipes.read(ImageSpec((BASE, install), secrets=("st-1",)))
    assert recipes.key(private, "/python", "one") != recipes.key(private, "/python", "two")
    assert recipes.resolution_key(private, "3.11", "one") != recipes.resolution_key(private, "3.11", "two")
    public = recipes.read(ImageSpec((BASE, ("pip_install", {"packages": ["a"]}))))
    assert recipes.key(public, "/python", "one") == recipes.key(public, "/python", "two")


def test_a_token_is_for_git_and_in_no_address_of_ours() -> None:
    found = recipes.git_credentials({"TIDEMILL_GIT_USER": "me", "GITHUB_TOKEN": "t"})
    assert found["GIT_CONFIG_VALUE_0"] == "https://github.com/"
    assert recipes.git_credentials({"GITHUB_TOKEN": "t"}) == {}
    told = {"repositories": ["github.com/a/b"], "git_user": "me", "secrets": [0]}
    read = recipes.install("pip_install_private_repos", told, 2)
    assert read.packages == ("git+https://github.com/a/b",)


def test_the_first_operation_that_needs_a_root_is_told() -> None:
    layers = (BASE, ("pip_install", {"packages": ["a"]}), ("apt_install", {"packages": ["git"]}))
    assert recipes.read(ImageSpec(layers)).needs_root == "apt_install"
    assert recipes.read(ImageSpec(layers[:2])).needs_root == ""


def test_copied_files_of_a_recipe_of_packages_are_attached() -> None:
    files = ("add_local_file", {"files": {"remote": "/root", "bundle": "d1"}})
    spec = ImageSpec((BASE, files), attached=(("/data", "d2"),))
    assert recipes.read(spec).files == (("/root", "d1"), ("/data", "d2"))


@given(st.lists(st.tuples(st.integers(0, 100), st.floats(0, 100)), max_size=20), st.integers(0, 500))
def test_the_least_recently_used_images_go_and_no_more_than_needed(
    sizes: list[tuple[int, float]], budget: int
) -> None:
    images = [Stored(str(number), size, used) for number, (size, used) in enumerate(sizes)]
    gone = list(space.victims(images, budget, keep={"0"}))
    assert "0" not in gone
    left = sum(image.size for image in images if image.key not in gone)
    kept = [image for image in images if image.key not in gone and image.key != "0"]
    assert left <= budget or not kept
    if gone:
        without_last = left + next(image.size for image in images if image.key == gone[-1])
        assert without_last > budget
        newest = max(image.used for image in images if image.key in gone)
        assert all(image.used >= newest for image in kept)


@pytest.mark.parametrize("path", ["relative", "/root/../../etc", ".."])
def test_paths_that_lead_elsewhere_are_refused_whoever_sent_them(path: str) -> None:
    for spec in (
        ImageSpec((BASE, ("workdir", {"path": path}))),
        ImageSpec((BASE, ("add_local_file", {"files": {"remote": path, "bundle": "d"}}))),
        ImageSpec((BASE,), attached=((path, "d"),)),
    ):
        with pytest.raises(ImageBuildError, match="not a path"):
            recipes.read(spec)


def test_options_that_reach_the_machine_are_found() -> None:
    def daring(**arguments: object) -> str:
        return recipes.daring(recipes.install("pip_install", {"packages": ["a"], **arguments}, 2))

    assert daring(extra_options="--no-index --find-links https://x", pre=True) == ""
    assert daring(extra_options="--target /usr/lib") == "--target"
    assert daring(extra_options="--cache-dir=/etc") == "--cache-dir=/etc"
    assert daring(packages=["-r /etc/shadow"]) == "-r"
    assert daring(packages=["--index-url https://x"]) == ""


def test_packages_are_wheels_of_an_index_and_no_variable_steers_their_installer() -> None:
    def refused(package: str, **variables: str) -> bool:
        install = recipes.install("pip_install", {"packages": [package]}, 2)
        return bool(recipes.daring(install) or recipes.daring_variable(variables))

    for fine in ("a", "a[b]>=1; python_version<'4'", "a @ https://x/a.whl", "a[b] @ git+https://h/a@v1"):
        assert not refused(fine, GITHUB_TOKEN="x", UV_INDEX_MINE_PASSWORD="y", UV_DEFAULT_INDEX="https://x")
    near = (
        "./a",
        "~/a",
        "/a.whl",
        "a.whl",
        "file:///a",
        "a @ file:///a#https://",
        "git+ssh://h/a",
        "a @ ${X}",
    )
    assert all(map(refused, near))
    steering = ("GIT_SSH_COMMAND", "LD_PRELOAD", "UV_PYTHON", "https_proxy", "SSL_CERT_FILE", "PATH", "HOME")
    assert all(refused("a", **{name: "x"}) for name in steering)


def test_a_poetry_project_brings_no_plugins_and_every_project_its_lock() -> None:
    for arguments in ({"pyproject": "requires-plugins", "lock": "x"}, {"pyproject": "", "lock": None}):
        install = recipes.install("poetry_install_from_file", arguments, 2)
        with pytest.raises(ImageBuildError, match=r"requires-plugins|needs its lock"):
            recipes.refuse_daring(install, ())


def test_a_dockerfile_has_no_layers_of_others() -> None:
    for text in ("FROM localhost/tidemill:key\n", "FROM x\nCOPY --from=localhost/tidemill:key / /\n"):
        with pytest.raises(ImageBuildError, match="others' layers"):
            dockerfiles.build(STEP, "key", text, workspace="main", secrets={})
    assert "--pull-never" in dockerfiles.lines(STEP, "k", ["RUN x"], workspace="main", secrets={})


def test_commands_of_a_dockerfile_speak_through_a_pipe_whatever_their_shell_is() -> None:
    text = (
        "# syntax\nFROM a AS one\nRUN x \\\n  # why\n  SHELL\n"
        'shell ["/bin/bash", \\\n "-c"]\nRUN y\nFROM b\nRUN z\n'
    )
    assert dockerfiles.aloud(text).splitlines() == [
        "# syntax",
        "FROM a AS one",
        'SHELL ["/run/tidemill/aloud", "/bin/sh", "-c"]',
        "RUN x \\",
        "  # why",
        "  SHELL",
        'SHELL ["/run/tidemill/aloud", "/bin/bash", "-c"]',
        "RUN y",
        "FROM b",
        'SHELL ["/run/tidemill/aloud", "/bin/sh", "-c"]',
        "RUN z",
        'SHELL ["/bin/sh", "-c"]',
    ]


def test_what_a_here_document_says_is_no_instruction() -> None:
    text = (
        "FROM a\nRUN python3 <<EOF && cat 3<<-'end'\nfrom os import path\nSHELL [\"x\"]\nEOF\n"
        "FROM b\n\tend\nRUN echo $((1<<EOF))\nFROM c\n"
    )
    shell = 'SHELL ["/run/tidemill/aloud", "/bin/sh", "-c"]'
    lines = text.splitlines()
    assert dockerfiles.aloud(text).splitlines() == [
        lines[0], shell, *lines[1:], shell, 'SHELL ["/bin/sh", "-c"]',
    ]  # fmt: skip


def test_conda_packages_come_from_their_channels_in_order() -> None:
    command, files = build_steps.conda({"packages": ["a=1", "b>2"], "channels": ["x", "conda-forge"]})
    assert command.splitlines()[-1].startswith(
        "micromamba install -n base -y -c x -c conda-forge a=1 'b>2' && "
    )
    assert files == {}
    told = {"packages": [], "channels": [], "spec": "dependencies: [a]\n", "suffix": ".yml"}
    command, files = build_steps.conda(told)
    assert "-f /run/tidemill/order/spec.yml" in command
    assert files == {"spec.yml": "dependencies: [a]\n"}
    ran = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False, env={})
    assert ran.returncode == 127
    assert "begin it with Image.micromamba()" in ran.stderr


def test_what_earlier_builds_left_belongs_to_a_workspace() -> None:
    def key(layer: tuple[str, dict[str, Any]], workspace: str) -> str:
        return build_steps.steps([BASE, layer], [], workspace)[0][-1].key

    cached = ("dockerfile_commands", {"commands": ["RUN --mount=type=cache,target=/x make"]})
    for layer in (cached, ("pip_install", {"packages": ["a"]})):
        assert key(layer, "one") != key(layer, "other")
    plain = ("dockerfile_commands", {"commands": ["RUN make"]})
    assert key(plain, "one") == key(plain, "other")
    scripts = {
        workspace: dockerfiles.build(STEP, "k", "FROM x\n", workspace=workspace, secrets={})
        for workspace in ("one", "other")
    }
    assert scripts["one"] != scripts["other"]


async def test_an_image_that_is_used_is_nobodys_alone(tmp_path: Path) -> None:
    ours, others = Uses(tmp_path / "locks"), Uses(tmp_path / "locks")
    await ours.hold("key", "co-1")
    await ours.hold("key", "co-2")
    await others.hold("key", "co-3")
    assert others.take("key") is None
    others.release("co-3")
    ours.release("co-1")
    assert others.take("key") is None
    ours.release("co-2")
    assert others.take("key") is not None


def test_an_image_whose_python_is_too_old_or_missing_is_refused_with_what_helps() -> None:
    assert roots._checked_python("some warning\n/usr/bin/python3 3.12\n") == ("/usr/bin/python3", "3.12")
    for told, why in (
        ("/usr/bin/python3 3.9\n", "the image's Python is 3.9"),
        ("", "the image has no Python"),
    ):
        with pytest.raises(ImageBuildError, match=why) as caught:
            roots._checked_python(told)
        assert "add_python" in caught.value.hint
