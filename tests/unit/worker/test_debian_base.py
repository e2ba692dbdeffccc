"""Where the Debian tree is made."""

from pathlib import Path

from tidemill_worker import debian

TABLE = r"""
proc /proc proc rw 0 0
/dev/vda /mnt/a\040disk/builds/.mmdebstrap ext4 rw 0 0
udev /mnt/a\040disk/builds/.mmdebstrap/tree/dev devtmpfs rw 0 0
udev /mnt/a\040disk/builds/.mmdebstrap-beside/dev devtmpfs rw 0 0
""".lstrip()


def test_what_is_mounted_in_a_folder_is_seen_whatever_its_path_is_like() -> None:
    place = Path("/mnt/a disk/builds/.mmdebstrap")
    assert debian._mounts_in(place, TABLE) == [str(place), str(place / "tree" / "dev")]
