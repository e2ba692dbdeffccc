"""What the gateway turns away, and the first request of a function that has no container.

refusals      requests above a limit, as fast as wrk can; at a pace: what they cost those that are admitted
first         the first request of web functions without containers, beside the first call of plain ones
"""

import http.client
import re
import subprocess
import tempfile
import time
from pathlib import Path
from types import ModuleType

from measure import RUNS, Report
from servers import folder
from stacks import load, stack
from suite_web import SECONDS, Peer, figures, run, wrk

from tidemill._stack import StackInfo

PACE = 6_000  # refused requests per second while others are admitted
PACED = 60  # connections that they come over
FLOOD = 64  # connections without a pace
COLD = 20  # functions of each kind

PROGRAM = """import tidemill

app = tidemill.App("edge")
limited_app = tidemill.App("edge-limited")

@app.function(min_containers=1, max_containers=1)
@tidemill.concurrent(max_inputs=1_000)
@tidemill.fastapi_endpoint()
async def hello() -> dict[str, str]:
    return {"hello": "world"}

@limited_app.function()
@tidemill.fastapi_endpoint()
async def limited() -> None:
    return None
"""
PAGE = """
@app.function()
@tidemill.fastapi_endpoint(label="page{number}")
async def page{number}() -> None:
    return None

@app.function()
def plain{number}() -> None:
    return None
"""


def write() -> Path:
    """Write the program."""
    file = folder() / "edge.py"
    file.write_text(PROGRAM + "".join(PAGE.format(number=number) for number in range(COLD + 1)))
    return file


def ask(port: int, path: str) -> int:
    """Return the status of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def refusals(report: Report, hello: Peer, limited: str) -> None:
    run("workspace", "rate-limit", "set", "--app", "edge-limited", "--rate", "0.01", "--burst", "1")
    while ask(hello.port, limited) != 429:
        time.sleep(0.05)
    address = f"http://127.0.0.1:{hello.port}{limited}"
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as pace:
        pace.write(f"function delay() return math.random(0, {2 * 1_000 * PACED // PACE}) end")
        pace.flush()
        paced = ["wrk", "-t1", f"-c{PACED}", f"-d{SECONDS + 2}", "--latency", "-s", pace.name, address]
        for _ in range(RUNS):
            flood = ["wrk", "-t1", f"-c{FLOOD}", f"-d{SECONDS}", "--latency", address]
            report.add("refusals", refused(subprocess.check_output(flood, text=True)), "requests/s")
            _, alone, _ = wrk(hello, 1, SECONDS)
            beside = subprocess.Popen(paced, stdout=subprocess.PIPE, text=True)
            time.sleep(1)
            _, admitted, _ = wrk(hello, 1, SECONDS)
            report.add("paced_refusals", refused(beside.communicate()[0]), "requests/s")
            report.add("admitted_alone_p50", alone, "ms")
            report.add("admitted_beside_refusals_p50", admitted, "ms")


def refused(said: str) -> float:
    """Return the rate of what wrk says; all of it must have been refused."""
    rate, _, requests = figures(said)
    others = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    assert others is not None, said
    assert int(others[1]) >= requests * 0.999, said
    return rate


def first(report: Report, program: ModuleType, port: int) -> None:
    ask(port, "/f/local--page0/")
    program.plain0.remote()
    for number in range(1, COLD + 1):
        begun = time.perf_counter()
        assert ask(port, f"/f/local--page{number}/") == 200
        report.add("first_request", (time.perf_counter() - begun) * 1e3, "ms")
        begun = time.perf_counter()
        getattr(program, f"plain{number}").remote()
        report.add("first_call", (time.perf_counter() - begun) * 1e3, "ms")


def main() -> None:
    report = Report("edge")
    with stack() as home:
        program = load(write())
        program.app.deploy()
        program.limited_app.deploy()
        run("workspace", "rate-limit", "set", "--rate", "1000000", "--burst", "1000000")
        info = StackInfo.from_json((home / "stack.json").read_bytes())
        port = int(info.gateway_url.rpartition(":")[2])
        hello = Peer("tidemill", port, "/f/local--edge-hello", [])
        limited = "/f/local--edge-limited-limited/"
        while ask(port, "/f/local--edge-hello/") != 200 or ask(port, limited) == 404:
            time.sleep(0.05)
        first(report, program, port)
        refusals(report, hello, limited)
    report.write()


if __name__ == "__main__":
    main()
