"""Web functions of every kind."""

import asyncio
from pathlib import Path

import httpx
import pytest
from waiting import until
from web_site import APP, Site

import tidemill
from tidemill import exception

Client = httpx.AsyncClient


async def test_an_endpoint_reads_its_parameters(site: Site, client: Client) -> None:
    answer = await client.get(site.url("square", "?x=42&plus=1"), headers={"user-agent": "me"})
    assert answer.json() == {"square": 1765, "agent": "me"}
    assert (await client.get(site.url("square", "?x=no"))).status_code == 422
    assert (await client.post(site.url("square", "?x=1"))).status_code == 405
    told = await client.post(site.url("order"), json={"name": "Erik", "qty": 10})
    assert told.json() == {"told": "10 of Erik"}
    files = {"file": ("notes.txt", b"x" * 1000)}
    answer = await client.post(site.url("form"), data={"title": "hi"}, files=files)
    assert answer.json() == {"title": "hi", "name": "notes.txt", "size": 1000}


async def test_an_endpoint_is_open_to_all_sites_and_shows_docs_where_it_says_so(
    site: Site, client: Client
) -> None:
    origin = {"origin": "https://elsewhere.example"}
    answer = await client.get(site.url("square", "?x=1"), headers=origin)
    assert answer.headers["access-control-allow-origin"] in ("*", origin["origin"])
    asked = {**origin, "access-control-request-method": "POST"}
    assert (await client.options(site.url("order"), headers=asked)).status_code == 200
    assert (await client.get(site.url("square", "/docs"))).status_code == 200
    assert (await client.get(site.url("order", "/docs"))).status_code == 404


async def test_a_wsgi_app_runs_in_threads(site: Site, client: Client) -> None:
    answer = await client.post(site.url("wsgi", "/some/path"), content=b"said")
    assert answer.text == f"POST {site.path('wsgi')} /some/path said"
    meeting = (client.get(site.url("wsgi", "/meet")) for _ in range(2))
    assert [each.status_code for each in await asyncio.gather(*meeting)] == [200, 200]


async def test_a_web_server_gets_requests_at_its_port(site: Site, client: Client) -> None:
    seen = (await client.post(site.url("server", "/a%2Fb?x=%20"), content=b"12345")).json()
    assert (seen["path"], seen["size"], seen["from"]) == ("/a%2Fb?x=%20", 5, "127.0.0.1")
    away = await client.get(site.url("server", "/away"))
    assert (away.status_code, away.headers["location"]) == (302, "/elsewhere")
    content = b"0123456789" * 500_000
    assert (await client.post(site.url("server", "/flow"), content=content)).content == content


async def test_a_web_server_that_ends_is_started_anew(site: Site, client: Client) -> None:
    assert (await client.get(site.url("server", "/die"))).status_code in (500, 502)

    async def answers() -> bool:
        return (await client.get(site.url("server", "/x"))).status_code == 200

    await until(answers)


async def test_urls_are_told_inside_and_outside(site: Site, own_client: tidemill.Client) -> None:
    web = tidemill.Function.from_name(APP, "web", client=own_client)
    url = await web.get_web_url.aio()
    assert url is not None
    assert "local--web-program-web" in url
    told = tidemill.Function.from_name(APP, "tell_url", client=own_client)
    assert await told.remote.aio() == url
    with pytest.raises(exception.InvalidError, match="is a web function"):
        await web.remote.aio()


async def test_an_app_that_cannot_be_made_is_an_error_soon(site: Site, client: Client) -> None:
    answer = await client.get(site.url("broken"))
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert "not an ASGI app" in answer.json()["detail"]


async def test_a_label_belongs_to_one_app(site: Site, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(
        "import tidemill\n"
        'app = tidemill.App("other")\n'
        "@app.function()\n"
        '@tidemill.asgi_app(label="one-by-one")\n'
        "def mine(): ...\n"
    )
    done = await asyncio.to_thread(site.stack.cli, "deploy", str(other))
    assert done.returncode == 1
    assert "the label 'local--one-by-one' belongs to a function of another app" in done.stderr
