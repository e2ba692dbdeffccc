"""The parameters of `@app.function(...)`: checked, and turned into a `FunctionSpec`."""

import dataclasses
import inspect
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tidemill import _names, _runtime, secret, volume
from tidemill import image as images
from tidemill._dataclass import dataclass
from tidemill._partial import PartialFunction
from tidemill._wire.specs import (
    Autoscaling,
    ClassSpec,
    Concurrency,
    FunctionSpec,
    ImageSpec,
    Resources,
    RetryPolicy,
    Source,
)
from tidemill._wire.variants import Changes
from tidemill.exception import DeprecationError, InvalidError, UnimplementedError
from tidemill.image import Image
from tidemill.secret import Secret
from tidemill.volume import Volume

MIN_TIMEOUT, MAX_TIMEOUT = 1, 86_400  # seconds
MIN_WINDOW, MAX_WINDOW = 2, 3_600  # seconds
MAX_GPUS = 64  # of one container

DEFAULT_CPU = 0.125  # cores
DEFAULT_MEMORY = 128  # MiB

_GPU = re.compile(r"(?P<type>[A-Za-z0-9_-]{1,32}[!+]?)(?::(?P<count>\d{1,3}))?")
_LABEL = re.compile(r"[A-Za-z0-9_./*-]{1,63}")


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
            _check_python(name, image)
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
    name = _name(function, given["name"])
    is_generator = _is_generator(function, given["is_generator"])
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
        schedule=_schedule(function, name, given["schedule"]),
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
    timeout = _seconds("timeout", given["timeout"])
    startup = given["startup_timeout"]
    template = FunctionSpec(
        name=name,
        source=Source(),
        resources=_resources(given),
        autoscaling=autoscaling(given),
        retries=policy,
        timeout=timeout,
        startup_timeout=timeout if startup is None else _seconds("startup_timeout", startup),
        restrict_output=_flag(given, "_experimental_restrict_output"),
        block_network=_flag(given, "block_network"),
        restrict_access=_flag(given, "restrict_modal_access"),
        single_use_containers=_single_use(given),
        labels=_labels(given),
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
        _flag(given, "serialized"),
        include_source if included is None else included,
    )


def changes(given: Mapping[str, Any]) -> tuple[Changes, tuple[Secret, ...]]:
    """Return what `with_options` asks for: the changes, and secrets that are still to be stored.

    Raises:
        InvalidError: a parameter cannot be what it is.
        UnimplementedError: volumes are not in this version.
    """
    volume.refuse("with_options", volume.check(given["volumes"]))
    resources, asked = _resources({**given, "ephemeral_disk": None}), {name for name in given if given[name]}
    scaling = autoscaling({**given, "min_containers": None})
    routing = given["routing_region"]
    return Changes(
        cpu=(resources.cpu, resources.cpu_limit) if "cpu" in asked else None,
        memory=(resources.memory, resources.memory_limit) if "memory" in asked else None,
        gpus=resources.gpus if "gpu" in asked else None,
        env=_names.check_variables("env", given["env"]) if given["env"] else None,
        retries=_retries(given["retries"]) if given["retries"] is not None else None,
        timeout=None if given["timeout"] is None else _seconds("timeout", given["timeout"]),
        max_containers=scaling.max_containers,
        buffer_containers=scaling.buffer_containers if given["buffer_containers"] is not None else None,
        scaledown_window=scaling.scaledown_window if given["scaledown_window"] is not None else None,
        labels=_labels(given) or None,
        options=None if routing is None else {"routing_region": _choices("routing_region", routing)[0]},
    ), secret.check(given["secrets"] or ())


# --- the function itself


