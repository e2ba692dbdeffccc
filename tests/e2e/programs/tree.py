"""Calls that call others, in every way."""

import sys
import time
from collections import Counter

import tidemill

app = tidemill.App("tree")


@app.function()
def leaf(x: int) -> int:
    if x == 2:
        raise ValueError("two")
    return x


@app.function()
def down(n: int) -> int:
    return down.remote(n - 1) if n else 0


@app.function()
def sleeps() -> None:
    time.sleep(60)


@app.function(timeout=1)
def late() -> None:
    time.sleep(60)


@app.function()
def branch() -> str:
    list(leaf.map(range(3), return_exceptions=True))
    return sleeps.spawn().object_id


@app.function()
def trunk() -> str:
    print("the trunk")
    down.remote(2)
    return branch.spawn().get()


@app.function(
    retries=tidemill.Retries(max_retries=1, initial_delay=0.0, backoff_coefficient=1.0),
    max_containers=1,  # whose lines are in order
)
def fails(x: int) -> int:
    print(f"failing with {x}", file=sys.stderr)
    if x < 0:
        raise ValueError(x)
    return x


def shape(nodes: list) -> list:
    """Return trees as (function, status, children)."""
    return sorted((node.function_name, node.status.name, shape(node.children)) for node in nodes)


def statuses(nodes: list) -> Counter:
    """Return how many nodes of trees have which status."""
    children = (statuses(node.children) for node in nodes)
    return sum(children, Counter(node.status.name for node in nodes))


def settled(read, is_so):
    """Return what is read once it is so, at the latest after a minute: records follow what they tell of."""
    deadline = time.monotonic() + 60
    while not is_so(found := read()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


@app.local_entrypoint()
def graph() -> None:
    call = trunk.spawn()
    waiting = tidemill.FunctionCall.from_id(call.get())
    all_known = {"SUCCESS": 7, "FAILURE": 1, "PENDING": 1}
    nodes = settled(call.get_call_graph, lambda nodes: statuses(nodes) == all_known)
    print(shape(nodes))
    print(waiting.get_call_graph()[0].function_call_id == call.object_id)
    print(nodes[0].module_name, nodes[0].task_id.startswith("co-"))
    waiting.cancel()
    print([node[1] for node in shape(nodes[0].children[1].children)].count("PENDING"))
    after = settled(call.get_call_graph, lambda nodes: statuses(nodes)["TERMINATED"])
    print(statuses(after)["TERMINATED"])
    print(call.object_id)


@app.local_entrypoint()
def counted() -> None:
    call = leaf.experimental_spawn_map(range(3, 1_503))
    assert sum(call.iter()) == sum(range(3, 1_503))
    nodes = settled(call.get_call_graph, lambda nodes: statuses(nodes) == {"SUCCESS": 500})
    print({node.status.name for node in nodes}, len(nodes))
    slow = late.spawn()
    try:
        slow.get()
    except tidemill.exception.FunctionTimeoutError:
        nodes = settled(slow.get_call_graph, lambda nodes: statuses(nodes) == {"TIMEOUT": 1})
        print(nodes[0].status.name)


@app.local_entrypoint()
def buried() -> None:
    """Wait while somebody replays what is given up here."""
    call = fails.spawn(-1)
    try:
        call.get()
    except ValueError:
        print(app.app_id, call.object_id, flush=True)
    sys.stdin.readline()


@app.local_entrypoint()
def logs() -> None:
    call = trunk.spawn()
    call.get()
    fails.remote(1)
    fails.remote(2)
    printed = {"the trunk\n", "failing with 1\n", "failing with 2\n", "ValueError: two\n"}
    settled(lambda: {entry.message for entry in app.logs.fetch()}, lambda found: found >= printed)
    print([entry.message for entry in call.logs.fetch()])
    print([(entry.message, entry.source) for entry in fails.logs.tail(1)])
    print([entry.message for entry in app.logs.tail(search="with 1")])
    print(len(list(app.logs.fetch())), app.app_id)
