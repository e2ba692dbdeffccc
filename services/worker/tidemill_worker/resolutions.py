"""Exact versions of an image's packages, kept by the registry: the same on every worker."""

from tidemill._bus.protocol import RequestFailed
from tidemill._wire import subjects
from tidemill._wire.images import GetResolution, PutResolution, Resolution
from tidemill.exception import ServiceError
from tidemill_worker.asking import ask
from tidemill_worker.node import Node


class Resolutions:
    """What recipes were resolved to. The first resolution of a recipe stays."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def get(self, workspace: str, key: str) -> tuple[str, ...] | None:
        """Return the layers of a resolution, if there is one.

        Raises:
            ServiceError: the registry does not answer.
        """
        return await self._ask(workspace, "get_resolution", GetResolution(key))

    async def put(self, workspace: str, key: str, layers: tuple[str, ...]) -> tuple[str, ...]:
        """Offer a resolution; return the one that stays.

        Raises:
            ServiceError: the registry does not answer.
        """
        return await self._ask(workspace, "put_resolution", PutResolution(key, layers)) or layers

    async def _ask(self, workspace: str, verb: str, message: object) -> tuple[str, ...] | None:
        subject = subjects.images(workspace, verb)
        try:
            return (await ask(self._node, subject, message, Resolution, "the image's record")).layers
        except RequestFailed as error:
            raise ServiceError(f"the image's record cannot be had: {error.message}") from None
