"""`tidemill call`: what happened to calls, one in detail or many."""

from collections.abc import Iterator, Mapping
from typing import Any

import click

from tidemill._wire.calls import CallDetails, CallList, CallSummary, GetCall, InputDetails, ListCalls
from tidemill.call_graph import InputInfo
from tidemill.cli import listing
from tidemill.cli.asking import client, environment_option, json_option
from tidemill.cli.groups import CommandTable
from tidemill.cli.times import attempt, clock, moment, span

SHOWN_INPUTS = 20
_STYLES = {"success": "green", "pending": "yellow", "terminated": "dim"}
STATUSES = ("pending", "success", "failure", "timeout", "terminated", "init_failure")


_HERE = "tidemill.cli.call"
COMMANDS = {
    "list": (f"{_HERE}:list_calls", "List calls."),
    "info": (f"{_HERE}:info", "Show a call, its inputs, and what it led to."),
}


@click.group(cls=CommandTable, table=COMMANDS)
def call() -> None:
    """Look at calls: which there were, what they led to, how long each part took."""


@click.command("list")
@click.option("--app", "app_ref", default="", metavar="APP", help="Only those of an app, by name or id.")
@click.option("--function", default="", metavar="NAME", help="Only those of a function.")
@click.option("--status", type=click.Choice(STATUSES), help="Only those in this status.")
@click.option("--since", default="", metavar="TIME", help="Only those made since: 2h, or a date and time.")
@click.option("--until", default="", metavar="TIME", help="Only those made before.")
@click.option("--limit", "-n", type=click.IntRange(1, 1_000), default=50, show_default=True, help="How many.")
@click.option("--before", default="", metavar="ID", help="Only calls before this one.")
@environment_option
@json_option
def list_calls(
    app_ref: str,
    function: str,
    status: str | None,
    since: str,
    until: str,
    limit: int,
    before: str,
    environment: str | None,
    as_json: bool,
) -> None:
    """List calls, newest first."""
    from tidemill import _loop
    from tidemill._logs import find_app

    connection = client()

    async def ask() -> CallList:
        request = ListCalls(
            app_id=await find_app(connection, app_ref, environment or "") if app_ref else "",
            function=function,
            status=status or "",
            since=moment(since) if since else None,
            until=moment(until) if until else None,
            limit=limit,
            before=before,
        )
        return await connection.request("registry", "list_calls", request, CallList)

    found = _loop.wait(ask())
    if as_json:
        listing.show_json([_as_json(each) for each in found.calls])
    else:
        _table(found)
    if found.requests:
        click.echo(f"{found.requests:,} web requests succeeded; most of them are only counted", err=True)
    if found.next:
        click.echo(f"There are more: go on with --before {found.next}", err=True)


@click.command()
@click.argument("call_id", metavar="ID")
@click.option("--inputs", "-n", type=click.IntRange(1, 1_000), default=SHOWN_INPUTS, help="How many inputs.")
@json_option
def info(call_id: str, inputs: int, as_json: bool) -> None:
    """Show a call (fc-...): its inputs with their times and attempts, and what it led to."""
    from tidemill import _graph, _loop

    connection = client()

    async def ask() -> tuple[CallDetails, list[InputInfo]]:
        graph = await _graph.fetch(connection, call_id, whole=False)
        request = GetCall(call_id, limit=inputs)
        details = await connection.request("registry", "get_call", request, CallDetails)
        return details, _graph.tree(graph)

    details, graph = _loop.wait(ask())
    if as_json:
        record = {**_as_json(details.call), "inputs": [_input_as_json(one) for one in details.inputs]}
        listing.show_json(record | {"graph": [_node_as_json(node) for node in graph]})
        return
    for line in (*_about(details.call), "", *_inputs(details)):
        click.echo(line)
    if any(node.children for node in graph):
        click.echo("\nWhat it led to:")
        for line in _branches(graph):
            click.echo(line)


# --- as text


def _table(found: CallList) -> None:
    from rich.text import Text

    rows = [
        (
            each.call,
            each.function,
            Text(each.status, _STYLES.get(each.status, "red")),
            each.num_inputs,
            listing.time(each.created),
            span(each.created, each.finished),
        )
        for each in found.calls
    ]
    listing.show(("Call ID", "Function", "Status", "Inputs", "Created at", "Took"), rows, as_json=False)


def _about(found: CallSummary) -> Iterator[str]:
    yield f"{found.call}  {found.function}  {found.status}"
    yield f"  app       {found.app_id}"
    yield f"  inputs    {found.num_inputs} ({_in_words(found.counts)})"
    yield f"  created   {clock(found.created)}"
    yield f"  waited    {span(found.created, found.started)}"
    yield f"  ran       {span(found.started, found.finished)}"
    if found.parent:
        yield f"  called by {found.parent}, in the tree of {found.root}"


def _in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {status}" for status, number in counts.items()) or "none known"


def _inputs(details: CallDetails) -> Iterator[str]:
    for one in details.inputs:
        yield f"{one.input_id}  {one.status}  {one.container or '-'}"
        yield f"  {_parts(one)}"
        for tried in one.tries:
            yield f"  attempt {tried.attempt} on {tried.container or '-'}: {tried.reason}"
        if one.reason:
            yield f"  {one.reason}"
    left = details.call.num_inputs - len(details.inputs)
    if left > 0:
        yield f"and {left:,} more"


def _parts(one: InputDetails) -> str:
    """Return what an input's time went for."""
    if not one.phases:
        return f"waited {span(one.queued, one.started)}, ran {span(one.started, one.finished)}"
    return ", ".join(f"{name} {span(0.0, seconds)}" for name, seconds in one.phases.items())


def _branches(nodes: list[InputInfo], before: str = "") -> Iterator[str]:
    for number, node in enumerate(nodes, start=1):
        last = number == len(nodes)
        branch, following = ("└── ", "    ") if last else ("├── ", "│   ")
        name = node.function_name or "?"
        yield f"{before}{branch}{name}  {node.status.name.lower()}  {node.input_id}"
        yield from _branches(node.children, before + following)


# --- as JSON


def _as_json(found: CallSummary) -> dict[str, Any]:
    return {
        "call_id": found.call,
        "app_id": found.app_id,
        "function": found.function,
        "status": found.status,
        "num_inputs": found.num_inputs,
        "counts": found.counts,
        "created_at": listing.time(found.created),
        "started_at": listing.time(found.started),
        "finished_at": listing.time(found.finished),
        "parent": found.parent,
        "root": found.root,
    }


def _input_as_json(one: InputDetails) -> dict[str, Any]:
    return {
        "input_id": one.input_id,
        "index": one.index,
        "status": one.status,
        "container_id": one.container,
        "attempts": one.attempts,
        "queued_at": listing.time(one.queued),
        "started_at": listing.time(one.started),
        "finished_at": listing.time(one.finished),
        "reason": one.reason,
        "phases": one.phases,
        "tries": list(map(attempt, one.tries)),
    }


def _node_as_json(node: InputInfo) -> dict[str, Any]:
    return {
        "input_id": node.input_id,
        "function_call_id": node.function_call_id,
        "task_id": node.task_id,
        "status": node.status.name.lower(),
        "function_name": node.function_name,
        "module_name": node.module_name,
        "children": [_node_as_json(child) for child in node.children],
    }
