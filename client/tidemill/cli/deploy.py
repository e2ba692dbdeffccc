"""`tidemill deploy`: make an app stay."""

from typing import Any

import click

from tidemill import _alias
from tidemill.cli import reference
from tidemill.cli.asking import client, environment_option, strategy_option


@click.command()
@click.option("--name", metavar="NAME", help="The name of the deployment, instead of the app's.")
@click.option("--tag", metavar="TEXT", default="", help="What to call this version in the app's history.")
@click.option("--stream-logs", is_flag=True, help="Show what its containers print, until Ctrl-C.")
@strategy_option
@click.option("-m", "is_module", is_flag=True, help="REFERENCE is a module, as `package.module`.")
@click.option("--timestamps", is_flag=True, help="With --stream-logs: show when each line was printed.")
@environment_option
@click.argument("ref", metavar="REFERENCE")
def deploy(
    ref: str, is_module: bool, environment: str | None, stream_logs: bool, timestamps: bool, **options: Any
) -> int:
    """Deploy an app: its functions can be called by name until it is stopped.

    REFERENCE is `file.py` or `file.py::app`. What has not changed since the last deployment is skipped.
    """
    named = reference.read(ref, is_module=is_module, command="deploy")
    connection = client()
    from tidemill import _loop, _output

    connecting = _loop.submit(connection.connect())  # while the user's code is imported
    _alias.install()
    module = reference.load_or_tell(named)
    if module is None:
        return 1
    app = reference.find_app(module, named)
    connecting.result()
    with _output.show(timestamps=timestamps):
        printed = _loop.wait(_printed(connection)) if stream_logs else 0
        app.deploy(environment_name=environment, client=connection, **options)
        if stream_logs and app.app_id is not None:
            _follow(app.app_id, connection, after=printed)
    return 0


async def _printed(connection: Any) -> int:
    """Return the sequence of the last message of output that there is."""
    from tidemill._log_entries import Selection
    from tidemill._log_reading import LogReader
    from tidemill._wire import subjects

    caller = await connection.connect()
    everything = Selection(subjects.workspace_logs(caller.workspace))
    return await LogReader(caller.bus, subjects.logs_stream(caller.workspace), everything, {}).last()


def _follow(app_id: str, connection: Any, *, after: int) -> None:
    """Show what the app's containers print until Ctrl-C, from the deployment on."""
    import asyncio

    from tidemill import _loop, _output
    from tidemill._watching import Watch

    output = _output.current()
    assert output is not None

    async def follow() -> None:
        caller = await connection.connect()
        watch = Watch(caller.bus, caller.workspace, app_id, output)
        try:
            await watch.open(after=after)
            await asyncio.get_running_loop().create_future()
        finally:
            await watch.close()

    try:
        _loop.wait(follow())
    except KeyboardInterrupt:  # the way to end it
        return
