"""The workload on Celery with Redis: two prefork processes, and one of 16 threads for the sleeps."""

import os
import sys
import time
from typing import Any

from celery import Celery
from measure import RUNS, Report
from servers import redis, start, stop
from workload import Peer, measure

app = Celery("suite_celery", broker=os.environ.get("BROKER"), backend=os.environ.get("BROKER"))
app.conf.update(
    task_serializer="pickle",
    result_serializer="pickle",
    accept_content=["pickle", "json"],
    worker_prefetch_multiplier=64,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
    task_routes={"suite_celery.nap": {"queue": "naps"}},
)


@app.task(name="suite_celery.identity")
def identity(value: Any) -> Any:
    return value


@app.task(name="suite_celery.nap")
def nap(seconds: float) -> None:
    time.sleep(seconds)


def worker(name: str, queue: str, pool: str, size: int) -> Any:
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "suite_celery",
        "worker",
        "-l",
        "WARNING",
        "-n",
        f"{name}@%h",
    ]
    options = [
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
        "-P",
        pool,
        "-c",
        str(size),
        "-Q",
        queue,
    ]
    return start(command + options, name, C_FORCE_ROOT="1", BROKER=os.environ["BROKER"])


def gather(task: Any, values: Any) -> list[Any]:
    return [handle.get(timeout=300) for handle in [task.delay(value) for value in values]]


def main() -> None:
    os.environ["BROKER"] = redis()
    app.conf.update(broker_url=os.environ["BROKER"], result_backend=os.environ["BROKER"])
    report = Report("celery")
    for number in range(RUNS):
        begun = time.perf_counter()
        process = worker(f"cold{number}", "celery", "prefork", 2)
        assert identity.delay(7).get(timeout=60) == 7
        report.add("first_call", (time.perf_counter() - begun) * 1e3, "ms")
        stop(process)
    worker("calls", "celery", "prefork", 2)
    worker("naps", "naps", "threads", 16)
    gather(nap, [0.0])
    measure(
        report,
        Peer(
            "celery",
            call=lambda value: identity.delay(value).get(timeout=60),
            fan=lambda values: gather(identity, values),
            sleep16=lambda values: gather(nap, values),
            calls=500,
            inputs=5000,
        ),
    )
    report.note("prefork -c 2, prefetch 64, pickle, Redis without persistence; 5,000 inputs at once")
    report.note("first_call: boot of a worker to its first result")
    report.write()


if __name__ == "__main__":
    from suite_celery import main as run  # so that the tasks belong to the module the workers import

    run()
