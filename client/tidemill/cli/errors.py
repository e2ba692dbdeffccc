"""How the command line says what is wrong: `error:`, then `hint:`, on standard error."""

import os
import sys
from pathlib import Path
from types import TracebackType

import click

from tidemill import _tracebacks
from tidemill.exception import Error

_HERE = str(Path(__file__).parent) + os.sep
_HIDDEN = (str(Path(__file__).parent.parent) + os.sep, "<frozen importlib.")


def show(message: str, hint: str = "") -> None:
    """Say what is wrong and, where there is one, the next step."""
    click.echo(f"{_styled('error:', 'red')} {message}", err=True)
    if hint:
        click.echo(f"{_styled('hint:', 'cyan')} {hint}", err=True)


def show_usage(error: click.UsageError) -> None:
    """Say what is wrong with the arguments."""
    hint = f"see `{error.ctx.command_path} --help`" if error.ctx else ""
    show(error.format_message().rstrip("."), hint)


def is_from_user(error: BaseException) -> bool:
    """Return whether an exception was raised in, or passed through, code that is not ours."""
    return _visible(error.__traceback__) is not None


def show_exception(error: BaseException) -> None:
    """Show an exception of the user's code, without the frames that are ours and without its hint."""
    import traceback

    if isinstance(error, Error) and error.hint:  # comes last, from who calls this
        error.__notes__ = [note for note in error.__notes__ if note != f"hint: {error.hint}"]
    if not os.environ.get("TIDEMILL_TRACEBACK"):
        for each in _tracebacks.chain(error):
            each.__traceback__ = _visible(each.__traceback__)
    click.echo("".join(traceback.format_exception(error)), err=True, nl=False)


def _visible(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback from where the command line called the user's code, without frames of ours."""
    frames: list[TracebackType] = []
    while trace is not None:
        is_call = trace.tb_frame.f_code.co_filename.startswith(_HERE)
        frames = [] if is_call else [*frames, trace]
        trace = trace.tb_next
    visible: TracebackType | None = None
    for each in reversed(frames):
        if not each.tb_frame.f_code.co_filename.startswith(_HIDDEN):
            visible = TracebackType(visible, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return visible


def _styled(word: str, colour: str) -> str:
    plain = bool(os.environ.get("NO_COLOR")) or not sys.stderr.isatty()
    return word if plain else click.style(word, fg=colour, bold=True)
