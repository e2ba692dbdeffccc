"""Bodies that nobody takes: who sends them waits, and nothing piles up in between."""

import asyncio
from contextlib import suppress

import httpx
import psutil
from web_site import Site

SIZE = 256 << 20
AHEAD = 24 << 20  # bytes that may lie between a sender and a reader that takes nothing, sockets included
GROWTH = 64 << 20
LOOKS = 20  # requests in a row that see no more


def memory(site: Site) -> dict[str, int]:
    """Return the resident memory of the parts that a body goes through."""
    found = {name: psutil.Process(site.stack.part(name).pid) for name in ("gateway", "worker")}
    sizes = {name: process.memory_info().rss for name, process in found.items()}
    runners = found["worker"].children(recursive=True)
    for each in runners:
        with suppress(psutil.NoSuchProcess):  # containers of others end at any time
            sizes[f"container {each.pid}"] = each.memory_info().rss
    return sizes


async def at_rest(site: Site, client: httpx.AsyncClient) -> dict[str, int]:
    """Return the same, once a container is there that has the app: its imports are no growth."""
    assert (await client.get(site.url("web"))).status_code == 200
    return memory(site)


def check_growth(before: dict[str, int], after: dict[str, int]) -> None:
    for name, size in after.items():
        assert size - before.get(name, size) < GROWTH, name


async def test_a_slow_client_slows_the_function_down(site: Site, client: httpx.AsyncClient) -> None:
    before = await at_rest(site, client)
    async with client.stream("GET", site.url("web", f"/count?size={SIZE}")) as answer:
        pieces = answer.aiter_raw()
        received = len(await anext(pieces))
        seen, same = 0, 0
        while same < LOOKS:
            now = (await client.get(site.url("web", "/produced"))).json()
            same = same + 1 if now == seen else 0
            seen = now
        assert seen < AHEAD
        check_growth(before, memory(site))
        received += sum([len(piece) async for piece in pieces])
    assert received == SIZE
    check_growth(before, memory(site))


async def test_a_slow_function_slows_its_client_down(site: Site, client: httpx.AsyncClient) -> None:
    before = await at_rest(site, client)
    sent = 0

    async def content():  # type: ignore[no-untyped-def]
        nonlocal sent
        for _ in range(SIZE >> 18):
            yield bytes(1 << 18)
            sent += 1 << 18

    asked = asyncio.create_task(client.post(site.url("web", "/slow-reader"), content=content()))
    seen, same = -1, 0
    while same < LOOKS:
        await client.get(site.url("web", "/produced"))
        same = same + 1 if sent == seen and sent else 0
        seen = sent
    assert seen < AHEAD
    check_growth(before, memory(site))
    await client.get(site.url("web", "/go-on"))
    assert (await asked).json() == SIZE
    check_growth(before, memory(site))
