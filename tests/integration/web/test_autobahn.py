"""Autobahn|Testsuite, the suite that others wrote for WebSockets, against a function.

It runs on Python 2.7 only, so here it runs where somebody has installed it:

    python2.7 -m pip install --user autobahntestsuite

`test_web_socket_conformance.py` has its cases by hand. Left out are those that only measure (9), and all but
the first of each kind of those that send a thousand compressed messages (12 and 13).
"""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from web_site import Site

PROGRAM = shutil.which("wstest")
CASES = [*(f"{group}.*" for group in (1, 2, 3, 4, 5, 6, 7, 10)), *(f"{kind}.1" for kind in ("12.1", "12.2"))]
CASES += [f"13.{kind}.1" for kind in range(1, 8)]

# "Not strict": what came in one piece with a fault is not answered, or text that is none is refused only as a
# whole. "Unimplemented": it offers windows for compression that the gateway does not have.
FINE = {"OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED"}


@pytest.mark.skipif(PROGRAM is None, reason="Autobahn|Testsuite is not installed; it needs Python 2.7")
@pytest.mark.timeout(600)
async def test_the_suite_finds_no_fault(site: Site, tmp_path: Path) -> None:
    server = {"agent": "gateway", "url": site.socket("web", "/echo")}
    plan = {"outdir": str(tmp_path), "servers": [server], "cases": CASES, "exclude-cases": []}
    (tmp_path / "plan.json").write_text(json.dumps(plan | {"exclude-agent-cases": {}}))
    command = (str(PROGRAM), "-m", "fuzzingclient", "-s", str(tmp_path / "plan.json"))
    running = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    assert await running.wait() == 0
    found = json.loads((tmp_path / "index.json").read_text())["gateway"]
    assert len(found) > 250
    faults = {case: seen for case, seen in found.items() if {seen["behavior"], seen["behaviorClose"]} - FINE}
    assert not faults
