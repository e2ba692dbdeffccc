"""Requests about containers, further processes in them, and terminals."""

from dataclasses import field

from tidemill._dataclass import dataclass


@dataclass(frozen=True, slots=True)
class ListContainers:
    """`tm.scheduler.<ws>.list_containers`: the containers that run, of one app or all. A `ContainerList`."""

    app_id: str = ""


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """A container as it is shown. `state` and `generation` are those of `ContainerState`."""

    container: str
    app_id: str
    app_name: str
    function: str
    pool: str
    worker: str
    state: str
    created: float
    generation: int = 0


@dataclass(frozen=True, slots=True)
class ContainerList:
    """The answer to `ListContainers`, oldest first."""

    containers: tuple[ContainerInfo, ...]


@dataclass(frozen=True, slots=True)
class StopContainer:
    """`tm.scheduler.<ws>.stop_container`: end a container; what it runs runs again elsewhere.

    `graceful` lets it finish what runs first, and take nothing more.
    """

    container: str
    graceful: bool = False


@dataclass(frozen=True, slots=True)
class Execute:
    """`tm.scheduler.<ws>.execute`, and on to its worker: start a process in a container.

    Who asks has opened `stream`, at the other end of which the process will be. With `rows` and
    `columns` it gets a terminal of that size. `variables` are added to those of the container; without
    `workdir` it starts in the container's own working directory.
    """

    container: str
    stream: str
    arguments: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)
    workdir: str = ""
    rows: int = 0
    columns: int = 0


@dataclass(frozen=True, slots=True)
class AskTerminal:
    """`tm.terminals.<ws>.<app>`: an input of an interactive run wants the caller's terminal.

    The worker has opened `stream`, on which the caller answers: by a control frame `lend` with rows,
    columns and type of the terminal, or by breaking the stream with the reason.
    """

    stream: str
    container: str
    function: str
