"""`tidemill run`: a local entrypoint or a function of an app, on whatever server there is."""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import click

from tidemill import _alias, _console, _entrypoint, _stack
from tidemill._dataclass import dataclass
from tidemill.cli import errors, reference
from tidemill.cli.reference import Reference, Runnable
from tidemill.config import config
from tidemill.exception import Error, InvalidError


@dataclass(frozen=True, slots=True)
class Options:
    """How to run, as the command line says."""

    name: str | None = None
    environment: str | None = None
    detach: bool = False
    interactive: bool = False
    quiet: bool = False
    timestamps: bool = False
    write_result: Path | None = None


@click.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False})
@click.option("-m", "is_module", is_flag=True, help="REFERENCE is a module, as `package.module`.")
@click.option(
    "-w", "--write-result", type=click.Path(path_type=Path), help="Write a str or bytes result to a file."
)
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.option("-d", "--detach", is_flag=True, help="Let the app go on if this program ends.")
@click.option("-i", "--interactive", is_flag=True, help="Lend this terminal to functions that ask for it.")
@click.option("--timestamps", is_flag=True, help="Show when each line of output was printed.")
@click.option("-e", "--env", "environment", metavar="NAME", help="The environment to run in.")
@click.option("-n", "--name", metavar="NAME", help="The name of this run, instead of the app's.")
@click.argument("ref", metavar="REFERENCE")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGUMENTS]...")
def run(ref: str, arguments: tuple[str, ...], is_module: bool, **options: Any) -> int:
    """Run a local entrypoint or a function of an app.

    REFERENCE is `file.py` or `file.py::name`; `tidemill run REFERENCE --help` shows the arguments that it
    takes. Uses the server that TIDEMILL_SERVER_URL or the active profile names, else the stack that
    `tidemill up` started, else a temporary one.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # in order with the output of containers, in a pipe too
    with _script(ref, is_module=is_module) as named, interruptible():
        return _run(named, arguments, Options(**options))


def _run(named: Reference, arguments: tuple[str, ...], options: Options) -> int:
    try:
        if not {"-h", "--help"} & set(arguments):
            begin_stack()
        _alias.install()
        sys.argv[:] = [named.source, *arguments]
        module = reference.load_or_tell(named)
        if module is None:
            return 1
        chosen = reference.find(module, named)
        return _execute(chosen, named, arguments, options)
    finally:
        disconnect()


def begin_stack() -> None:
    """Have a temporary stack start while the user's code is imported, if there is no other server."""
    if not config["server_url"] and _stack.find() is None:
        _stack.begin_temporary()


class _Failure:
    """The exception that ended the user's function, if one did."""

    error: BaseException | None = None


def _execute(chosen: Runnable, named: Reference, arguments: tuple[str, ...], options: Options) -> int:
    failure = _Failure()
    command = _entrypoint.build_command(chosen.raw, _runner(chosen, options, failure))
    try:
        # Not `command.main`: it would take some of the user's exceptions for its own.
        with command.make_context(f"tidemill run {named}", list(arguments)) as context:
            command.invoke(context)
    except click.exceptions.Exit as exit_:  # --help
        return exit_.exit_code
    except Exception as error:
        if error is not failure.error:
            raise
        _show_failure(error, chosen)
        return 1
    return 0


def _show_failure(error: Exception, chosen: Runnable) -> None:
    """Show the exception that ended the run; one of ours in a traceback only if the user's code is in it."""
    hint = error.hint if isinstance(error, Error) else ""
    if isinstance(error, Error) and not errors.is_from_user(error):
        errors.show(f"{type(error).__name__}: {error}", hint)
        return
    errors.show_exception(error)
    if hint:
        errors.show(f"{chosen.name} failed", hint)


def _runner(chosen: Runnable, options: Options, failure: _Failure) -> Callable[..., None]:
    """Return what runs the chosen function with the values of its options."""
    from tidemill import _output

    if not chosen.is_entrypoint and chosen.target.is_generator:
        raise InvalidError(f"{chosen.name} is a generator: it cannot be run from the command line")

    def run(*args: Any, **kwargs: Any) -> None:
        settings: dict[str, Any] = {
            "name": options.name,
            "detach": options.detach,
            "interactive": options.interactive,
            "environment_name": options.environment,
        }
        if _stack.is_beginning() and not options.quiet:
            click.echo("Starting a temporary stack…", err=True)
        with _output.show(quiet=options.quiet, timestamps=options.timestamps), chosen.app.run(**settings):
            try:
                result = _call(chosen, args, kwargs, detach=options.detach)
            except BaseException as error:
                failure.error = error
                raise
        if options.write_result is not None:
            _write_result(options.write_result, result, chosen)

    return run


def _call(chosen: Runnable, args: tuple[Any, ...], kwargs: dict[str, Any], *, detach: bool) -> Any:
    import inspect

    if not chosen.is_entrypoint:
        # What was spawned is finished even if we are not there any more.
        return chosen.target.spawn(*args, **kwargs).get() if detach else chosen.target.remote(*args, **kwargs)
    result = chosen.raw(*args, **kwargs)
    if inspect.iscoroutine(result):
        import asyncio

        return asyncio.run(result)
    return result


def _write_result(path: Path, result: Any, chosen: Runnable) -> None:
    if isinstance(result, str):
        path.write_text(result)
    elif isinstance(result, bytes):
        path.write_bytes(result)
    else:
        raise InvalidError(
            f"{chosen.name} returned {type(result).__name__}: only str and bytes can be written to a file"
        )


# --- around a run


@contextlib.contextmanager
def _script(ref: str, *, is_module: bool) -> Iterator[Reference]:
    """Read a reference; `-` stands for a script on standard input, which becomes a file for this run."""
    import tempfile

    if ref != "-" and not ref.startswith("-::"):
        yield reference.read(ref, is_module=is_module)
        return
    with tempfile.TemporaryDirectory(prefix="tidemill-") as folder:
        path = Path(folder, "stdin.py")
        path.write_bytes(sys.stdin.buffer.read())
        yield reference.read(str(path) + ref[1:], is_module=False)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Have Ctrl-C and SIGTERM end the app in order; a second one is not waited for."""
    presses = 0

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal presses
        presses += 1
        if presses > 1:
            _console.restore()
            os._exit(128 + number)  # a temporary stack notices by itself, an app by its missing signs of life
        click.echo("\nStopping the app, which takes a few seconds; press Ctrl-C again to not wait", err=True)
        if number == signal.SIGTERM:
            sys.exit(128 + number)
        signal.default_int_handler(number, frame)

    before = {number: signal.signal(number, on_interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def disconnect() -> None:
    """Close the connection, and end the temporary stack with all that runs on it."""
    module = sys.modules.get("tidemill._client")
    client = module._shared.client if module else None
    if client is not None:
        client.close()
    _stack.end_temporary()
