"""What the gateway sends of a request."""

from typing import Any

import pytest

from tidemill_gateway.web.http import fields
from tidemill_gateway.web.protocol import end_with_trailers


def scope(path: str, **more: Any) -> dict[str, Any]:
    headers = [(b"host", b"here:80"), (b"x-forwarded-for", b"6.6.6.6"), (b"x-real-ip", b"6.6.6.6")]
    return {
        "type": "http", "method": "GET", "scheme": "http", "http_version": "1.1", "path": path,
        "raw_path": path.encode(), "query_string": b"", "client": ("1.2.3.4", 5), "server": ("here", 80),
        "headers": headers, **more,
    }  # fmt: skip


def test_who_the_client_is_says_the_gateway_alone() -> None:
    request = fields(scope("/x"), "", b"", more=False)
    assert request.headers == [
        (b"host", b"here:80"),
        (b"x-forwarded-for", b"1.2.3.4"),
        (b"x-forwarded-proto", b"http"),
        (b"x-forwarded-host", b"here:80"),
    ]
    assert (request.root_path, request.path) == ("", "/x")


def test_by_path_the_prefix_is_told() -> None:
    request = fields(scope("/f/label/x"), "/f/label", b"", more=False)
    assert (request.root_path, request.path) == ("/f/label", "/f/label/x")
    assert (b"x-forwarded-prefix", b"/f/label") in request.headers


def test_the_bare_address_of_a_function_is_its_root() -> None:
    request = fields(scope("/f/label"), "/f/label", b"", more=False)
    assert (request.path, request.raw_path) == ("/f/label/", b"/f/label/")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_response_of_known_length_has_no_trailers(method: str) -> None:
    assert not end_with_trailers(scope("/", method=method), [(b"x-a", b"1")])
