"""Be a user to whom a control group of version 2 is delegated: `delegated_group.py <mount> <name> <uid>`.

Root makes the group and gives it away, as systemd does. Prints which groups there are, with a container and
after the end.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from tidemill._wire.specs import Resources
from tidemill_worker.sandbox.cgroups import Cgroups

FILES = ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads")


def main(mount: Path, name: str, uid: int) -> None:
    group = mount / name
    group.mkdir()
    for file in FILES:
        os.chown(group / file, uid, uid)
    (group / "cgroup.procs").write_text(str(os.getpid()))
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    controllers = tuple((mount / "cgroup.controllers").read_text().split()[:1])
    before = groups(group)
    ours = Cgroups.of_version_2(mount, name, "mine", controllers)
    with subprocess.Popen(["sleep", "600"]) as container:
        ours.add("co-1", container.pid, Resources(), 99)
        during = groups(group)
        where = Path(f"/proc/{container.pid}/cgroup").read_text().splitlines()[-1]
        ours.remove("co-1")
        ended = container.wait(10)
    ours.close()
    print(json.dumps([before, during, where.rpartition("/")[2], ended, groups(group)]))


def groups(root: Path) -> dict[str, int]:
    """Return the groups below one, with how many processes are in each."""
    found = [root, *(path for path in root.rglob("*") if path.is_dir())]
    return {str(path.relative_to(root)): len((path / "cgroup.procs").read_text().split()) for path in found}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
