"""`tidemill function`: functions of deployed apps, what they do now, how many containers they may have."""

import time
from typing import TYPE_CHECKING, Any

import click

from tidemill.cli import listing
from tidemill.cli.asking import client, environment_option, json_option
from tidemill.cli.groups import CommandTable

if TYPE_CHECKING:
    from tidemill.functions import Function
    from tidemill.types import FunctionAutoscalerSettings

_HERE = "tidemill.cli.function"
COMMANDS = {
    "info": (f"{_HERE}:info", "Show one function."),
    "stats": (f"{_HERE}:stats", "Show how much waits and runs now."),
    "autoscaler": (f"{_HERE}:autoscaler", "Show or change how many containers it has."),
}
_AUTOSCALER = {
    "settings": (f"{_HERE}:settings", "Show the settings."),
    "update": (f"{_HERE}:update", "Change settings until the next deployment."),
}


@click.group(cls=CommandTable, table=COMMANDS)
def function() -> None:
    """Look at functions of deployed apps."""


@click.group(cls=CommandTable, table=_AUTOSCALER)
def autoscaler() -> None:
    """Show or change how many containers a function has."""


def function_arguments(command: Any) -> Any:
    """Add the arguments that name a function."""
    command = environment_option(command)
    command = click.argument("name", metavar="FUNCTION")(command)
    return click.argument("app")(command)


def _function(app: str, name: str, environment: str | None) -> "Function[..., Any, Any]":
    from tidemill.functions import Function

    return Function.from_name(app, name, environment_name=environment, client=client())


@click.command()
@function_arguments
@json_option
def info(app: str, name: str, environment: str | None, as_json: bool) -> None:
    """Show one function of a deployed app."""
    found = _function(app, name, environment).info(refresh=True)
    record = {
        "Name": found.name,
        "Function id": found.function_id,
        "App id": found.app_id,
        "Generator": found.is_generator,
        "Timeout": found.timeout,
        "Web url": found.web_url,
    }
    listing.show_record(record, as_json=as_json)


@click.command()
@function_arguments
@json_option
def stats(app: str, name: str, environment: str | None, as_json: bool) -> None:
    """Show how much of a function waits and runs now, and how many web requests it has answered."""
    found = _function(app, name, environment)
    now = found.get_current_stats()
    handle = found._present_handle()
    answers = handle is not None and handle.web_labels()
    record = {
        "Backlog": now.backlog,
        "Running": now.num_running_inputs,
        "Containers": now.num_total_runners,
        "Headroom": now.input_headroom,
        **({"Requests in the last hour": _answered(found.object_id)} if answers else {}),
    }
    listing.show_record(record, as_json=as_json)


def _answered(function_id: str) -> int:
    """Return how many requests to a web function have succeeded in the last hour."""
    from tidemill import _loop
    from tidemill._wire.calls import CountRequests, RequestCounts

    request = CountRequests(function_id=function_id, since=time.time() - 3_600, limit=1)
    answer = client().request("registry", "count_requests", request, RequestCounts)
    counts: RequestCounts = _loop.wait(answer)
    return counts.succeeded


@click.command()
@function_arguments
@json_option
def settings(app: str, name: str, environment: str | None, as_json: bool) -> None:
    """Show how many containers a function may have."""
    _show(_function(app, name, environment).autoscaler.settings(), as_json=as_json)


@click.command()
@function_arguments
@click.option("--min-containers", type=int, help="Kept warm.")
@click.option("--max-containers", type=int, help="At most; calls beyond wait.")
@click.option("--buffer-containers", type=int, help="Idle ones beside those that work, while it is called.")
@click.option("--scaledown-window", type=int, help="Seconds after which an idle one ends.")
@json_option
def update(app: str, name: str, environment: str | None, as_json: bool, **given: int | None) -> None:
    """Change how many containers a function may have, until its app is deployed again."""
    if all(value is None for value in given.values()):
        raise click.UsageError("nothing to change: give --min-containers or another setting")
    _show(_function(app, name, environment).update_autoscaler(**given), as_json=as_json)


def _show(now: "FunctionAutoscalerSettings", *, as_json: bool) -> None:
    record = {
        "Min containers": now.min_containers,
        "Max containers": now.max_containers,
        "Buffer containers": now.buffer_containers,
        "Scaledown window": now.scaledown_window,
    }
    listing.show_record(record, as_json=as_json)
