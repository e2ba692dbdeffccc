"""WebSockets to an ASGI app and to a web server in a container."""

import asyncio
import functools

import httpx
import pytest
import websockets
from waiting import until
from web_site import Site
from websockets.asyncio import client as web_client
from websockets.exceptions import ConnectionClosed, InvalidStatus

connect = functools.partial(web_client.connect, open_timeout=60)  # a container may only start


async def test_messages_of_every_kind_and_size_come_back(site: Site) -> None:
    async with connect(site.socket("web", "/echo"), max_size=None) as socket:
        for message in ("text", "", "ä" * 50_000, b"", b"\x00\xff", b"x" * 3_000_000):
            await socket.send(message)
            assert await socket.recv() == message
        await socket.send(["in ", "three ", "frames"])
        assert await socket.recv() == "in three frames"
        await (await socket.ping())
        assert socket.response is not None
        assert socket.response.headers["x-said"] == "yes"
        assert "permessage-deflate" in socket.response.headers["sec-websocket-extensions"]


async def test_many_messages_keep_their_order(site: Site) -> None:
    async with connect(site.socket("web", "/echo"), compression=None) as socket:

        async def send() -> None:
            for number in range(2_000):
                await socket.send(str(number))

        sending = asyncio.create_task(send())
        assert [await socket.recv() for _ in range(2_000)] == [str(number) for number in range(2_000)]
        await sending


async def test_a_subprotocol_is_agreed_on(site: Site) -> None:
    async with connect(site.socket("web", "/echo"), subprotocols=["b", "a"]) as socket:  # type: ignore[list-item]
        assert socket.subprotocol == "b"


async def test_both_sides_close_with_code_and_reason(site: Site, client: httpx.AsyncClient) -> None:
    async with connect(site.socket("web", "/echo")) as socket:
        await socket.send("close")
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as you wish")
    async with connect(site.socket("web", "/echo")) as socket:
        await socket.send("hello")
        await socket.recv()
        await socket.close(4321, "enough")

    async def noted() -> bool:
        return "left with 4321 enough" in (await client.get(site.url("web", "/happened"))).json()

    await until(noted)


async def test_a_handshake_may_be_refused(site: Site) -> None:
    for address, status in (("/refused", 403), ("/nowhere", 403)):
        with pytest.raises(InvalidStatus) as refused:
            await connect(site.socket("web", address))
        assert refused.value.response.status_code == status
    with pytest.raises(InvalidStatus) as refused:
        await connect(site.socket("nothing", "/"))
    assert refused.value.response.status_code == 404


async def test_a_container_that_is_lost_closes_its_sockets(site: Site) -> None:
    async with connect(site.socket("web", "/socket-dies")) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1011


async def test_a_message_that_is_too_large_closes_the_connection(site: Site) -> None:
    async with connect(site.socket("web", "/echo"), compression=None, max_size=None) as socket:
        sending = asyncio.create_task(socket.send(b"x" * (17 << 20)))
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        await asyncio.wait((sending,))
        sending.exception()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


async def test_a_web_servers_own_sockets_are_passed_on(site: Site) -> None:
    chat = websockets.Subprotocol("chat")
    async with connect(site.socket("server", "/echo"), subprotocols=[chat]) as socket:
        assert socket.subprotocol == "chat"
        for message in ("text", b"bytes"):
            await socket.send(message)
            assert await socket.recv() == message
