"""What stands in the layers of images."""

from dataclasses import replace
from pathlib import Path

from tidemill import Image, Secret
from tidemill._image_parts import Collected
from tidemill._wire import coding
from tidemill._wire.specs import ImageSpec
from tidemill_registry import layers


def prepare() -> None: ...


def test_whatever_the_methods_of_an_image_make_is_let_in(tmp_path: Path) -> None:
    for name in ("Dockerfile", "pyproject.toml", "uv.lock", "poetry.lock", "requirements.txt", "spec.yaml"):
        (tmp_path / name).write_text("[project]\ndependencies = []\n" if name == "pyproject.toml" else "")
    here, secret = str(tmp_path), Secret.from_dict({"TOKEN": "t"})
    project = f"{here}/pyproject.toml"
    built = (
        Image.micromamba("3.12")
        .micromamba_install("a", spec_file=f"{here}/spec.yaml", channels=["conda-forge"], secrets=[secret])
        .apt_install("git", env={"A": "1"})
        .pip_install("a", find_links="/w", extra_options="-q", pre=True, force_build=True)
        .uv_pip_install(
            "a", extra_index_url=["https://a", "https://b"], requirements=[f"{here}/requirements.txt"]
        )
        .pip_install_from_requirements(f"{here}/requirements.txt")
        .pip_install_from_pyproject(project)
        .pip_install_private_repos("github.com/a/b", git_user="me", secrets=[secret])
        .uv_sync(here)
        .poetry_install_from_file(project, with_=["a"], ignore_lockfile=True)
        .run_commands("true", secrets=[secret])
        .dockerfile_commands(
            "RUN true", context_files={"a": project}, context_dir=here, build_args={"A": "1"}
        )
        .run_function(prepare, cpu=1, memory=64, timeout=5, secrets=[secret])
        .add_local_file(project, "/a", copy=True)
        .add_local_dir(here, "/b", copy=True)
        .add_local_python_source("tidemill", copy=True)
        .env({"A": "1"})
        .workdir("/b")
        .shell(["/bin/sh"])
        .entrypoint([])
        .cmd(["a"])
    )
    bases = [
        Image.debian_slim(),
        Image.from_scratch(),
        Image.from_registry("a", secret, setup_dockerfile_commands=["RUN true"], add_python="3.12"),
        Image.from_gcp_artifact_registry("a"),
        Image.from_aws_ecr("a"),
        Image.from_dockerfile(f"{here}/Dockerfile", registry_secret=secret, secrets=[secret]),
        Image.from_id("im-1"),
        Image.from_name("a", environment_name="b"),
    ]
    seen = set()
    for image in (built, *bases):
        collected = Collected()
        spec = image._collect(collected)
        spec = replace(spec, secrets=tuple(map(str, range(len(collected.secrets)))))
        assert not list(layers.problems(coding.decode(ImageSpec, coding.encode(spec))))
        seen |= {operation for operation, _ in spec.layers}
    assert seen >= layers.NEEDED.keys()
