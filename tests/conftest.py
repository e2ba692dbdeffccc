"""What tests of several parts share: whole stacks, and the order in which tests run."""

import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from running_stacks import MortalStack, RunningStack, clean_environment, down, up

from tidemill import Client, _client

# A machine that is busy with something else makes no property untrue.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(autouse=True)
def no_shared_client_stays_open() -> Iterator[None]:
    """The client that this process shares would lead the next test to the server of this one."""
    yield
    client = _client._shared.client
    if client is not None and client.caller is not None and not client.is_closed():
        client.close()
        pytest.fail("it left the client open that this process shares: use one of the test's own")


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """A home for stacks, with the images that were made in it. Its name is short: sockets live in it."""
    with tempfile.TemporaryDirectory(prefix="tm-", ignore_cleanup_errors=True) as folder:
        yield Path(folder).resolve()


@pytest.fixture(scope="session")
def stack(home: Path) -> Iterator[RunningStack]:
    """A stack that all tests of this process share: to be left as it was found."""
    stack = up(home)
    yield stack
    down(stack)


@pytest.fixture(scope="session")
def stack_environment(stack: RunningStack) -> dict[str, str]:
    """An environment in which programs find the shared stack."""
    return stack.environment


@pytest.fixture
def client(stack: RunningStack) -> Iterator[Client]:
    """A client of the shared stack."""
    with stack.client() as client:
        yield client


@pytest.fixture(scope="session")
def mortal() -> Iterator[MortalStack]:
    with tempfile.TemporaryDirectory(prefix="tm-", ignore_cleanup_errors=True) as folder:
        mortal = MortalStack(Path(folder).resolve())
        yield mortal
        mortal.end()


@pytest.fixture
def mortal_stack(mortal: MortalStack) -> Iterator[RunningStack]:
    """A stack for tests that kill parts of it, one after another: each finds all of them serving."""
    yield mortal.get()
    mortal.rest()


@pytest.fixture
def nothing_up() -> Iterator[Path]:
    """A home without a stack, which is also where temporary ones are made."""
    with tempfile.TemporaryDirectory(prefix="tm-", ignore_cleanup_errors=True) as folder:
        yield Path(folder).resolve()


@pytest.fixture
def no_stack(nothing_up: Path) -> dict[str, str]:
    """An environment with that home: what needs a stack starts a temporary one."""
    return clean_environment(nothing_up) | {"TMPDIR": str(nothing_up)}


@pytest.fixture
def own_stack() -> Iterator[RunningStack]:
    """A stack for one test, which may do to it whatever it likes."""
    with tempfile.TemporaryDirectory(prefix="tm-", ignore_cleanup_errors=True) as folder:
        stack = up(Path(folder).resolve())
        yield stack
        down(stack)


# What takes seconds to start: all tests that use one of these run in one process, which starts it once.
COSTLY = ("mortal_stack", "two", "sandboxing")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order tests by the process that is to have them; in each the long ones come first.

    pytest-xdist gives every process an equal part of this order, and to one that has run out half of what
    another one still has, from the end: so nothing long runs alone at the end.
    """
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    shares: list[list[pytest.Item]] = [[] for _ in range(count)]
    turns = itertools.cycle(reversed(range(count)))
    others = []
    for item in items:
        costly = [number for number, name in enumerate(COSTLY) if name in getattr(item, "fixturenames", ())]
        if costly or item.get_closest_marker("long"):
            shares[costly[0] % count if costly else next(turns)].append(item)
        else:
            others.append(item)
    left = len(items)
    for number, share in enumerate(shares):
        share.sort(key=lambda item: item.get_closest_marker("long") is None)
        room = max(0, left // (count - number) - len(share))
        share += others[:room]
        del others[:room]
        left -= len(share)
    items[:] = [*itertools.chain(*shares), *others]