def check_function(function: Any, *, serialized: bool, name: str | None) -> None:
    """Refuse what `@app.function()` cannot be put on, with the next step."""
    if inspect.isclass(function):
        raise InvalidError(
            f"@app.function() is for functions, {function.__name__!r} is a class",
            hint="put @app.cls() on it",
        )
    if not callable(function) or not hasattr(function, "__qualname__"):
        raise InvalidError(f"@app.function() is for functions defined with def, not {function!r}")
    outer, _, inner = function.__qualname__.rpartition("<locals>.")
    if "." in inner:
        raise InvalidError(
            f"@app.function() cannot be used on the method {function.__qualname__!r}",
            hint="put @app.cls() on the class and @method() on the method",
        )
    if serialized:
        if inner == "<lambda>" and not name:
            raise InvalidError("a lambda has no name", hint="give @app.function() a name=")
        return
    if outer or inner == "<lambda>":
        raise InvalidError(
            f"{function.__qualname__!r} is not at the top of its module, so a container cannot import it",
            hint="move it there, or give @app.function() serialized=True",
        )


def _name(function: Callable[..., Any], name: Any) -> str:
    return function.__qualname__ if name is None else _names.check_object("a function", name)


def _is_generator(function: Callable[..., Any], given: Any) -> bool:
    found = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    if given is None:
        return found
    if not isinstance(given, bool):
        raise InvalidError(f"is_generator has to be True, False or None, not {given!r}")
    if found and not given:
        raise InvalidError(f"{function.__qualname__!r} has a yield: is_generator cannot be False")
    return given


def _retries(given: Any) -> RetryPolicy:
    if given is None:
        return RetryPolicy()
    from tidemill import retries

    return retries.read(given)


def _schedule(function: Callable[..., Any], name: str, schedule: Any) -> dict[str, Any] | None:
    if schedule is None:
        return None
    from tidemill.schedule import Cron, Period

    if not isinstance(schedule, Cron | Period):
        raise InvalidError(f"schedule has to be a Cron or a Period, not {schedule!r}")
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.default is inspect.Parameter.empty and parameter.kind not in kinds:
            raise InvalidError(
                f"{name!r} has a schedule, which passes no arguments, but {parameter.name!r} is required",
                hint="give the parameter a default",
            )
    return schedule.record()


# --- resources


def _resources(given: Mapping[str, Any]) -> Resources:
    cpu, cpu_limit = _pair("cpu", given["cpu"], (int, float), DEFAULT_CPU)
    memory, memory_limit = _pair("memory", given["memory"], (int,), DEFAULT_MEMORY)
    disk = given["ephemeral_disk"]
    if disk is not None:
        _check_number("ephemeral_disk", disk, (int,))
    return Resources(
        cpu=float(cpu),
        cpu_limit=None if cpu_limit is None else float(cpu_limit),
        memory=int(memory),
        memory_limit=None if memory_limit is None else int(memory_limit),
        ephemeral_disk=disk,
        gpus=parse_gpus(given["gpu"]),
    )


Kinds = tuple[type[int] | type[float], ...]


def _pair(name: str, value: Any, kinds: Kinds, default: float) -> tuple[int | float, int | float | None]:
    """Return (request, limit) of a value that is a number or such a pair."""
    if value is None:
        return default, None
    if not isinstance(value, tuple | list):
        _check_number(name, value, kinds)
        return value, None
    if len(value) != 2:
        raise InvalidError(f"{name} has to be a number or (request, limit), not {value!r}")
    request, limit = value
    _check_number(name, request, kinds)
    _check_number(name, limit, kinds)
    if limit < request:
        raise InvalidError(f"the limit of {name} ({limit}) is below its request ({request})")
    return request, limit


def _check_number(name: str, value: Any, kinds: Kinds) -> None:
    if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < float("inf"):
        kind = "number" if float in kinds else "whole number"
        raise InvalidError(f"{name} has to be a {kind} above 0, not {value!r}")


def parse_gpus(gpu: Any) -> tuple[tuple[str, int], ...]:
    """Return GPUs as (type, count), in order of preference: `"H100:2"`, `["h100", "a100"]`, `"any"`."""
    if gpu is None:
        return ()
    wanted = [gpu] if isinstance(gpu, str) else gpu
    if not isinstance(wanted, list | tuple) or not wanted:
        raise InvalidError(f"gpu has to be a string or a list of strings, not {gpu!r}")
    return tuple(dict.fromkeys(_parse_gpu(item) for item in wanted))


