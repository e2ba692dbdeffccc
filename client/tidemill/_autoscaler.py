"""`Function.autoscaler`: the settings that its containers are started and stopped by."""

from typing import TYPE_CHECKING, Any

from tidemill import _sync
from tidemill.types import FunctionAutoscalerSettings, FunctionCurrentStats

if TYPE_CHECKING:
    from tidemill._wire.specs import Autoscaling
    from tidemill.functions import Function


class Autoscaler:
    """The settings of one function."""

    def __init__(self, function: "Function[Any, Any, Any]") -> None:
        self._function = function

    @_sync.method
    async def settings(self) -> FunctionAutoscalerSettings:
        """Return the settings that hold now."""
        from tidemill._wire.autoscaling import GetAutoscaler

        return await _ask(self._function, "get_autoscaler", GetAutoscaler)

    @_sync.method
    async def update(
        self,
        *,
        min_containers: int | None = None,
        max_containers: int | None = None,
        buffer_containers: int | None = None,
        scaledown_window: int | None = None,
    ) -> FunctionAutoscalerSettings:
        """Change settings until the next deployment; see `Function.update_autoscaler`."""
        return await update(
            self._function,
            min_containers=min_containers,
            max_containers=max_containers,
            buffer_containers=buffer_containers,
            scaledown_window=scaledown_window,
        )


async def update(function: "Function[Any, Any, Any]", **given: int | None) -> FunctionAutoscalerSettings:
    """Change what is given and return all settings."""
    from tidemill import _options
    from tidemill._wire.autoscaling import UpdateAutoscaler

    _options.autoscaling(given)  # what is wrong by itself is refused here
    return await _ask(function, "update_autoscaler", UpdateAutoscaler, **given)


async def stats(function: "Function[Any, Any, Any]") -> FunctionCurrentStats:
    """Return what a function does now."""
    from tidemill import _client
    from tidemill._wire.autoscaling import GetPoolStats, PoolStats

    client = _client.current(function._client)
    handle = await function._find(client, refresh=True)
    found = await client.request("scheduler", "pool_stats", GetPoolStats(handle.pool), PoolStats)
    return FunctionCurrentStats(found.waiting, found.containers, found.running, found.idle)


async def _ask(
    function: "Function[Any, Any, Any]", verb: str, message: type[Any], **fields: Any
) -> FunctionAutoscalerSettings:
    from tidemill import _client
    from tidemill._wire.specs import Autoscaling

    client = _client.current(function._client)
    handle = await function._find(client, refresh=True)
    return _shown(await client.request("registry", verb, message(handle.pool, **fields), Autoscaling))


def _shown(scaling: "Autoscaling") -> FunctionAutoscalerSettings:
    return FunctionAutoscalerSettings(
        scaling.min_containers, scaling.max_containers, scaling.scaledown_window, scaling.buffer_containers
    )
