from pathlib import PurePosixPath

import pytest

from tidemill import Volume, volume
from tidemill.exception import InvalidError, UnimplementedError


def test_a_volume_is_a_lazy_name() -> None:
    handle = Volume.from_name("my-data", create_if_missing=True, version=2)
    assert handle.name == "my-data"
    assert handle.read_only().with_mount_options(sub_path="a").name == "my-data"


@pytest.mark.parametrize("name", ["", "a b", None, "x" * 65])
def test_names_that_cannot_be_are_refused(name: object) -> None:
    with pytest.raises(InvalidError):
        Volume.from_name(name)


def test_mounts_are_absolute_paths() -> None:
    handle = Volume.from_name("v")
    assert list(volume.check({PurePosixPath("/data/"): handle})) == ["/data"]
    for path in ("data", "/a/../b", "/", "/root", "/tmp", 3):
        with pytest.raises(InvalidError):
            volume.check({path: handle})


def test_one_volume_at_two_paths_is_refused() -> None:
    with pytest.raises(InvalidError, match="twice"):
        volume.check({"/a": Volume.from_name("v"), "/b": Volume.from_name("v")})


def test_what_is_not_a_volume_is_refused() -> None:
    with pytest.raises(InvalidError, match="not a Volume"):
        volume.check({"/a": "v"})
    with pytest.raises(InvalidError, match="dictionary"):
        volume.check([Volume.from_name("v")])


def test_mounting_is_refused_and_not_forgotten() -> None:
    with pytest.raises(UnimplementedError, match="/a"):
        volume.refuse("f", {"/a": Volume.from_name("v")})


def test_what_a_volume_cannot_do_yet_is_said() -> None:
    with pytest.raises(AttributeError, match=r"Volume\.commit is not in this version"):
        Volume.from_name("v").commit()
    with pytest.raises(AttributeError, match=r"Volume\.ephemeral is not in this version"):
        Volume.ephemeral()
