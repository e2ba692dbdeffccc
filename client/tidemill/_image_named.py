"""Images on the server: built now, known by an id, published under a name, and begun with."""

from typing import TYPE_CHECKING, Any, Self

from tidemill import _image_built, _sync
from tidemill._image_parts import Collected
from tidemill._image_recipe import Recipe
from tidemill.exception import ExecutionError, InvalidError

if TYPE_CHECKING:
    from tidemill._client import Client
    from tidemill._logs import Logs, Origin
    from tidemill._plan import Plan
    from tidemill._wire.images import ImageInfo
    from tidemill.app import App

_BUILD = "build"  # the function of the app that builds an image
_TIMEOUT = 86_400.0  # seconds that the function waits for its container; builds end by their own limits


class _FromId:
    """`Image.from_id`, in both ways. It asks nobody."""

    def __get__(self, instance: object, owner: type["Named"]) -> "_sync.Immediate[Any, Any]":
        return _sync.Immediate(owner._from_id)


class Named(Recipe):
    """What an image is on the server. `_client` asks for it, `_info` is what was answered."""

    from_id = _FromId()

    @classmethod
    def _from_id(cls, image_id: str, client: "Client | None" = None) -> Self:
        """Return an image that was built before, by its id. It is not looked at before it is needed.

        Args:
            image_id: `im-...`, from `object_id` or from `TIDEMILL_IMAGE_ID` in a container.
            client: the connection to use.

        Raises:
            InvalidError: it cannot be an id.
        """
        if not isinstance(image_id, str) or not image_id.startswith("im-"):
            raise InvalidError(f"not the id of an image: {image_id!r}")
        image = cls._make((("from_id", {"image": image_id}),))
        image._client = client
        return image

    @classmethod
    def from_name(
        cls, name: str, *, environment_name: str | None = None, client: "Client | None" = None
    ) -> Self:
        """Return the image that was published under a name. It is not looked at before it is needed.

        What an app's functions run in is settled when it starts or is deployed; nothing is built for it
        but on workers that do not have it.

        Args:
            name: such as `"base"` or `"base:v2"`; without a tag `latest`.
            environment_name: the environment it was published in; by default that of the app.
            client: the connection to use.
        """
        if not isinstance(name, str) or not name:
            raise InvalidError(f"the name of an image has to be a string, not {name!r}")
        told = {"name": name, **({"environment": environment_name} if environment_name else {})}
        image = cls._make((("from_name", told),))
        image._client = client
        return image

    @_sync.method
    async def build(self, app: "App | None" = None) -> Self:
        """Build the image now, and wait for it. Its lines are shown under `enable_output()`.

        Args:
            app: a running or deployed app whose environment and connection are used; by default those
                that are configured.

        Raises:
            ImageBuildError: a layer failed.
            InvalidError: the app neither runs nor is deployed, or a local file cannot be read.
        """
        import asyncio

        from tidemill import _client, _deploying, _output, _running, config
        from tidemill.functions import Function

        record = None if app is None else app._reach()
        self._client = client = _client.current(record.client if record else self._client)
        environment = (await _deploying.info(record)).environment if record else config.environment(None)
        plan = await asyncio.to_thread(self._plan, environment)
        async with _running.run(plan, client, _output.current()) as running:
            function = Function[[], str, str](_image_built.identify, name=_BUILD)
            function._hydrate(running.handles[_BUILD], client)
            self._image_id = await function.remote.aio()
        return self

    def _plan(self, environment: str) -> "Plan":
        """Return an app whose one function does nothing but start in this image."""
        from tidemill._plan import Plan
        from tidemill._wire.specs import Autoscaling, FunctionSpec, Source

        collected = Collected()
        spec = FunctionSpec(
            _BUILD,
            Source(module=_image_built.__name__, qualname=_image_built.identify.__qualname__),
            image=self._collect(collected),
            autoscaling=Autoscaling(max_containers=1, scaledown_window=2.0),
            timeout=_TIMEOUT,
        )
        secrets = {_BUILD: tuple(collected.secrets)}
        return Plan(
            None, f"build of {self!r}"[:200], {}, (spec,), collected.blobs, {_BUILD: ()}, secrets, environment
        )

    @_sync.method
    async def publish(
        self,
        name: str,
        *,
        environment_name: str | None = None,
        experimental_options: "dict[str, Any] | None" = None,  # noqa: ARG002 - Modal's
        client: "Client | None" = None,
    ) -> None:
        """Give a built image a name, under which `Image.from_name` finds it. Another one loses it.

        Args:
            name: such as `"base"` or `"base:v2"`; without a tag `latest`.
            environment_name: the environment; the configured one by default.
            experimental_options: accepted; there are none.
            client: the connection to use.

        Raises:
            InvalidError: it was not built yet, or the name cannot be one.
        """
        from tidemill import _client, config
        from tidemill._wire.images import ImageInfo, PublishImage

        if not self._known_id:
            raise InvalidError("only a built image can be published", hint="call image.build(app) first")
        message = PublishImage(self._known_id, name, config.environment(environment_name))
        wanted = _client.current(client or self._client)
        self._info = await wanted.request("registry", "publish_image", message, ImageInfo)

    @_sync.method
    async def hydrate(self, client: "Client | None" = None) -> Self:
        """Ask the server for the image of an id or a name now.

        Raises:
            NotFoundError: there is none.
            ExecutionError: it is another recipe, and was not built yet.
        """
        self._client = client or self._client
        await self._ask()
        return self

    @property
    def is_hydrated(self) -> bool:
        """Whether its id is known."""
        return bool(self._known_id)

    @property
    def object_id(self) -> str:
        """Its id (`im-...`): the same for equal recipes.

        Raises:
            ExecutionError: it was neither built nor looked up.
        """
        if not self._known_id:
            raise ExecutionError(f"{self!r} has no id yet", hint="call .build(app) or .hydrate() first")
        return self._known_id

    @property
    def logs(self) -> "Logs":
        """What was said while it was built: see `App.logs`. They are kept for seven days."""
        from tidemill import _client, _logs

        async def find() -> "Origin":
            info = await self._ask()
            origin = await _logs.of_app(_client.current(self._client), info.app_id)
            return _logs.of_system(origin)

        return _logs.Logs(find)

    @_sync.method
    async def get_dashboard_url(self) -> str:
        """Return where the app that built it can be looked at, an empty text where no gateway is known."""
        from tidemill import _deploying

        return _deploying.page((await self._ask()).app_id)

    # --- what the server has

    @property
    def _known_id(self) -> str:
        if self._info is not None:
            return self._info.image
        operation, arguments = self._layers[0]
        only = len(self._layers) == 1 and operation == "from_id"
        return self._image_id or (arguments["image"] if only else "")

    async def _ask(self) -> "ImageInfo":
        from tidemill import _client, config
        from tidemill._wire.images import GetImage, ImageInfo

        operation, arguments = self._layers[0]
        message = GetImage(self._known_id)
        if not self._known_id:
            if operation != "from_name" or len(self._layers) > 1:
                raise ExecutionError(f"{self!r} was not built yet", hint="call .build(app) first")
            message = GetImage("", arguments["name"], config.environment(arguments.get("environment")))
        client = _client.current(self._client)
        self._info = await client.request("registry", "get_image", message, ImageInfo)
        return self._info