def _parse_gpu(item: Any) -> tuple[str, int]:
    match = _GPU.fullmatch(item) if isinstance(item, str) else None
    count = int(match["count"] or 1) if match else 0
    if match is None or not 1 <= count <= MAX_GPUS:
        raise InvalidError(f"not a GPU: {item!r}", hint="for example 'A100', 'H100:2' or 'any'")
    kind = match["type"].upper()
    return ("any" if kind == "ANY" else kind), count


# --- scaling and time


def autoscaling(given: Mapping[str, Any]) -> Autoscaling:
    """Return how many containers are asked for. `InvalidError`."""
    low = _count(given, "min_containers", 0)
    high = _count(given, "max_containers", 1)
    spare = _count(given, "buffer_containers", 0)
    if low is not None and high is not None and low > high:
        raise InvalidError(f"min_containers ({low}) is above max_containers ({high})")
    window = given["scaledown_window"]
    if window is not None:
        _check_number("scaledown_window", window, (int,))
        if not MIN_WINDOW <= window <= MAX_WINDOW:
            raise InvalidError(
                f"scaledown_window has to be {MIN_WINDOW} to {MAX_WINDOW} seconds, not {window}"
            )
    default = Autoscaling()
    return Autoscaling(
        low or 0, high, spare or 0, default.scaledown_window if window is None else float(window)
    )


def _count(given: Mapping[str, Any], name: str, lowest: int) -> int | None:
    value = given[name]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise InvalidError(f"{name} has to be a whole number, {lowest} or more, not {value!r}")
    return value


def _seconds(name: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not MIN_TIMEOUT <= value <= MAX_TIMEOUT:
        raise InvalidError(
            f"{name} has to be {MIN_TIMEOUT} to {MAX_TIMEOUT:,} seconds (a day), not {value!r}"
        )
    return float(value)


def _single_use(given: Mapping[str, Any]) -> bool:
    max_inputs = given["max_inputs"]
    if max_inputs is None:
        return _flag(given, "single_use_containers")
    if max_inputs != 1 or isinstance(max_inputs, bool):
        raise InvalidError(
            f"max_inputs can only be 1, not {max_inputs!r}", hint="use single_use_containers=True"
        )
    if _runtime.is_local():
        warnings.warn("max_inputs=1 is now called single_use_containers=True", DeprecationError, stacklevel=6)
    return True


def _flag(given: Mapping[str, Any], name: str) -> bool:
    value = given[name]
    if not isinstance(value, bool):
        raise InvalidError(f"{name} has to be True or False, not {value!r}")
    return value


# --- where it may run, and what is only kept


def _labels(given: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the labels that a worker must carry: `region` and `cloud`, where they say anything."""
    regions = _choices("region", given["region"])
    clouds = _choices("cloud", given["cloud"])
    if len(clouds) > 1:
        raise InvalidError(f"cloud has to be one string, not {given['cloud']!r}")
    labels = {"region": regions, "cloud": () if clouds == ("auto",) else clouds}
    return {name: values for name, values in labels.items() if values}


def _choices(name: str, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    values = (value,) if isinstance(value, str) else value
    if not isinstance(values, Sequence) or not values:
        raise InvalidError(f"{name} has to be a string or a list of strings, not {value!r}")
    for item in values:
        if not isinstance(item, str) or not _LABEL.fullmatch(item):
            raise InvalidError(f"not a {name}: {item!r}", hint="for example 'us-east'")
    return tuple(values)


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept with the function and decides nothing in this version."""
    kept: dict[str, Any] = {
        name: True for name in ("nonpreemptible", "enable_memory_snapshot") if _flag(given, name)
    }
    if given["routing_region"] is not None:
        kept["routing_region"] = _choices("routing_region", given["routing_region"])[0]
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


def _check_python(name: str, image: Image) -> None:
    import sys

    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if image._python not in ("", here):  # of another base nobody here knows
        raise InvalidError(
            f"function {name!r} is serialized by Python {here}, its image has {image._python}",
            hint=f"use Image.debian_slim(python_version={here!r}), or a function at the top of a module",
        )
