"""A template for the whole run, and containers forked from it, each with a module of its own."""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from containers import Container, Template


class Start:
    """Writes a module and starts a container for one of its functions."""

    def __init__(self, template: Template, folder: Path) -> None:
        self._template = template
        self._folder = folder
        self.started: list[Container] = []

    def __call__(self, source: str, qualname: str = "f", **fields: Any) -> Container:
        container = self.prepare(source)
        container.start(**{"sources": (str(self._folder),), "module": "hello", "qualname": qualname} | fields)
        return container

    def prepare(self, source: str) -> Container:
        """Fork a container that waits for its configuration."""
        (self._folder / "hello.py").write_text(textwrap.dedent(source))
        container = self._template.fork()
        self.started.append(container)
        return container


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    started = Template(tmp_path_factory.mktemp("template"))
    yield started
    started.close()


@pytest.fixture
def start(template: Template, tmp_path: Path) -> Iterator[Start]:
    """Start containers that end with the test."""
    start = Start(template, tmp_path)
    yield start
    for container in start.started:
        container.close()
        container.control.wait_closed()
        template.containers.remove(container)
