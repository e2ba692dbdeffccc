"""Web methods of classes: several of one object, and objects for the parameters in a URL."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import websockets
from running_stacks import RunningStack
from waiting import until

import tidemill

APP = "web-classes"
PROGRAM = Path(__file__).with_name("class_program.py")


class Shops:
    """The methods of `class_program.py`."""

    def __init__(self, stack: RunningStack, client: tidemill.Client) -> None:
        self.client = client
        self.gateway = stack.info.gateway_url
        self.web = httpx.AsyncClient(timeout=60.0)

    def url(self, label: str, rest: str = "/") -> str:
        return f"{self.gateway}/f/local--{label}{rest}"

    async def get(self, label: str, rest: str = "/") -> httpx.Response:
        return await self.web.get(self.url(label, rest))


@pytest.fixture
async def shops(stack: RunningStack, own_client: tidemill.Client) -> AsyncIterator[Shops]:
    """The classes, deployed."""
    done = stack.cli("deploy", str(PROGRAM))
    assert done.returncode == 0, done.stderr
    assert "Created function Shop.*." in done.stderr
    for made in ("Shop.look => ", "Shop.pay => ", "Shop.site => ", "Greeter.hello => "):
        assert f"Created web function {made}" in done.stderr
    found = Shops(stack, own_client)

    async def is_there() -> bool:
        return (await found.get(f"{APP}-greeter-hello")).status_code == 422

    await until(is_there)  # the gateway hears of the routes behind the deploy
    yield found
    await found.web.aclose()
    assert stack.cli("app", "stop", APP, "-y").returncode == 0


async def test_the_methods_of_a_class_answer_beside_each_other_with_one_object(
    stack: RunningStack, shops: Shops
) -> None:
    shop = tidemill.Cls.from_name(APP, "Shop", client=shops.client)()
    assert await shop.sell.remote.aio("a lamp") == ["a lamp"]
    assert (await shops.get(f"{APP}-shop-look")).json() == {"sold": ["a lamp"]}
    paid = await shops.web.post(shops.url("web-classes-till"), json={"what": "a chair"})
    assert paid.json()["sold"] == ["a lamp", "a chair"]
    assert paid.json()["look"] == await shop.look.get_web_url.aio()
    page = (await shops.get(f"{APP}-shop-site", "/front")).json()
    assert page == {
        "name": "front",
        "root_path": "/f/local--web-classes-shop-site",
        "sold": paid.json()["sold"],
    }
    assert [each async for each in shop.shelves.remote_gen.aio(3)] == [0, 1, 2]
    assert [each async for each in shop.sell.map.aio(["x", "y"])]
    assert len((await shops.get(f"{APP}-shop-look", "/?more=z")).json()["sold"]) == 5
    assert (await shops.get(f"{APP}-shop-sell")).status_code == 404
    stubborn = tidemill.Cls.from_name(APP, "Stubborn", client=shops.client)()
    assert await stubborn.order.remote.aio("a bed") == "a bed at 2"
    assert (await shops.get(f"{APP}-stubborn-fail")).status_code == 500
    assert await stubborn.order.remote.aio("a rug") == "a rug at 4"
    waiting = await shop.wait.spawn.aio()

    async def waits() -> bool:
        return "waiting" in (await shops.get(f"{APP}-shop-look")).json()["sold"]

    await until(waits)
    await waiting.cancel.aio()
    with pytest.raises(tidemill.exception.RemoteError, match="was cancelled"):
        await waiting.get.aio()
    assert await waits()  # the object is still there: only the input was ended
    with pytest.raises(tidemill.exception.InvalidError, match="is a web function"):
        await shop.look.remote.aio()
    assert "requests_in_the_last_hour" in stack.cli("function", "stats", APP, "Shop", "--json").stdout

    label = f"{APP}-greeter-hello"
    first = (await shops.get(label, "/?greeting=Hi&name=Ada")).json()
    assert (first["said"], first["answered"]) == ("Hi Ada!", 1)
    again = (await shops.get(label, "/?times=1&greeting=Hi")).json()
    assert (again["said"], again["answered"]) == ("Hi you!", 2)
    other = (await shops.get(label, "/?greeting=Gr%C3%BC%C3%9F+dich&times=%2B2&loud=Yes&mark=%ff")).json()
    assert (other["said"], other["answered"]) == ("GRÜSS DICH GRÜSS DICH YOUÿ".upper(), 1)
    assert httpx.URL(other["url"]).params["greeting"] == "Grüß dich"
    greeter = tidemill.Cls.from_name(APP, "Greeter", client=shops.client)(greeting="Hi")
    assert await greeter.bare.remote.aio() == "Hi 2"  # callers have the same object as URLs
    assert await greeter.hello.get_web_url.aio() == first["url"]
    for wrong, why in (
        ("", "lacks the parameter 'greeting'"),
        ("greeting=a&greeting=b", "the parameter 'greeting' is there twice"),
        ("greeting=%ff", "the parameter 'greeting' has to be text in UTF-8"),
        ("greeting=a&times=two", "the parameter 'times' has to be a whole number, not 'two'"),
        ("greeting=a&times=99999999999999999999", "has more than 64 bits"),
        ("greeting=a&loud=perhaps", "the parameter 'loud' has to be true or false"),
    ):
        refused = await shops.get(label, f"/?{wrong}")
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_parameter")
        assert why in refused.json()["detail"]

    site = f"{APP}-greeter-site"
    socket_url = shops.url(site, "/ws?greeting=Salve").replace("http://", "ws://")
    async with websockets.connect(socket_url, open_timeout=60) as socket:
        await socket.send("Ada")
        assert await socket.recv() == "Salve Ada"
    with pytest.raises(websockets.InvalidStatus, match="422"):
        await websockets.connect(shops.url(site, "/ws").replace("http://", "ws://"), open_timeout=60)
    told = await shops.get(site, "/events?greeting=Hej")
    assert told.text == "".join(f"data: Hej {number}\n\n" for number in range(3))
