"""The tree that a call belongs to, out of what the registry recorded and what the call itself stored.

Records arrive a moment after the results that they tell of. What is stored of the call itself is known
to be true, so the registry is asked again until it knows that, too.
"""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tidemill import exception
from tidemill._wire import ids
from tidemill._wire.calls import DETAILED, CallGraph, CallSummary, GetCallGraph, GraphInput
from tidemill.call_graph import FROM_OUTPUT, InputInfo, InputStatus

if TYPE_CHECKING:
    from tidemill._client import Client
    from tidemill._kept import KeptCall, Stored

MAX_INPUTS = 200_000  # of one graph
WAIT = 10.0  # seconds for records that are on their way: a machine may be busy
PAUSE = 0.1

_STATUSES = {
    "pending": InputStatus.PENDING,
    "success": InputStatus.SUCCESS,
    "failure": InputStatus.FAILURE,
    "init_failure": InputStatus.INIT_FAILURE,
    "terminated": InputStatus.TERMINATED,
    "timeout": InputStatus.TIMEOUT,
}

_log = logging.getLogger("tidemill")


@dataclass
class Graph:
    """A graph as the registry told it."""

    root: str
    calls: dict[str, CallSummary] = field(default_factory=dict)
    inputs: list[GraphInput] = field(default_factory=list)


async def fetch(client: "Client", call: str, *, whole: bool = True) -> Graph:
    """Return all pages of a graph; `NotFoundError` if nothing is recorded."""
    graph, after = Graph(""), ""
    while True:
        request = GetCallGraph(call, whole, after)
        page = await client.request("registry", "get_call_graph", request, CallGraph)
        graph.root = page.root
        graph.calls.update({each.call: each for each in page.calls})
        graph.inputs += page.inputs
        if page.truncated or len(graph.inputs) > MAX_INPUTS:
            _log.warning("the call graph of %s is too large: only its beginning is shown", call)
            return graph
        if not page.next:
            return graph
        after = page.next


async def read(client: "Client", kept: "KeptCall") -> list[InputInfo]:
    """Return the inputs that a kept call's tree begins with."""
    deadline = asyncio.get_running_loop().time() + WAIT
    while True:
        graph = await _fetch_known(client, kept.call)
        mine = graph.calls.get(kept.call)
        if mine is not None and mine.status != "pending":
            break
        record = await kept.record()
        outputs = await kept.outputs() if record.num_inputs <= DETAILED else {}
        if asyncio.get_running_loop().time() > deadline or _knows(mine, outputs):
            _complete(graph, kept.call, record.num_inputs, outputs)
            break
        await asyncio.sleep(PAUSE)
    return tree(graph)


async def _fetch_known(client: "Client", call: str) -> Graph:
    try:
        return await fetch(client, call)
    except exception.NotFoundError:  # not yet, or not any more
        return Graph(call)


def _knows(call: CallSummary | None, outputs: "dict[int, Stored]") -> bool:
    """Return whether the registry knows of as many ends as are stored."""
    return call is not None and sum(call.counts.values()) - call.counts.get("pending", 0) >= len(outputs)


def _complete(graph: Graph, call: str, count: int, outputs: "dict[int, Stored]") -> None:
    """Add what is stored of a call itself, and the inputs that nobody has taken yet."""
    if call not in graph.calls:
        graph.calls[call] = CallSummary(call, call, "", "", "", "", "", "", "pending", count, {}, 0.0)
    known = {one.index: one for one in graph.inputs if one.call == call}
    graph.inputs = [one for one in graph.inputs if one.call != call]
    for index in range(min(count, DETAILED)):
        one = known.get(index, GraphInput(call, index, "pending", ""))
        if one.status == "pending" and index in outputs:
            status = FROM_OUTPUT[outputs[index].status].name.lower()
            one = GraphInput(call, index, status, outputs[index].container or one.container)
        graph.inputs.append(one)


def tree(graph: Graph) -> list[InputInfo]:
    """Return the inputs of a graph's root, each with what it called."""
    nodes = {ids.input_id(one.call, one.index): _info(graph, one) for one in graph.inputs}
    parents = {call: graph.calls[call].parent for call in sorted(graph.calls) if call != graph.root}
    for parent in parents.values():
        if parent and parent not in nodes and (found := _unrecorded(graph, parent)):
            nodes[parent] = found
    roots: list[InputInfo] = []
    for node in nodes.values():
        above = nodes.get(parents.get(node.function_call_id, ""))
        (roots if above is None else above.children).append(node)
    return roots


def _info(graph: Graph, one: GraphInput) -> InputInfo:
    call = graph.calls.get(one.call)
    return InputInfo(
        input_id=ids.input_id(one.call, one.index),
        function_call_id=one.call,
        task_id=one.container,
        status=_STATUSES[one.status],
        function_name=call.function if call else "",
        module_name=call.module if call else "",
    )


def _unrecorded(graph: Graph, input_id: str) -> InputInfo | None:
    """Return an input that is known only because it called something: those are counted, not recorded."""
    try:
        call, index = ids.parse_input_id(input_id)
    except ValueError:
        return None
    summary = graph.calls.get(call)
    if summary is None or index < DETAILED:
        return None
    return _info(graph, GraphInput(call, index, summary.status, ""))


def count(nodes: Iterable[InputInfo]) -> int:
    """Return how many inputs there are in trees."""
    return sum(1 + count(node.children) for node in nodes)
