"""A template for the whole run, and containers forked from it, each with a module of its own."""

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from containers import Container, Template

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="containers need Unix sockets")

Start = Callable[..., Container]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    started = Template(tmp_path_factory.mktemp("template"))
    yield started
    started.close()


@pytest.fixture
def start(template: Template, tmp_path: Path) -> Iterator[Start]:
    """Write a module and start a container for one of its functions."""
    started: list[Container] = []

    def start(source: str, qualname: str = "f", **fields: Any) -> Container:
        container = prepare(source)
        container.start(**{"sources": (str(tmp_path),), "module": "hello", "qualname": qualname} | fields)
        return container

    def prepare(source: str, workdir: str = "") -> Container:
        (tmp_path / "hello.py").write_text(textwrap.dedent(source))
        container = template.fork(workdir)
        started.append(container)
        return container

    start.prepare = prepare  # type: ignore[attr-defined]
    yield start
    for container in started:
        container.close()
        container.control.wait_closed()
        template.containers.remove(container)
