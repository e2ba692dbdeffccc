"""What an app brings to the server, whether it is run or deployed: its functions, their code, their secrets.

Everything that can fail here is worked out first (`make`); then code and secrets are stored, at the same
time and only what the server lacks (`send`); what is left are specifications that name both.
"""

import asyncio
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill._bus import blobs
from tidemill._bus.protocol import BusError
from tidemill._caller import explain
from tidemill._dataclass import dataclass
from tidemill._image_parts import Collected
from tidemill._source import Packer
from tidemill._wire.control import FunctionHandle
from tidemill._wire.specs import FunctionSpec, ImageSpec
from tidemill.secret import Secret, resolve

if TYPE_CHECKING:
    from tidemill._client import Client
    from tidemill._standing import Standing
    from tidemill._wire.secrets import SecretInfo
    from tidemill.image import Image

TRANSFERS = 8  # at once


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that an app needs, worked out before anything is sent.

    `specs` lack the ids of their secrets; `secrets` holds, by the name of the function, what they stand for.
    `paths` are the files and folders that went into it.
    """

    name: str | None
    description: str
    tags: Mapping[str, str]
    specs: tuple[FunctionSpec, ...]
    blobs: Mapping[str, bytes]
    secrets: Mapping[str, tuple[Secret, ...]]
    build_secrets: Mapping[str, tuple[Secret, ...]]  # those that its image is built with
    environment: str
    paths: frozenset[Path] = frozenset()


async def make(app: "Standing", name: str | None, environment: str) -> Plan:
    """Work out what an app brings. Reads files, and sends nothing.

    Raises:
        InvalidError, ModuleNotMountable, SerializationError: its code or a secret cannot be sent.
    """
    return await asyncio.to_thread(pack, app, name, environment)


def pack(app: "Standing", name: str | None, environment: str) -> Plan:
    """Do what `make` does, here and now."""
    packer = Packer()
    specs: list[FunctionSpec] = []
    found: dict[str, bytes] = {}
    secrets: dict[str, tuple[Secret, ...]] = {}
    build_secrets: dict[str, tuple[Secret, ...]] = {}
    images = _Images()
    for key, (declaration, defaults) in app._declared.items():
        image = declaration.image_of(defaults)
        packed = packer.pack(
            app._functions[key].get_raw_f(),
            key,
            serialized=declaration.serialized,
            include_source=declaration.include_source,
            modules=image._modules,
        )
        image_spec, of_image = images.read(image)
        specs.append(declaration.spec(packed.source, defaults, image_spec))
        found.update(packed.blobs)
        found.update(of_image.blobs)
        packer.paths.update(of_image.paths)
        build_secrets[key] = tuple(of_image.secrets)
        secrets[key] = _readable((*defaults.secrets, *declaration.secrets))
    name = name or app.name
    description = name or app.description or ""
    paths = frozenset(packer.paths)
    return Plan(name, description, app._tags, tuple(specs), found, secrets, build_secrets, environment, paths)


class _Images:
    """Reads the recipes of one app; what several functions share is read once."""

    def __init__(self) -> None:
        self._read: dict[int, tuple[ImageSpec, Collected, Image]] = {}

    def read(self, image: "Image") -> "tuple[ImageSpec, Collected]":
        if id(image) not in self._read:
            collected = Collected()
            self._read[id(image)] = (image._collect(collected), collected, image)
        return self._read[id(image)][:2]


def _readable(secrets: tuple[Secret, ...]) -> tuple[Secret, ...]:
    """Return the secrets that hold anything; one that cannot be read here raises now."""
    return tuple(secret for secret in secrets if secret.name is not None or secret._variables())


# --- to the server


async def send(plan: Plan, client: "Client") -> tuple[FunctionSpec, ...]:
    """Store code and secrets; return the specifications, complete.

    Raises:
        NotFoundError, InvalidError: a secret is not there, or lacks a required key.
    """
    room = asyncio.Semaphore(TRANSFERS)
    caller = await client.connect()

    async def store(name: str, data: bytes) -> None:
        async with room:
            await blobs.put_named(caller.bus, caller.workspace, name, data)

    async def find(secret: Secret) -> "SecretInfo":
        async with room:
            return await resolve(secret, client, plan.environment)

    of_all = (*plan.secrets.values(), *plan.build_secrets.values())
    wanted = dict.fromkeys(secret for secrets in of_all for secret in secrets)
    try:
        async with asyncio.TaskGroup() as group:
            for name, data in plan.blobs.items():
                group.create_task(store(name, data))
            finding = {secret: group.create_task(find(secret)) for secret in wanted}
    except BaseExceptionGroup as failed:
        error = failed.exceptions[0]
        raise (explain(error) if isinstance(error, BusError) else error) from None
    ids = {secret: task.result().secret_id for secret, task in finding.items()}
    return tuple(
        dataclasses.replace(
            spec,
            secrets=_last_of_each([ids[each] for each in plan.secrets[spec.name]]),
            image=dataclasses.replace(
                spec.image, secrets=tuple(ids[each] for each in plan.build_secrets[spec.name])
            ),
        )
        for spec in plan.specs
    )


def _last_of_each(ids: list[str]) -> tuple[str, ...]:
    """Return ids without repeats, in the order in which they count: later secrets win over earlier ones."""
    return tuple(reversed(dict.fromkeys(reversed(ids))))


# --- what is said


def tree(plan: Plan, handles: Mapping[str, FunctionHandle]) -> Iterator[str]:
    """Yield the lines that show what was made, and where the web functions are."""
    yield "✓ Created objects."
    made = [line for spec in plan.specs for line in _made(spec, handles.get(spec.name))]
    for number, line in enumerate(made, start=1):
        yield f"{'└──' if number == len(made) else '├──'} Created {line}"


def _made(spec: FunctionSpec, handle: FunctionHandle | None) -> Iterator[str]:
    if handle is not None and handle.web_url:
        yield f"web function {spec.name} => {handle.web_url}"
        return
    yield f"function {spec.name}." if spec.cls is None else f"function {spec.name}.*."
    for method, url in handle.web_urls().items() if handle is not None else ():
        yield f"web function {spec.name}.{method} => {url}"
