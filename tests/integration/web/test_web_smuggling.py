"""Requests that others on their way could read in another way, and addresses written in unusual ones."""

import json
from typing import Any

import httpx
import pytest
from raw_requests import raw
from web_site import Site

# What stands between the first lines of a POST, which name a host, and a request that is hidden behind it.
AMBIGUOUS = {
    "a length and an encoding": b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    "an encoding and a length": b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nG",
    "another encoding": b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    "another encoding before": b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    "another encoding behind": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "two encodings": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two encodings, one unknown": b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an encoding that looks alike": b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "an encoding with quotes": b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "two lengths": b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "two lengths in one": b"Content-Length: 2, 2\r\n\r\nab",
    "a length with a sign": b"Content-Length: +2\r\n\r\nab",
    "a length below zero": b"Content-Length: -1\r\n\r\nab",
    "a length in base 16": b"Content-Length: 0x2\r\n\r\nab",
    "a length with an underscore": b"Content-Length: 1_0\r\n\r\n1234567890",
    "a length with a space": b"Content-Length: 1 0\r\n\r\n1234567890",
    "a length that is empty": b"Content-Length:\r\n\r\n",
    "a length beyond all": b"Content-Length: 99999999999999999999\r\n\r\nab",
    "a space before a colon": b"Content-Length : 2\r\n\r\nab",
    "a folded header": b"X-A: b\r\n Content-Length: 2\r\n\r\nab",
    "a folded encoding": b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a bare LF": b"Content-Length: 2\n\nab",
    "a bare CR": b"X-A: b\rContent-Length: 3\r\n\r\nabc",
    "a zero byte": b"X-A: a\0b\r\nContent-Length: 0\r\n\r\n",
    "a header without a name": b": x\r\n\r\n",
    "a header without a colon": b"X-A\r\n\r\n",
    "a name that is none": b"X(A: b\r\n\r\n",
    "a chunk's size that is none": b"Transfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
    "a chunk's size with a sign": b"Transfer-Encoding: chunked\r\n\r\n-2\r\nab\r\n0\r\n\r\n",
    "a chunk's size with a prefix": b"Transfer-Encoding: chunked\r\n\r\n0x2\r\nab\r\n0\r\n\r\n",
    "a chunk's size above 64 bits": (
        b"Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\nab\r\n0\r\n\r\n"
    ),
    "a chunk's size before a bare LF": b"Transfer-Encoding: chunked\r\n\r\n2\nab\r\n0\r\n\r\n",
    "a chunk's end that is a bare LF": b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\n0\r\n\r\n",
    "a chunk without an end": b"Transfer-Encoding: chunked\r\n\r\n2\r\nabXX0\r\n\r\n",
    "an extension with a bare LF": b"Transfer-Encoding: chunked\r\n\r\n2;a\nab\r\n0\r\n\r\n",
    "an extension with a bare CR": b"Transfer-Encoding: chunked\r\n\r\n2;a\rb\r\nab\r\n0\r\n\r\n",
    "a length in a trailer": b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 50\r\n\r\n",
    "two hosts": b"Host: y\r\nContent-Length: 0\r\n\r\n",
    "the same host twice": b"Host: x\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("rest", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
async def test_a_request_that_could_mean_two_things_is_refused_and_what_is_hidden_in_it_not_answered(
    site: Site, rest: bytes
) -> None:
    hidden = f"GET {site.path('web')}/pid HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    answer = await raw(site, f"POST {site.path('web')}/body HTTP/1.1\r\nHost: x\r\n".encode() + rest + hidden)
    assert answer.startswith(b"HTTP/1.1 400"), answer
    assert answer.count(b"HTTP/1.1") == 1, answer


UPGRADE = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
UPGRADE += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
ODD = {
    "no host": "GET {}/pid HTTP/1.1\r\n\r\n",
    "a host of two words": "GET {}/pid HTTP/1.1\r\nHost: a b\r\n\r\n",
    "two hosts in one": "GET {}/pid HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "a host with a path": "GET {}/pid HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a user before the host": "GET http://a@b{}/pid HTTP/1.1\r\nHost: b\r\n\r\n",
    "another version": "GET {}/pid HTTP/2.0\r\nHost: x\r\n\r\n",
    "no version": "GET {}/pid\r\n\r\n",
    "chunks before there were any": (
        "POST {}/body HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
    ),
    "a space in the path": "GET {}/a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "a control character in the path": "GET {}/a\x01b HTTP/1.1\r\nHost: x\r\n\r\n",
    "bytes beyond ASCII in the path": "GET {}/scope/ä HTTP/1.1\r\nHost: x\r\n\r\n",
    "bytes beyond ASCII in the query": "GET {}/scope?ä HTTP/1.1\r\nHost: x\r\n\r\n",
    "bytes beyond ASCII in a WebSocket's path": f"GET {{}}/echo/ä HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n",
    "a WebSocket with a body": f"GET {{}}/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n{UPGRADE}\r\nab",
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD.keys())
async def test_a_request_that_is_none_is_refused(site: Site, text: str) -> None:
    answer = await raw(site, text.format(site.path("web")).encode())
    assert answer.startswith(b"HTTP/1.1 400"), answer


async def test_a_head_that_is_too_large_is_refused(site: Site) -> None:
    start = f"POST {site.path('web')}/body HTTP/1.1\r\nHost: x\r\n".encode()
    long = await raw(site, start + b"X-Long: " + b"a" * 100_000 + b"\r\n\r\n")
    assert long.startswith(b"HTTP/1.1 431"), long[:100]
    many = await raw(site, start + b"".join(b"X-%d: 1\r\n" % number for number in range(2_000)) + b"\r\n")
    assert many.startswith(b"HTTP/1.1 431"), many[:100]
    trailer = b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-T: " + b"a" * 100_000 + b"\r\n\r\n"
    assert (await raw(site, start + trailer)).startswith(b"HTTP/1.1 431")


# Behind the function's own path: as it was sent, and as the app reads it.
PATHS = {
    "an encoded slash": ("/scope/a%2Fb%2f", "/scope/a/b/"),
    "an encoded percent": ("/scope/%252F", "/scope/%2F"),
    "a percent that encodes nothing": ("/scope/%zz%", "/scope/%zz%"),
    "an encoded zero": ("/scope/%00", "/scope/\0"),
    "what is no UTF-8": ("/scope/%ff%fe", "/scope/\ufffd\ufffd"),
    "an overlong slash": ("/scope/%c0%af", "/scope/\ufffd\ufffd"),
    "dots": ("/scope/../..//x", "/scope/../..//x"),
    "encoded dots": ("/scope/%2e%2E/x", "/scope/../x"),
    "a backslash": ("/scope/a\\b", "/scope/a\\b"),
}


async def scope(site: Site, target: str, host: str = "x") -> dict[str, Any]:
    answer = await raw(site, f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), answer
    return dict(json.loads(body))


@pytest.mark.parametrize(("sent", "read"), PATHS.values(), ids=PATHS.keys())
async def test_a_path_reaches_the_app_as_it_was_sent(site: Site, sent: str, read: str) -> None:
    root = site.path("web")
    seen = await scope(site, root + sent)
    assert (seen["raw_path"], seen["path"], seen["root_path"]) == (root + sent, root + read, root)


async def test_a_label_is_only_found_where_it_is_written_out(site: Site, client: httpx.AsyncClient) -> None:
    root = site.path("web")
    for target in (
        root.replace("/f/", "/f%2F"),
        f"{root}%2Fpid",
        root.replace("web-p", "we%62-p"),
        f"/{root}/pid",
    ):
        answer = await raw(site, f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 404"), (target, answer)
    assert (await client.get(site.url("web", "/pid"))).status_code == 200


async def test_the_host_of_a_target_counts_before_that_of_the_header(site: Site) -> None:
    label = site.path("web").removeprefix("/f/")
    seen = await scope(site, f"http://{label}.localhost:81/scope?a=%20b", host="nothing.localhost")
    assert (seen["raw_path"], seen["root_path"], seen["query"]) == ("/scope", "", "a=%20b")
    assert seen["headers"]["host"] == seen["headers"]["x-forwarded-host"] == f"{label}.localhost:81"
    for address in ("[::1]", "[::1]:81"):
        seen = await scope(site, f"http://{address}{site.path('web')}/scope")
        assert seen["headers"]["host"] == address
