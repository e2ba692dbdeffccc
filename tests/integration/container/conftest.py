"""A template for the whole run, and containers forked from it, each with a module of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from container_harness import Start, Template


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
