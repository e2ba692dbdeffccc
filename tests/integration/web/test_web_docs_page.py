"""FastAPI's docs page in a real browser, under both kinds of addresses."""

import os
from pathlib import Path

import pytest
from browser import PROGRAM, browser, is_there
from web_site import APP, Site

pytestmark = pytest.mark.skipif(
    not is_there() and not os.environ.get("CI"), reason=f"{PROGRAM} is not installed"
)


async def test_a_function_is_tried_out_on_its_docs_page(site: Site, tmp_path: Path) -> None:
    port = site.gateway.rpartition(":")[2]
    by_host = f"http://local--{APP}-square.localhost:{port}"
    async with browser(tmp_path) as chromium:
        for address in (by_host, site.url("square", "")):
            async with chromium.page(f"{address}/docs") as page:
                await page.click(".opblock-summary-control")
                await page.click(".try-out__btn")
                await page.write("tr[data-param-name='x'] input", "7")
                await page.click(".execute")
                assert f"{address}/?x=7" in await page.text(".request-url")
                assert "49" in await page.text(
                    ".live-responses-table .response-col_description .highlight-code"
                )


async def test_a_method_of_an_object_with_parameters_is_tried_out_on_its_docs_page(
    site: Site, tmp_path: Path
) -> None:
    address = site.url("power-of", "")
    async with browser(tmp_path) as chromium, chromium.page(f"{address}/docs?exponent=3") as page:
        await page.click(".opblock-summary-control")
        await page.click(".try-out__btn")
        await page.write("tr[data-param-name='base'] input", "7")
        await page.write("tr[data-param-name='exponent'] input", "2")
        await page.click(".execute")
        assert f"{address}/?base=7&exponent=2" in await page.text(".request-url")
        assert "+49" in await page.text(".live-responses-table .response-col_description .highlight-code")
