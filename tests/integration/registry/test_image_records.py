"""What is kept of images."""

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from stored_records import Records, spec

from tidemill._wire.images import GetResolution, PutResolution, Resolution
from tidemill._wire.secrets import PutAppSecret, RevealSecrets
from tidemill._wire.specs import ImageSpec
from tidemill.exception import InvalidError, PermissionDeniedError
from tidemill_registry import images
from tidemill_registry.cipher import Keyring
from tidemill_registry.database import database_clock
from tidemill_registry.secrets import Secrets


async def test_the_first_resolution_of_an_image_stays(engine: AsyncEngine) -> None:
    assert await images.get_resolution(engine, "main", GetResolution("key")) == Resolution(None)
    first, second = PutResolution("key", ("a==1",)), PutResolution("key", ("a==2",))
    assert await images.put_resolution(engine, "main", first) == Resolution(("a==1",))
    assert await images.put_resolution(engine, "main", second) == Resolution(("a==1",))
    assert await images.get_resolution(engine, "main", GetResolution("key")) == Resolution(("a==1",))
    for wrong in (PutResolution("", ()), PutResolution("k", ("x" * (5 << 20),))):
        with pytest.raises(InvalidError):
            await images.put_resolution(engine, "main", wrong)


async def test_secrets_of_a_build_are_revealed_to_it_and_to_no_other(
    engine: AsyncEngine, records: Records
) -> None:
    secrets = Secrets(engine, Keyring([b"1" * 32]), database_clock)
    kept = await secrets.put_unnamed(records.workspace, PutAppSecret({"TOKEN": "t"}))
    image = ImageSpec((("debian_slim", {}),), secrets=(kept.secret_id,))
    deployed = await records.deploy(spec("builds", image=image), spec("other"))
    request = RevealSecrets(deployed.handles["builds"].pool, (kept.secret_id,))
    assert (await secrets.reveal(records.workspace, request)).values == {"TOKEN": "t"}
    request = RevealSecrets(deployed.handles["other"].pool, (kept.secret_id,))
    with pytest.raises(PermissionDeniedError):
        await secrets.reveal(records.workspace, request)
