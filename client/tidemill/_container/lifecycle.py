"""The beginning and the end of a runner's life, around the inputs."""

import atexit
import faulthandler
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from tidemill import _runtime, exception
from tidemill._container.configuration import Configuration

if TYPE_CHECKING:
    from tidemill._bus.protocol import Bus


def connect_standard_streams(writing: dict[int, int]) -> None:
    """Connect the standard streams: nothing comes in, what goes out goes to init.

    The given write ends stay open beside descriptors 1 and 2, which user code may turn elsewhere.
    """
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    for stream, fd in writing.items():
        os.dup2(fd, stream)
    faulthandler.enable(file=2)
    reseed()


def reseed() -> None:
    """Give this fork random numbers of its own. Python's `random` and OpenSSL do so themselves."""
    for name in ("numpy.random", "torch"):
        if (library := sys.modules.get(name)) is not None:
            library.seed()


def enter_workdir(folder: str) -> None:
    """Make a folder the working directory, if one is given; `ExecutionError` if it cannot be."""
    if folder:
        try:
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - pathlib costs milliseconds
            os.chdir(folder)
        except OSError as error:
            raise exception.ExecutionError(f"the working directory cannot be entered: {error}") from error


def put_in_place(
    configuration: Configuration,
    connect: "Callable[[], Bus | None]",
    interact: Callable[[], None],
    limit: Callable[[int], None],
    *,
    again: bool = False,
) -> None:
    """Set up what the user's module finds when it is imported.

    `again` is in a copy of a process where it was imported: what it made of its surroundings stays.
    """
    os.environ.update(configuration.surroundings)
    if not again:
        os.environ.update(configuration.env)
        sys.path[:0] = configuration.sources
        sys.argv = [configuration.module or configuration.function]
    enter_workdir(configuration.workdir)
    _runtime.container = _runtime.Container(
        configuration.container,
        configuration.app_id,
        configuration.app_name,
        configuration.function,
        configuration.environment,
        configuration.handles,
        connect,
        configuration.workspace,
        interact,
        configuration.own,
        configuration.slots,
        limit,
    )


def finish() -> None:
    """Run what user code left for the end: threads that are no daemons, then `atexit` functions.

    The worker's deadline bounds it.
    """
    with suppress(Exception):
        threading._shutdown()  # type: ignore[attr-defined]  # as the interpreter does; pools end their threads here
    with suppress(Exception):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
