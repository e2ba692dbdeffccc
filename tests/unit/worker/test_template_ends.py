"""The end of templates that never came to be used."""

import asyncio
import socket
import tempfile

import pytest

from tidemill_worker import templates
from tidemill_worker.templates import Template
from tidemill_worker.tier import Launched


async def test_a_template_that_was_never_opened_is_told_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "END_TIMEOUT", 30.0)  # it ends by itself, however slow this machine is
    ours, its = socket.socketpair()
    with its:
        process = await asyncio.create_subprocess_exec("cat", stdin=its, stdout=its)
    words = tempfile.TemporaryFile()  # noqa: SIM115 - the template closes it
    template = Template(Launched(process), ours, words)
    await template.end()
    assert process.returncode == 0
    assert template.is_gone
    assert words.closed
    await template.end()  # once more changes nothing
