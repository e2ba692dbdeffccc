"""The workload on Ray: as tasks, and as two actors (16 threads for the sleeps)."""

import itertools
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_DEDUP_LOGS="0")

import ray
from measure import RUNS, Report, percentile
from workload import Peer, measure


@ray.remote
def identity(value: Any) -> Any:
    return value


@ray.remote(num_cpus=0)
class Actor:
    def identity(self, value: Any) -> Any:
        return value

    def nap(self, seconds: float) -> None:
        time.sleep(seconds)


def fan_over(submits: list[Callable[[Any], Any]]) -> Callable[[Iterable[Any]], list[Any]]:
    def fan(values: Iterable[Any]) -> list[Any]:
        turn = itertools.cycle(submits)
        return ray.get([next(turn)(value) for value in values])

    return fan


def main() -> None:
    report = Report("ray")
    begun = time.perf_counter()
    ray.init(
        num_cpus=2,
        _node_ip_address="127.0.0.1",
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=1 << 30,
    )
    assert ray.get(identity.remote(1)) == 1
    report.add("start_and_first_task", (time.perf_counter() - begun) * 1e3, "ms")
    sleepers = [Actor.options(max_concurrency=8).remote() for _ in range(2)]
    ray.get([sleeper.nap.remote(0) for sleeper in sleepers])
    nap = fan_over([sleeper.nap.remote for sleeper in sleepers])
    task = Peer(
        "ray", lambda value: ray.get(identity.remote(value)), fan_over([identity.remote]), inputs=5000
    )
    measure(report, task)
    actors = [Actor.remote() for _ in range(2)]
    submits = [actor.identity.remote for actor in actors]
    actor = Peer("ray", lambda value: ray.get(submits[0](value)), fan_over(submits), nap, inputs=5000)
    measure(report, actor, "actor_")
    for _ in range(RUNS):
        report.add("actor_first_call", percentile([_new_actor() for _ in range(5)], 0.5) * 1e3, "ms")
    report.note("num_cpus=2, no dashboard; 5,000 inputs at once; actor_first_call: creation to first result")
    report.write()
    ray.shutdown()


def _new_actor() -> float:
    begun = time.perf_counter()
    actor = Actor.remote()
    ray.get(actor.identity.remote(1))
    seconds = time.perf_counter() - begun
    ray.kill(actor)
    return seconds


if __name__ == "__main__":
    main()
