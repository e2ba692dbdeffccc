"""Requests to an ASGI app, through the gateway: what the app sees, and what the client gets."""

import asyncio
import hashlib
import json
from typing import Any

import httpx
import pytest
from raw_requests import connection, raw
from waiting import until
from web_site import Site

Client = httpx.AsyncClient


async def test_an_app_answers_by_path_and_by_host(site: Site, client: Client) -> None:
    by_path = await client.get(site.url("web"))
    assert (by_path.status_code, by_path.json()) == (200, {"hello": "world"})
    assert (await client.get(site.url("web", ""))).json() == {"hello": "world"}
    by_host = await client.get(site.gateway, headers={"host": "local--web-program-web.localhost:80"})
    assert by_host.json() == {"hello": "world"}


async def test_there_is_nothing_at_other_labels(site: Site, client: Client) -> None:
    for address in (
        site.url("nothing"),
        f"{site.gateway}/f/",
        f"{site.gateway}/f/local--web-program-tell-url/",
    ):
        answer = await client.get(address)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    answer = await client.get(site.gateway, headers={"host": "nothing.localhost"})
    assert answer.status_code == 404


async def test_the_app_sees_the_request_as_it_was_sent(site: Site, client: Client) -> None:
    headers = {"x-forwarded-for": "6.6.6.6", "forwarded": "for=6.6.6.6", "x-mine": "1"}
    seen = (await client.get(site.url("web", "/scope/a%2Fb/%C3%A4?q=%20x&q=2"), headers=headers)).json()
    root = site.path("web")
    assert (seen["root_path"], seen["path"]) == (root, f"{root}/scope/a/b/ä")
    assert seen["raw_path"] == f"{root}/scope/a%2Fb/%C3%A4"
    assert seen["query"] == "q=%20x&q=2"
    assert (seen["client"][0], seen["scheme"], seen["http_version"]) == ("127.0.0.1", "http", "1.1")
    assert seen["headers"]["x-forwarded-for"] == "127.0.0.1"
    assert "forwarded" not in seen["headers"]
    assert seen["headers"]["x-forwarded-prefix"] == root
    assert seen["headers"]["x-mine"] == "1"
    assert seen["call"].startswith("fc-")


async def test_a_host_of_its_own_has_no_prefix(site: Site, client: Client) -> None:
    host = {"host": "local--web-program-web.localhost"}
    seen = (await client.get(f"{site.gateway}/scope/x", headers=host)).json()
    assert (seen["root_path"], seen["path"]) == ("", "/scope/x")
    assert seen["headers"]["x-forwarded-host"] == host["host"]


async def test_docs_and_redirects_lead_back_to_the_function(site: Site, client: Client) -> None:
    page = await client.get(site.url("web", "/docs"))
    assert f"{site.path('web')}/openapi.json" in page.text
    assert (await client.get(site.url("web", "/openapi.json"))).json()["info"]["title"] == "FastAPI"
    redirect = await client.get(site.url("web", "/pid/"))
    assert redirect.headers["location"] == site.url("web", "/pid")
    by_host = await client.get(f"{site.gateway}/docs", headers={"host": "local--web-program-web.localhost"})
    assert "'/openapi.json'" in by_host.text


async def test_bodies_of_every_size_and_encoding_arrive(site: Site, client: Client) -> None:
    for size in (0, 1, 65_536, 65_537, 5_000_000):
        content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        expected = hashlib.sha256(content).hexdigest()
        fixed = (await client.post(site.url("web", "/body"), content=content)).json()
        assert (fixed["size"], fixed["sha256"]) == (size, expected)

        async def pieces(content: bytes = content) -> Any:
            for start in range(0, len(content), 100_000):
                yield content[start : start + 100_000]

        chunked = (await client.put(site.url("web", "/body"), content=pieces())).json()
        assert (chunked["method"], chunked["sha256"]) == ("PUT", expected)


async def test_a_body_is_passed_back_while_it_comes(site: Site) -> None:
    reader, writer = await connection(site)
    writer.write(f"POST {site.path('web')}/back HTTP/1.1\r\nHost: x\r\n".encode())
    writer.write(b"Transfer-Encoding: chunked\r\n\r\n4\r\nping\r\n")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    assert b"transfer-encoding: chunked" in head
    assert await reader.readexactly(9) == b"4\r\nping\r\n"
    writer.write(b"4\r\npong\r\n0\r\n\r\n")
    assert await reader.readexactly(14) == b"4\r\npong\r\n0\r\n\r\n"
    writer.close()


async def test_a_large_response_arrives_whole(site: Site, client: Client) -> None:
    for declared in (True, False):
        answer = await client.get(site.url("web", f"/bytes?size=20000000&declared={declared}"))
        assert len(answer.content) == 20_000_000
        assert ("content-length" in answer.headers) is declared


