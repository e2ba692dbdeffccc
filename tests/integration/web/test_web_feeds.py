"""A client that comes back to an event stream goes on where it was."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from running_stacks import RunningStack
from waiting import until, wait_until

Client = httpx.AsyncClient
APP = "feed-program"


@pytest.fixture(scope="module")
def url(stack: RunningStack) -> Iterator[str]:
    """The address of a function that counts."""
    done = stack.cli("deploy", str(Path(__file__).with_name("feed_program.py")))
    assert done.returncode == 0, done.stderr
    found = f"{stack.info.gateway_url}/f/local--{APP}-numbers"
    wait_until(lambda: httpx.get(found, timeout=60).status_code == 422, what="for the route")
    yield found
    assert stack.cli("app", "stop", APP, "-y").returncode == 0


async def test_a_stream_goes_on_where_its_client_was(client: Client, url: str, tmp_path: Path) -> None:
    params = {"folder": str(tmp_path)}

    async def read(last: int | None, upto: str = "", **headers: str) -> list[str]:
        """Return the data of events, up to one after which the client goes."""
        if last is not None:
            headers["Last-Event-ID"] = str(last)
        found = []
        async with client.stream("GET", url, params=params, headers=headers) as answer:
            assert (answer.status_code, answer.headers["x-mine"]) == (200, "1")
            assert answer.headers["content-type"].startswith("text/event-stream")
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    found.append(line.removeprefix("data: "))
                    if found[-1] == upto:
                        break
        return found

    def numbers(first: int, last: int) -> list[str]:
        return [f"n{number}" for number in range(first, last + 1)]

    def runs() -> list[str]:
        return (tmp_path / "runs").read_text().splitlines()

    assert await read(None, "n7") == ["none", *numbers(1, 7)]
    assert await read(7, "n10") == numbers(8, 10)  # the function waits now
    assert await read(3, "n5") == numbers(4, 5)
    assert runs() == ["after 0"]
    assert await read(9, "n10", authorization="another") == ["none", "n10"]  # it is not somebody else's
    assert runs() == ["after 0", "after 9"]
    (tmp_path / "go").touch()
    assert await read(10) == numbers(11, 20)  # to its end
    await until((tmp_path / "ended").exists)
    assert await read(12) == numbers(13, 20)
    assert runs() == ["after 0", "after 9"]
    assert await read(20) == ["none"]  # nothing is left: the function says what comes next
    assert runs() == ["after 0", "after 9", "after 20"]
