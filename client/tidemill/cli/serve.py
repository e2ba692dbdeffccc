"""`tidemill serve`: an app that follows its files until Ctrl-C."""

import functools
import io
import sys

import click

from tidemill import _stack
from tidemill.cli import loading, reference
from tidemill.cli.asking import environment_option
from tidemill.cli.run import begin_stack, disconnect, interruptible


@click.command()
@click.option("-n", "--name", metavar="NAME", help="The name of this run, instead of the app's.")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="End after this time."
)
@click.option("-m", "is_module", is_flag=True, help="REFERENCE is a module, as `package.module`.")
@click.option("--timestamps", is_flag=True, help="Show when each line of output was printed.")
@environment_option
@click.argument("ref", metavar="REFERENCE")
def serve(
    ref: str,
    name: str | None,
    timeout: float | None,
    is_module: bool,
    timestamps: bool,
    environment: str | None,
) -> int:
    """Run an app until Ctrl-C, and replace its functions whenever a file of it changes.

    REFERENCE is `file.py` or `file.py::app`. Web functions have temporary URLs, which end in `-dev`;
    schedules fire. Code that cannot be imported is told, and the version before goes on being served.
    """
    from tidemill import _names, _output, config

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # in order with the output of containers, in a pipe too
    named = reference.read(ref, is_module=is_module, command="serve")
    if name is not None:
        _names.check_object("an app", name)
    order = loading.Order(named, name, config.environment(environment))
    with interruptible(), _output.show(timestamps=timestamps):
        try:
            begin_stack()
            return _serve(order, timeout)
        finally:
            disconnect()


def _serve(order: loading.Order, timeout: float | None) -> int:
    from tidemill import _client, _loop, _output, _serving, _sync

    output, client = _output.current(), _client.current()
    assert output is not None
    if _stack.is_beginning():
        output.line("Starting a temporary stack…")
    load = functools.partial(loading.load, order, client)
    with _sync.Managed(functools.partial(_serving.serve, load, client, output), "serve") as served:
        if served is None:
            return 1
        try:
            return 0 if _loop.wait(served.wait(timeout)) else 1
        except KeyboardInterrupt:  # the way to end it
            return 0
