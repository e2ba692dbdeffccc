"""A real browser without a window, told what to do over the DevTools protocol."""

import asyncio
import itertools
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import trustme
import websockets
from waiting import until

PROGRAM = "chromium-headless-shell"
DELIVERY = "cdn.jsdelivr.net"  # where FastAPI's page has its script and style from
ASSETS = files("fastapi_offline") / "static"  # the same files, as a wheel carries them


def is_there() -> bool:
    """Return whether the browser is installed."""
    return shutil.which(PROGRAM) is not None


class Page:
    """One open page."""

    def __init__(self, connection: websockets.ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)

    async def evaluate(self, expression: str) -> Any:
        """Return what an expression of JavaScript gives in the page, as JSON; None while that only comes."""
        number = next(self._numbers)
        asked = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        message = {"id": number, "method": "Runtime.evaluate", "params": asked}
        await self._connection.send(json.dumps(message))
        while (answer := json.loads(await self._connection.recv())).get("id") != number:
            pass
        if "error" in answer:  # there is no document, or it has just made way for another one
            return None
        assert "exceptionDetails" not in answer["result"], answer
        return answer["result"]["result"].get("value")

    async def click(self, selector: str) -> None:
        """Click the first element that a selector finds, as soon as there is one."""
        found = f"document.querySelector({json.dumps(selector)})"
        await until(lambda: self.evaluate(f"{found} !== null"), 60.0, f"for {selector}")
        await self.evaluate(f"{found}.click()")

    async def write(self, selector: str, text: str) -> None:
        """Write into a field as a person does: the page's framework hears of it, and of its end."""
        selector += ":enabled"
        found = f"document.querySelector({json.dumps(selector)})"
        await until(lambda: self.evaluate(f"{found} !== null"), 60.0, f"for {selector}")
        await self.evaluate(
            f"""(() => {{
                const field = {found};
                const {{set}} = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value");
                set.call(field, {json.dumps(text)});
                field.dispatchEvent(new Event("input", {{bubbles: true}}));
                field.dispatchEvent(new FocusEvent("focusout", {{bubbles: true}}));
            }})()"""
        )

    async def text(self, selector: str) -> str:
        """Return the text of the first element that a selector finds, as soon as there is one."""
        found = f"document.querySelector({json.dumps(selector)})?.textContent"
        return str(await until(lambda: self.evaluate(found), 60.0, f"for {selector}"))


class Browser:
    """A browser that runs."""

    def __init__(self, address: str) -> None:
        self._address = address

    @asynccontextmanager
    async def page(self, url: str) -> AsyncIterator[Page]:
        """Open a page."""
        async with httpx.AsyncClient(timeout=60.0) as client:
            opened = (await client.put(f"http://{self._address}/json/new?{url}")).json()
        async with websockets.connect(
            opened["webSocketDebuggerUrl"], max_size=None, open_timeout=60, ping_interval=None
        ) as connection:
            yield Page(connection)


@asynccontextmanager
async def browser(profile: Path) -> AsyncIterator[Browser]:
    """Run the browser with an empty profile. The host that delivers the page's files is played."""
    async with _delivery() as port:
        errors = profile / "errors"
        with errors.open("wb") as stream:
            process = subprocess.Popen(
                [
                    *(PROGRAM, "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"),
                    *(f"--user-data-dir={profile}", "--ignore-certificate-errors"),
                    f"--host-resolver-rules=MAP {DELIVERY}:443 127.0.0.1:{port}",
                    "about:blank",
                ],
                stdout=subprocess.DEVNULL,
                stderr=stream,
                start_new_session=True,
            )
        try:
            told = await until(lambda: _address(errors), 60.0, "for the browser")
            yield Browser(told)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # its program starts others
            process.wait()


def _address(errors: Path) -> str | None:
    found = re.search(r"DevTools listening on ws://([^/]+)/", errors.read_text())
    return found[1] if found else None


@asynccontextmanager
async def _delivery() -> AsyncIterator[int]:
    """Serve the files of FastAPI's page over TLS; yield the port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert(DELIVERY).configure_cert(context)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        name = request.split()[1].decode().rpartition("/")[2]
        kind = "text/css" if name.endswith(".css") else "text/javascript"
        body = (ASSETS / name).read_bytes()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]
