"""The pages that document an endpoint of a class, for the object that their address names."""

import asyncio
import re

import httpx
import pytest

import tidemill
from tidemill._container import apps


class Power:
    exponent: int = tidemill.parameter()
    loud: bool = tidemill.parameter(default=False)
    mark: bytes = tidemill.parameter(default=b"!")
    base: str = tidemill.parameter(default="of the class")

    async def of(self, base: int) -> dict[str, int]:
        return {"power": base}


@pytest.fixture
def client() -> httpx.AsyncClient:
    loop = asyncio.new_event_loop()
    app = apps.make(Power().of, {"kind": "endpoint", "method": "GET", "docs": True}, 1, loop)
    loop.close()
    transport = httpx.ASGITransport(app, root_path="/f/power")
    return httpx.AsyncClient(transport=transport, base_url="http://power")


@pytest.mark.parametrize("page", ["docs", "redoc"])
async def test_a_page_leads_to_the_document_of_the_same_object(client: httpx.AsyncClient, page: str) -> None:
    async with client:
        shown = (await client.get(f"/f/power/{page}?exponent=2&other=1&mark=%ff%27&base=")).text
        (url,) = re.findall(r"[\"'](/f/power/openapi\.json[^\"']*)[\"']", shown)
        assert url == "/f/power/openapi.json?exponent=2&mark=%FF%27&base="
        hostile = (await client.get(f"/f/power/{page}?exponent=</script>'\"&loud=%3Cb%3E")).text
        assert "?exponent=%3C%2Fscript%3E%27%22&loud=%3Cb%3E" in hostile
        bare = (await client.get(f"/f/power/{page}")).text
        assert re.search(r"[\"']/f/power/openapi\.json[\"']", bare)


async def test_the_document_tells_the_parameters_of_the_class_at_each_operation(
    client: httpx.AsyncClient,
) -> None:
    async with client:
        for _ in range(2):  # it is made once and kept
            document = (await client.get("/f/power/openapi.json?exponent=2")).json()
            told = {each["name"]: each for each in document["paths"]["/"]["get"]["parameters"]}
            assert len(document["paths"]["/"]["get"]["parameters"]) == len(told) == 4
    assert (told["exponent"]["in"], told["exponent"]["required"]) == ("query", True)
    assert told["exponent"]["schema"]["type"] == "integer"
    assert (told["loud"]["required"], told["loud"]["schema"]["default"]) == (False, False)
    assert "default" not in told["mark"]["schema"]
    assert told["base"]["schema"]["type"] == "integer"  # the method's own, which has the name


def test_an_endpoint_of_a_class_without_docs_has_none() -> None:
    loop = asyncio.new_event_loop()
    app = apps.make(Power().of, {"kind": "endpoint", "method": "GET", "docs": False}, 1, loop)
    loop.close()
    assert not {"/docs", "/openapi.json"} & {getattr(each, "path", "") for each in app.routes}  # type: ignore[attr-defined]