async def test_events_come_one_by_one(site: Site, client: Client) -> None:
    came = []
    async with client.stream("GET", site.url("web", "/events")) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for line in answer.aiter_lines():
            if line:
                came.append(line)
                if len(came) < 3:  # the next one is made after this one came
                    await client.get(site.url("web", "/go-on"))
    assert came == ["data: 0", "data: 1", "data: 2"]


async def test_head_and_options_and_empty_answers(site: Site, client: Client) -> None:
    head = await client.head(site.url("web", "/bytes?size=5&declared=1"))
    assert head.status_code in (200, 405)
    assert head.content == b""
    assert (await client.options(site.url("web", "/pid"))).status_code == 405
    empty = await client.get(site.url("web", "/headers"))
    assert (empty.status_code, empty.content) == (204, b"")
    assert empty.headers.get_list("set-cookie") == ["a=1", "b=2"]


async def test_what_the_app_raises_is_its_answer_and_is_logged(site: Site, client: Client) -> None:
    answer = await client.get(site.url("web", "/raises"))
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")

    async def logged() -> bool:
        done = await asyncio.to_thread(site.stack.cli, "app", "logs", "web-program")
        return "ValueError: what the function raised" in done.stdout

    await until(logged)


async def test_requests_run_at_once_where_they_may_and_else_one_by_one(site: Site, client: Client) -> None:
    await client.get(site.url("web", "/sleeps?seconds=0"))
    both = (client.get(site.url("web", "/beside?seconds=1.5")) for _ in range(10))
    assert max(answer.json() for answer in await asyncio.gather(*both)) > 1
    alone = (client.get(f"{site.gateway}/f/local--one-by-one/beside?seconds=0.1") for _ in range(3))
    assert [answer.json() for answer in await asyncio.gather(*alone)] == [1, 1, 1]


async def test_a_client_that_leaves_ends_what_it_asked_for(site: Site, client: Client) -> None:
    async def happened() -> list[str]:
        return list((await client.get(site.url("web", "/happened"))).json())

    before = (await happened()).count("sleep begun")
    asked = asyncio.create_task(client.get(site.url("web", "/sleeps?seconds=60")))

    async def begun() -> bool:
        return (await happened()).count("sleep begun") > before

    await until(begun)
    asked.cancel()
    async with client.stream("GET", site.url("web", "/endless")) as answer:
        async for _ in answer.aiter_bytes():
            break

    async def noted() -> bool:
        return {"sleep cancelled", "endless ended"} <= set(await happened())

    await until(noted)


async def test_work_after_the_response_is_done_and_delays_nobody(site: Site, client: Client) -> None:
    assert (await client.get(site.url("web", "/later"))).text == '"now"'
    assert "done later" not in (await client.get(site.url("web", "/happened"))).json()
    await client.get(site.url("web", "/go-on"))

    async def done() -> bool:
        return "done later" in (await client.get(site.url("web", "/happened"))).json()

    await until(done)


async def test_a_response_that_breaks_off_never_looks_whole(site: Site, client: Client) -> None:
    for how in ("raises", "short", "dies"):
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await client.get(site.url("web", f"/breaks?how={how}"))
    lost = await client.get(site.url("web", "/dies"))
    assert (lost.status_code, lost.headers["content-type"]) == (502, "application/problem+json")
    assert (await client.get(site.url("web"))).status_code == 200


async def test_a_request_above_its_timeout_is_answered_with_504(site: Site, client: Client) -> None:
    assert (await client.get(site.url("impatient", "?seconds=0"))).json() == "slept"
    slow, quick = await asyncio.gather(
        client.get(site.url("impatient", "?seconds=30")), client.get(site.url("impatient", "?seconds=0.1"))
    )
    assert (slow.status_code, slow.json()["code"]) == (504, "function_timeout")
    assert quick.json() == "slept"


async def test_a_body_that_is_announced_is_asked_for_only_when_it_is_wanted(site: Site) -> None:
    head = "POST {}{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n"
    head += "Expect: 100-continue\r\n\r\n"
    reader, writer = await connection(site)
    writer.write(head.format(site.path("web"), "/body").encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 100")
    writer.write(b"12345")
    answer = await asyncio.wait_for(reader.read(), 60)
    assert json.loads(answer.rpartition(b"\r\n\r\n")[2])["size"] == 5
    writer.close()
    early = await raw(site, head.format(site.path("web"), "/early").encode())
    assert early.startswith(b"HTTP/1.1 413"), early


async def test_trailers_come_behind_the_body(site: Site) -> None:
    asked = f"GET {site.path('web')}/trailers/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = await raw(site, asked.encode())
    assert answer.endswith(b"7\r\ncontent\r\n0\r\nx-checksum: 42\r\n\r\n")


async def test_one_connection_carries_many_requests(site: Site) -> None:
    one = f"GET {site.path('web')}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    last = one.replace(b"Host: x", b"Host: x\r\nConnection: close")
    answer = await raw(site, one * 3 + last)
    assert answer.count(b"HTTP/1.1 200") == 4
    assert answer.count(b'{"hello":"world"}') == 4
