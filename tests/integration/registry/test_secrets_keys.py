"""A registry with the wrong key for its secrets, and without one."""

from pathlib import Path
from typing import Any

from refusals import refused

from tidemill._wire.secrets import GetSecret, ListSecrets, PutSecret, SecretInfo, SecretList
from tidemill_registry.cipher import new_key


async def test_a_registry_without_the_right_key_says_so_and_serves_all_else(
    client: Any, start_registry: Any, folder: Path
) -> None:
    right = folder / "secrets.key"
    right.write_text(f"{new_key()}\n")
    registry = await start_registry(TIDEMILL_SECRETS_KEY_FILE=str(right))
    info = await client.ask("put_secret", PutSecret("s", {"A": "1"}), SecretInfo)
    await registry.kill()
    merge = PutSecret("s", {"B": "2"}, merge=True)

    wrong = await start_registry(TIDEMILL_SECRETS_KEY=new_key())
    assert [record["level"] for record in wrong.records() if "cannot be read" in record["msg"]] == ["error"]
    failure = await refused(client.ask("put_secret", merge, SecretInfo))
    assert (failure.code, "does not have" in failure.message) == ("service", True)
    assert await client.create("app")
    await wrong.kill()

    without = await start_registry()
    failure = await refused(client.ask("put_secret", PutSecret("t", {"A": "1"}), SecretInfo))
    assert (failure.code, "no key" in failure.message) == ("service", True)
    assert "TIDEMILL_SECRETS_KEY" in failure.hint
    listed = await client.ask("list_secrets", ListSecrets(), SecretList)
    assert listed.secrets == (info,)
    await without.kill()

    await start_registry(TIDEMILL_SECRETS_KEY_FILE=str(right))
    assert (await client.ask("put_secret", merge, SecretInfo)).keys == ("A", "B")
    assert (await client.ask("get_secret", GetSecret("s"), SecretInfo)).secret_id == info.secret_id
