"""The programs of the documents about web endpoints run as they stand, deployed: `seeds/` has their lines.

What a program takes from outside is put around it: names that its document leaves open, secrets, and GPUs
that the worker only claims to have.
"""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from running_stacks import RunningStack, down, run_cli
from websockets.asyncio.client import connect

SEEDS = Path(__file__).parent / "seeds"

AROUND = """
import modal

app = modal.App()
image = modal.Image.debian_slim().pip_install("flask")


class model:
    predict = run = generate = staticmethod(str.upper)
    stream = staticmethod(str.split)

    @staticmethod
    async def predict_async(text):
        return text.upper()


def do_search(query, limit):
    return [query] * limit


def load_model():
    return model


process = str.upper
"""


@pytest.fixture(scope="module")
def site() -> Iterator[RunningStack]:
    """A stack whose worker says that it has GPUs, with the secrets that the programs name."""
    with tempfile.TemporaryDirectory(prefix="tm-", ignore_cleanup_errors=True) as folder:
        stack = RunningStack(Path(folder).resolve())
        gpus = {"TIDEMILL_WORKER_GPUS": "L40S:2,H100:1"}
        done = run_cli("up", environment=stack.environment | gpus)
        assert done.returncode == 0, done.stderr
        for name in ("my-web-auth-token", "auth-secret"):
            assert stack.cli("secret", "create", name, "AUTH_TOKEN=secret-random-token").returncode == 0
        yield stack
        down(stack)


class Client(httpx.AsyncClient):
    """Asks the programs of one stack, deploying each before its first request."""

    def __init__(self, stack: RunningStack, folder: Path) -> None:
        super().__init__(timeout=90.0)
        self._stack = stack
        self._folder = folder
        self.gateway = stack.info.gateway_url

    async def deploy(self, seed: str, function: str, *, around: str = "") -> str:
        """Return the URL of a seed's function, deployed."""
        name = seed.replace("_", "-")
        file = self._folder / f"{seed}.py"
        file.write_text(around + (SEEDS / file.name).read_text())
        done = await asyncio.to_thread(self._stack.cli, "deploy", "--name", name, str(file))
        assert done.returncode == 0, done.stderr
        return f"{self.gateway}/f/local--{name}-{function.replace('_', '-')}"


@pytest.fixture
def client(site: RunningStack, tmp_path: Path) -> Client:
    return Client(site, tmp_path)


BEARER = {"authorization": "Bearer secret-random-token"}


async def hello(client: Client) -> None:
    assert (await client.get(await client.deploy("web_hello", "f"))).json() == "Hello world!"


async def square(client: Client) -> None:
    assert (await client.get(f"{await client.deploy('web_square', 'square')}?x=42")).json() == {
        "square": 1764
    }


async def square_post(client: Client) -> None:
    url = await client.deploy("web_square_post", "square")
    assert (await client.post(url, json={"x": 42})).json() == {"square": 1764}


async def item(client: Client) -> None:
    url = await client.deploy("web_item", "f")
    assert (await client.post(url, json={"name": "Erik", "qty": 10})).text == "<html>Hello, Erik!</html>"


async def asgi(client: Client) -> None:
    url = await client.deploy("web_asgi", "fastapi_app")
    assert (await client.post(f"{url}/foo", json={"a": [1]})).json() == {"a": [1]}
    assert (await client.get(f"{url}/bar?arg=you")).text == "<h1>Hello Fast you!</h1>"


async def wsgi(client: Client) -> None:
    url = await client.deploy("web_wsgi", "flask_app")
    assert (await client.get(url)).text == "Hello Flask World!"
    assert (await client.post(f"{url}/echo", json={"a": 1})).json() == {"a": 1}


async def file_server(client: Client) -> None:
    url = await client.deploy("web_file_server", "my_file_server")
    assert "Directory listing" in (await client.get(url)).text
    assert "bin/" in (await client.get(f"{url}/usr/")).text


async def auth(client: Client) -> None:
    url = await client.deploy("web_auth", "f")
    assert (await client.get(url)).status_code in (401, 403)
    assert (await client.get(url, headers={"authorization": "Bearer no"})).status_code == 401
    assert (await client.get(url, headers=BEARER)).json() == "success!"


async def address(client: Client) -> None:
    url = await client.deploy("web_address", "get_ip_address")
    assert (await client.get(url)).json() == "Your IP address is 127.0.0.1"


async def api(client: Client) -> None:
    url = await client.deploy("web_api", "hello")
    assert (await client.get(url)).json() == {"message": "Hello, World!"}
    assert (await client.get(f"{url}?name=you")).json() == {"message": "Hello, you!"}


async def api_post(client: Client) -> None:
    url = await client.deploy("web_api_post", "predict", around=AROUND)
    assert (await client.post(url, json={"text": "a"})).json() == {"prediction": "A"}


async def api_query(client: Client) -> None:
    url = await client.deploy("web_api_query", "search", around=AROUND)
    assert (await client.get(f"{url}?query=hello&limit=2")).json() == {"results": ["hello"] * 2}


async def api_asgi(client: Client) -> None:
    url = await client.deploy("web_api_asgi", "fastapi_app", around=AROUND)
    assert (await client.get(url)).json() == {"status": "ok"}
    assert (await client.post(f"{url}/predict", json={"input": "a"})).json() == {"result": "A"}


async def api_wsgi(client: Client) -> None:
    url = await client.deploy("web_api_wsgi", "flask_server", around=AROUND)
    assert (await client.get(url)).json() == {"status": "ok"}


async def api_sockets(client: Client) -> None:
    url = await client.deploy("web_api_sockets", "ws_app", around=AROUND)
    async with connect(f"{url.replace('http', 'ws', 1)}/ws", open_timeout=90) as socket:
        await socket.send("hello")
        assert await socket.recv() == "HELLO"


async def api_bearer(client: Client) -> None:
    url = await client.deploy("web_api_bearer", "secure_predict", around=AROUND)
    assert (await client.post(url, json={"text": "a"})).status_code == 401
    assert (await client.post(url, json={"text": "a"}, headers=BEARER)).json() == {"result": "A"}


async def api_stream(client: Client) -> None:
    url = await client.deploy("web_api_stream", "stream_generate", around=AROUND)
    answer = await client.get(f"{url}?prompt=one+two")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text == "data: one\n\ndata: two\n\n"


async def api_concurrent(client: Client) -> None:
    url = await client.deploy("web_api_concurrent", "batch_predict", around=AROUND)
    assert (await client.post(url, json={"text": "a"})).json() == {"result": "A"}


async def api_class(client: Client) -> None:
    url = await client.deploy("web_api_class", "inferenceservice_serve", around=AROUND)
    assert (await client.post(f"{url}/generate", json={"prompt": "a"})).json() == "A"


FIRST = (hello, square, square_post, item, asgi, wsgi, file_server, auth, address)
SECOND = (
    api,
    api_post,
    api_query,
    api_asgi,
    api_wsgi,
    api_sockets,
    api_bearer,
    api_stream,
    api_concurrent,
    api_class,
)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("programs", [FIRST, SECOND], ids=["guide", "reference"])
async def test_every_program_of_the_document_answers(client: Client, programs: tuple[object, ...]) -> None:
    turn = asyncio.Semaphore(2)  # as many as there are processors

    async def check(program: object) -> None:
        async with turn:
            await program(client)  # type: ignore[operator]

    async with client, asyncio.TaskGroup() as group:
        for program in programs:
            group.create_task(check(program))
