"""Output on a terminal: a status line with a spinner and progress bars below what scrolls."""

import contextlib
import sys
import threading
from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.segment import Segment
from rich.spinner import Spinner
from rich.style import Style
from rich.text import Text

from tidemill._output import STDERR, STDOUT, MapProgress, Output, is_terminal

REFRESH = 8  # times per second
ERRORS = Style(color="red")
LONGEST = 64 * 1024  # characters of a line that has no end; then it is shown as it is


class TerminalOutput(Output):
    """Draws on standard error, which is a terminal. `NO_COLOR` is respected."""

    def __init__(self, *, timestamps: bool = False) -> None:
        super().__init__(timestamps=timestamps)
        self._console = Console(stderr=True, highlight=False)
        self._is_shared = is_terminal(sys.stdout)  # then both streams are the same screen
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._status = ""
        self._spinner = Spinner("dots")
        self._begun: dict[int, str] = {}  # lines whose end has not come yet, by stream
        self._lock = threading.Lock()
        self._is_lent = False
        self._live = Live(
            get_renderable=self._render,
            console=self._console,
            refresh_per_second=REFRESH,
            transient=True,
            redirect_stdout=self._is_shared,
            redirect_stderr=True,
        )

    def open(self) -> None:
        """Begin to draw."""
        self._live.start()

    def close(self) -> None:
        """Print what is left and take the drawing off the screen."""
        with self._lock:
            for stream, text in self._begun.items():
                self._print(stream, text)
            self._begun.clear()
        self.drain()
        self._status = ""
        self._live.stop()

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Draw nothing while the block runs."""
        self._live.stop()
        self._is_lent = True
        try:
            with super().lent():
                yield
        finally:
            self._is_lent = False
            self._live.start()

    def status(self, text: str) -> None:
        """Change the status line."""
        self._status = text

    def map_progress(self, name: str) -> MapProgress:
        """Add a progress bar."""
        return _Bar(self._progress, name)

    def _talk(self, text: str) -> None:
        if self._is_lent:
            super()._talk(text)
        else:
            self._console.print(Text(text))

    def _sink(self, stream: int, text: str) -> None:
        """Print whole lines above the drawing; the begun one waits for its end."""
        if self._is_lent or (stream == STDOUT and not self._is_shared):
            super()._sink(stream, text)
            return
        with self._lock:
            text = self._begun.pop(stream, "") + text
            whole, end, rest = text.rpartition("\n")
            if len(rest) > LONGEST:
                whole, end, rest = text, "\n", ""
            if end:
                self._print(stream, whole)
            if rest:
                self._begun[stream] = rest

    def _print(self, stream: int, text: str) -> None:
        self._console.print(_Lines(text, ERRORS if stream == STDERR else None))

    def _render(self) -> Group:
        parts: list[Progress | Spinner] = []
        if self._progress.tasks:
            parts.append(self._progress)
        if self._status:
            self._spinner.update(text=Text(self._status))
            parts.append(self._spinner)
        return Group(*parts)


class _Lines:
    """Text as it is, its own colours included: never wrapped, never marked up."""

    def __init__(self, text: str, style: Style | None) -> None:
        self._text = text
        self._style = style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Segment(f"{self._text}\n", self._style)


class _Bar:
    """The progress bar of one map."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._task: TaskID = progress.add_task(name, total=None)

    def update(self, done: int, total: int | None) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=done, total=total)

    def close(self) -> None:
        """Remove the bar."""
        self._progress.remove_task(self._task)
