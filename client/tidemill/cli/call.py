"""`tidemill call`: what happened to calls, one in detail or many."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import click

from tidemill._wire.calls import CallDetails, CallList, CallSummary, GetCall, InputDetails, ListCalls
from tidemill.call_graph import InputInfo
from tidemill.cli.times import clock, moment, span

SHOWN_INPUTS = 20
_STYLES = {"success": "green", "pending": "yellow", "terminated": "dim"}
STATUSES = ("pending", "success", "failure", "timeout", "terminated", "init_failure")


@click.group()
def call() -> None:
    """Look at calls: which there were, what they led to, how long each part took."""


@call.command("list")
@click.option("--app", "app_ref", default="", metavar="APP", help="Only those of an app, by name or id.")
@click.option("--function", default="", metavar="NAME", help="Only those of a function.")
@click.option("--status", type=click.Choice(STATUSES), help="Only those in this status.")
@click.option("--since", default="", metavar="TIME", help="Only those made since: 2h, or a date and time.")
@click.option("--until", default="", metavar="TIME", help="Only those made before.")
@click.option("--limit", "-n", type=click.IntRange(1, 1_000), default=50, show_default=True, help="How many.")
@click.option("--before", default="", metavar="ID", help="Only calls before this one.")
@click.option("--env", "-e", default="", help="The environment of the app.")
@click.option("--json", "as_json", is_flag=True, help="Write everything as JSON.")
def list_calls(
    app_ref: str,
    function: str,
    status: str | None,
    since: str,
    until: str,
    limit: int,
    before: str,
    env: str,
    as_json: bool,
) -> None:
    """List calls, newest first."""
    from tidemill import _client, _loop
    from tidemill._logs import find_app

    async def ask() -> CallList:
        client = _client.current()
        request = ListCalls(
            app_id=await find_app(client, app_ref, env) if app_ref else "",
            function=function,
            status=status or "",
            since=moment(since) if since else None,
            until=moment(until) if until else None,
            limit=limit,
            before=before,
        )
        return await client.request("registry", "list_calls", request, CallList)

    found = _loop.wait(ask())
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
        return
    _table(found)
    if found.next:
        click.echo(f"There are more: go on with --before {found.next}", err=True)


@call.command()
@click.argument("call_id", metavar="ID")
@click.option("--inputs", "-n", type=click.IntRange(1, 1_000), default=SHOWN_INPUTS, help="How many inputs.")
@click.option("--json", "as_json", is_flag=True, help="Write everything as JSON.")
def info(call_id: str, inputs: int, as_json: bool) -> None:
    """Show a call (fc-...): its inputs with their times and attempts, and what it led to."""
    from tidemill import _client, _graph, _loop

    async def ask() -> tuple[CallDetails, list[InputInfo]]:
        client = _client.current()
        graph = await _graph.fetch(client, call_id, whole=False)
        request = GetCall(call_id, limit=inputs)
        details = await client.request("registry", "get_call", request, CallDetails)
        return details, _graph.tree(graph)

    details, graph = _loop.wait(ask())
    if as_json:
        record = {**asdict(details.call), "inputs": [_input_as_json(one) for one in details.inputs]}
        click.echo(json.dumps(record | {"graph": [_node_as_json(node) for node in graph]}, indent=2))
        return
    for line in (*_about(details.call), "", *_inputs(details)):
        click.echo(line)
    if any(node.children for node in graph):
        click.echo("\nWhat it led to:")
        for line in _branches(graph):
            click.echo(line)


# --- as text


def _table(found: CallList) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=500)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("call", "function", "status", "inputs", "created", "took"):
        table.add_column(column, overflow="fold")
    for each in found.calls:
        style = _STYLES.get(each.status, "red")
        took = span(each.created, each.finished)
        status = f"[{style}]{each.status}[/]"
        table.add_row(each.call, each.function, status, str(each.num_inputs), clock(each.created), took)
    console.print(table)


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
        yield f"  waited {span(one.queued, one.started)}, ran {span(one.started, one.finished)}"
        for tried in one.tries:
            yield f"  attempt {tried.attempt} on {tried.container or '-'}: {tried.reason}"
        if one.reason:
            yield f"  {one.reason}"
    left = details.call.num_inputs - len(details.inputs)
    if left > 0:
        yield f"and {left:,} more"


def _branches(nodes: list[InputInfo], before: str = "") -> Iterator[str]:
    for number, node in enumerate(nodes, start=1):
        last = number == len(nodes)
        branch, following = ("└── ", "    ") if last else ("├── ", "│   ")
        name = node.function_name or "?"
        yield f"{before}{branch}{name}  {node.status.name.lower()}  {node.input_id}"
        yield from _branches(node.children, before + following)


# --- as JSON


def _input_as_json(one: InputDetails) -> dict[str, Any]:
    return {**asdict(one), "tries": [tried._asdict() for tried in one.tries]}


def _node_as_json(node: InputInfo) -> dict[str, Any]:
    return {
        "input_id": node.input_id,
        "function_call_id": node.function_call_id,
        "task_id": node.task_id,
        "status": node.status.name,
        "function_name": node.function_name,
        "module_name": node.module_name,
        "children": [_node_as_json(child) for child in node.children],
    }
