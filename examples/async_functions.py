"""Async functions, called from async code. `tidemill run examples/async_functions.py`"""

import asyncio

import tidemill

app = tidemill.App("async-functions")


@app.function()
async def fetch(page: int) -> str:
    await asyncio.sleep(0.1)
    return f"page {page}"


@app.function()
async def crawl(pages: int) -> list[str]:
    """Call another function from inside a container."""
    return await asyncio.gather(*(fetch.remote.aio(page) for page in range(pages)))


@app.local_entrypoint()
async def main() -> None:
    print(await crawl.remote.aio(3))
    async for page in fetch.map.aio(range(3, 6)):
        print(page)
