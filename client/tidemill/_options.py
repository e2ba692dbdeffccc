"""The parameters of `@app.function(...)`: checked, and turned into a `FunctionSpec`."""

import dataclasses
import inspect
import warnings
from collections.abc import Mapping
from typing import Any

from tidemill import _declarable, _given, _names, _resources, _runtime, secret, volume
from tidemill import image as images
from tidemill._dataclass import dataclass
from tidemill._partial import PartialFunction
from tidemill._wire.specs import (
    Autoscaling,
    ClassSpec,
    Concurrency,
    FunctionSpec,
    ImageSpec,
    RetryPolicy,
    Source,
)
from tidemill._wire.variants import Changes
from tidemill.exception import DeprecationError, InvalidError, UnimplementedError
from tidemill.image import Image
from tidemill.secret import Secret
from tidemill.volume import Volume

MIN_WINDOW, MAX_WINDOW = 2, 3_600  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What an app gives to all its functions."""

    image: Image | None = None
    secrets: tuple[Secret, ...] = ()
    volumes: Mapping[str, Volume] = dataclasses.field(default_factory=dict)
    include_source: bool = True


@dataclass(frozen=True, slots=True)
class Declaration:
    """One declared function: what the platform is told, apart from its code, and what that needs.

    `template` lacks its source, and its secrets: those are stored first and then named by their ids.
    """

    template: FunctionSpec
    image: Image | None
    secrets: tuple[Secret, ...]
    env: Mapping[str, str]
    volumes: Mapping[str, Volume]
    serialized: bool
    include_source: bool

    def spec(self, source: Source, defaults: Defaults, image_spec: ImageSpec) -> FunctionSpec:
        """Return the specification, with the defaults of the app that runs it, without its secrets.

        `image_spec` is what was read of its image's recipe.

        Raises:
            InvalidError: a pickled function does not fit its image.
            UnimplementedError: it needs what this version does not have.
        """
        name = self.template.name
        volume.refuse(name, {**defaults.volumes, **self.volumes})
        image = self.image_of(defaults)
        if source.serialized:
            _declarable.check_python(name, image)
        options = {**self.template.options, **({"python": image._python} if source.serialized else {})}
        return dataclasses.replace(
            self.template, source=source, image=image_spec, env=dict(self.env), options=options
        )

    def image_of(self, defaults: Defaults) -> Image:
        """Return the image it runs in."""
        return self.image or defaults.image or Image.debian_slim()


def declare(
    partial: PartialFunction[..., Any, Any], given: Mapping[str, Any], *, include_source: bool
) -> Declaration:
    """Return the declaration of a function from the parameters of `App.function`.

    Raises:
        InvalidError: a parameter cannot be what it is, or they contradict each other.
        UnimplementedError: one asks for what this version does not have.
    """
    function = partial.raw
    name = _declarable.name_of(function, given["name"])
    is_generator = _declarable.is_generator(function, given["is_generator"])
    declaration = _declare(name, given, include_source=include_source, yields=is_generator)
    _check_together(name, partial, given)
    if partial.web and given["schedule"] is not None:
        raise InvalidError(
            f"{name!r} is a web function: a schedule cannot call it",
            hint="put the schedule on a function of its own",
        )
    template = dataclasses.replace(
        declaration.template,
        is_generator=is_generator,
        is_async=inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function),
        schedule=_declarable.schedule_of(function, name, given["schedule"]),
        concurrency=partial.concurrency or Concurrency(),
        batching=partial.batching,
        **_for_web(partial),
    )
    return dataclasses.replace(declaration, template=template)


def _for_web(partial: PartialFunction[..., Any, Any]) -> dict[str, Any]:
    """Return what differs where requests are answered: each is answered once."""
    return {} if partial.web is None else {"web": partial.web, "retries": RetryPolicy()}


def declare_class(
    partial: PartialFunction[..., Any, Any],
    methods: Mapping[str, PartialFunction[..., Any, Any]],
    cls: ClassSpec,
    given: Mapping[str, Any],
    *,
    include_source: bool,
) -> Declaration:
    """Return the declaration of a class from the parameters of `App.cls`.

    Raises:
        InvalidError: a parameter cannot be what it is, or they contradict each other.
        UnimplementedError: one asks for what this version does not have.
    """
    name = partial.raw.__qualname__
    yields = any(method.yields for method in methods.values())
    declaration = _declare(name, given, include_source=include_source, yields=yields)
    first = next(iter(methods.values()), partial)  # where it is batched it is the only one
    partial = dataclasses.replace(partial, batching=first.batching)
    _check_together(name, partial, given)
    template = dataclasses.replace(
        declaration.template,
        is_async=bool(methods) and all(method.is_async for method in methods.values()),
        concurrency=partial.concurrency or Concurrency(),
        batching=partial.batching,
        cls=cls,
    )
    return dataclasses.replace(declaration, template=template)


def _check_together(name: str, partial: PartialFunction[..., Any, Any], given: Mapping[str, Any]) -> None:
    if partial.batching is not None and partial.concurrency is not None:
        raise InvalidError(
            f"{name!r} is batched: it cannot also be concurrent", hint="leave @concurrent() out"
        )
    if partial.concurrency and partial.concurrency.max_inputs > 1 and given["single_use_containers"]:
        raise InvalidError(f"{name!r}: with single_use_containers a container runs one input, not several")


def _declare(name: str, given: Mapping[str, Any], *, include_source: bool, yields: bool) -> Declaration:
    _refuse_absent(given)
    policy = _retries(given["retries"])
    if yields and policy.max_retries:
        raise InvalidError(f"{name!r} is a generator: it cannot have retries, part of it is read already")
    timeout = _given.seconds("timeout", given["timeout"])
    startup = given["startup_timeout"]
    template = FunctionSpec(
        name=name,
        source=Source(),
        resources=_resources.resources(given),
        autoscaling=autoscaling(given),
        retries=policy,
        timeout=timeout,
        startup_timeout=timeout if startup is None else _given.seconds("startup_timeout", startup),
        restrict_output=_given.flag(given, "_experimental_restrict_output"),
        block_network=_given.flag(given, "block_network"),
        restrict_access=_given.flag(given, "restrict_modal_access"),
        single_use_containers=_single_use(given),
        labels=_resources.labels(given),
        options=_options(given),
    )
    included = given["include_source"]
    if not isinstance(included, bool | None):
        raise InvalidError(f"include_source has to be True, False or None, not {included!r}")
    return Declaration(
        template,
        images.check(given["image"]),
        secret.check(given["secrets"] or ()),
        _names.check_variables("env", given["env"] or {}),
        volume.check(given["volumes"]),
        _given.flag(given, "serialized"),
        include_source if included is None else included,
    )


def changes(given: Mapping[str, Any]) -> tuple[Changes, tuple[Secret, ...]]:
    """Return what `with_options` asks for: the changes, and secrets that are still to be stored.

    Raises:
        InvalidError: a parameter cannot be what it is.
        UnimplementedError: volumes are not in this version.
    """
    volume.refuse("with_options", volume.check(given["volumes"]))
    asked = {name for name in given if given[name]}
    resources = _resources.resources({**given, "ephemeral_disk": None})
    scaling = autoscaling({**given, "min_containers": None})
    routing = _resources.choices("routing_region", given["routing_region"])
    return Changes(
        cpu=(resources.cpu, resources.cpu_limit) if "cpu" in asked else None,
        memory=(resources.memory, resources.memory_limit) if "memory" in asked else None,
        gpus=resources.gpus if "gpu" in asked else None,
        env=_names.check_variables("env", given["env"]) if given["env"] else None,
        retries=_retries(given["retries"]) if given["retries"] is not None else None,
        timeout=None if given["timeout"] is None else _given.seconds("timeout", given["timeout"]),
        max_containers=scaling.max_containers,
        buffer_containers=scaling.buffer_containers if given["buffer_containers"] is not None else None,
        scaledown_window=scaling.scaledown_window if given["scaledown_window"] is not None else None,
        labels=_resources.labels(given) or None,
        options={"routing_region": routing[0]} if routing else None,
    ), secret.check(given["secrets"] or ())


# --- scaling


def _retries(given: Any) -> RetryPolicy:
    if given is None:
        return RetryPolicy()
    from tidemill import retries

    return retries.read(given)


def autoscaling(given: Mapping[str, Any]) -> Autoscaling:
    """Return how many containers are asked for. `InvalidError`."""
    low = _given.count(given, "min_containers", 0)
    high = _given.count(given, "max_containers", 1)
    spare = _given.count(given, "buffer_containers", 0)
    if low is not None and high is not None and low > high:
        raise InvalidError(f"min_containers ({low}) is above max_containers ({high})")
    window = given["scaledown_window"]
    if window is not None:
        _given.check_number("scaledown_window", window, (int,))
        if not MIN_WINDOW <= window <= MAX_WINDOW:
            raise InvalidError(
                f"scaledown_window has to be {MIN_WINDOW} to {MAX_WINDOW} seconds, not {window}"
            )
    default = Autoscaling()
    return Autoscaling(
        low or 0, high, spare or 0, default.scaledown_window if window is None else float(window)
    )


def _single_use(given: Mapping[str, Any]) -> bool:
    max_inputs = given["max_inputs"]
    if max_inputs is None:
        return _given.flag(given, "single_use_containers")
    if max_inputs != 1 or isinstance(max_inputs, bool):
        raise InvalidError(
            f"max_inputs can only be 1, not {max_inputs!r}", hint="use single_use_containers=True"
        )
    if _runtime.is_local():
        warnings.warn("max_inputs=1 is now called single_use_containers=True", DeprecationError, stacklevel=6)
    return True


# --- what is only kept


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept with the function and decides nothing in this version."""
    kept: dict[str, Any] = {
        name: True for name in ("nonpreemptible", "enable_memory_snapshot") if _given.flag(given, name)
    }
    if given["routing_region"] is not None:
        kept["routing_region"] = _resources.choices("routing_region", given["routing_region"])[0]
    if not isinstance(given["i6pn"], bool | None):
        raise InvalidError(f"i6pn has to be True, False or None, not {given['i6pn']!r}")
    if given["i6pn"]:
        kept["i6pn"] = True
    experimental = given["experimental_options"] or {}
    if not isinstance(experimental, Mapping) or not all(isinstance(name, str) for name in experimental):
        raise InvalidError(f"experimental_options has to be a dictionary, not {experimental!r}")
    if experimental:
        kept["experimental"] = {name: _plain(name, value) for name, value in experimental.items()}
    return kept


def _plain(name: str, value: Any) -> Any:
    if not isinstance(value, bool | int | float | str | None):
        raise InvalidError(f"experimental_options: {name} has to be a plain value, not {value!r}")
    return value


def _refuse_absent(given: Mapping[str, Any]) -> None:
    if given["network_file_systems"]:
        raise UnimplementedError("network_file_systems: they are not in this version of Tidemill")
    if given["proxy"] is not None:
        raise UnimplementedError("proxy: proxies are not in this version of Tidemill")
