"""What a secret holds reaches the container that declares it, and lies nowhere else."""

import base64
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running_stacks import RunningStack

from tidemill import Client, Function
from tidemill._sync import Call
from tidemill._wire.control import Done
from tidemill._wire.deploying import AppDeployed, DeployApp
from tidemill._wire.secrets import DeleteSecret, GetSecret, PutAppSecret, PutSecret, SecretInfo
from tidemill._wire.specs import FunctionSpec, Source
from tidemill.exception import AlreadyExistsError, InvalidError, NotFoundError

MARKER = "the-marker-of-this-test-7f3a"


@pytest.fixture
def client(own_stack: RunningStack) -> Iterator[Client]:
    with own_stack.client() as client:
        yield client


def forms(text: str) -> list[bytes]:
    """Return a text as it might lie about: plainly, in UTF-16, in hexadecimal, in base64 at any offset."""
    plain = text.encode()
    encoded = [base64.b64encode(b" " * skipped + plain)[4:-4] for skipped in range(3)]
    return [plain, text.encode("utf-16-le"), plain.hex().encode(), *encoded]


def files_with(folder: Path, text: str) -> list[Path]:
    found = []
    # Folders go away while they are walked through, which is an error for `Path.rglob`.
    for file in (Path(place, name) for place, _, names in os.walk(folder) for name in names):
        with contextlib.suppress(OSError):  # it went away, or is a socket
            if file.is_file() and any(form in file.read_bytes() for form in forms(text)):
                found.append(file)
    return found


def test_a_secret_reaches_its_container_and_lies_nowhere_else(
    own_stack: RunningStack, client: Client
) -> None:
    def ask(verb: str, message: object, answer: type[Any]) -> Any:
        async def request() -> Any:
            return await client.request("registry", verb, message, answer)

        return Call(request)()

    named = ask("put_secret", PutSecret("s", {"NAMED": MARKER}), SecretInfo)
    unnamed = ask("put_app_secret", PutAppSecret({"UNNAMED": MARKER}), SecretInfo)
    ask("put_secret", PutSecret("s", {"MORE": MARKER}, merge=True), SecretInfo)
    with pytest.raises(AlreadyExistsError):
        ask("put_secret", PutSecret("s", {"NAMED": MARKER}), SecretInfo)
    with pytest.raises(InvalidError) as refused:
        ask("put_secret", PutSecret("t", {"NAMED": f"{MARKER}\0"}), SecretInfo)
    assert MARKER not in f"{refused.value} {refused.value.hint}"
    assert MARKER not in repr(ask("get_secret", GetSecret("s"), SecretInfo))

    has = FunctionSpec(
        "has",
        Source(module="os", qualname="environ.__contains__"),
        secrets=(named.secret_id, unnamed.secret_id),
    )
    ask("deploy_app", DeployApp("leaks", (has,)), AppDeployed)
    function = Function.from_name("leaks", "has", client=client)
    assert [function.remote(name) for name in ("NAMED", "UNNAMED", "MORE", "ABSENT")] == [
        True,
        True,
        True,
        False,
    ]
    ask("delete_secret", DeleteSecret("s"), Done)
    with pytest.raises(NotFoundError, match="no longer there"):
        ask("deploy_app", DeployApp("other", (has,)), AppDeployed)
    own_stack.cli("down")
    assert files_with(own_stack.home, "leaks"), "the search finds what is there"
    assert files_with(own_stack.home, MARKER) == []
