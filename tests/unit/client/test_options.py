from typing import Any

import declared
import pytest

from tidemill import App, Cron, Function, Image, Period, Retries, Secret, Volume, _runtime
from tidemill._resources import parse_gpus
from tidemill._wire.specs import FunctionSpec, Source
from tidemill.exception import DeprecationError, InvalidError, UnimplementedError

SOURCE = Source(("b" * 64,), "declared", "plain")


def spec(app: App | None = None, function: Any = declared.plain, **parameters: Any) -> FunctionSpec:
    app = app or App("a")
    return specified(app.function(**parameters)(function), SOURCE)


def specified(function: Function[..., Any, Any], source: Source) -> FunctionSpec:
    """Return what the server would be told about a declared function."""
    declaration, defaults = function.app._declared[function.name]
    return declaration.spec(source, defaults, declaration.image_of(defaults)._spec())


def test_defaults() -> None:
    made = spec()
    assert made.name == "plain"
    assert made.source == SOURCE
    assert (made.timeout, made.retries.max_retries, made.env) == (300.0, 0, {})
    assert (made.resources.cpu, made.resources.memory, made.resources.gpus) == (0.125, 128, ())
    assert made.image == Image.debian_slim()._spec()
    assert made.labels == {}
    assert made.options == {}


def test_startup_may_take_as_long_as_execution() -> None:
    assert spec(timeout=40).startup_timeout == 40.0
    assert spec(timeout=40, startup_timeout=50).startup_timeout == 50.0


@pytest.mark.parametrize("name", ["timeout", "startup_timeout"])
@pytest.mark.parametrize("wrong", [0, -1, 86_401, "300", True, float("nan"), float("inf")])
def test_timeouts_are_a_second_to_a_day(name: str, wrong: Any) -> None:
    with pytest.raises(InvalidError, match=name):
        spec(**{name: wrong})
    assert spec(timeout=1).timeout == 1.0
    assert spec(timeout=86_400).timeout == 86_400.0


def test_a_timeout_is_never_none() -> None:
    with pytest.raises(InvalidError):
        spec(timeout=None)


# --- resources


def test_requests_and_limits() -> None:
    made = spec(cpu=(1, 2.5), memory=(256, 512), ephemeral_disk=1024).resources
    assert (made.cpu, made.cpu_limit, made.memory, made.memory_limit) == (1.0, 2.5, 256, 512)
    assert made.ephemeral_disk == 1024
    assert spec(cpu=2).resources.cpu == 2.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"cpu": 0},
        {"cpu": -1},
        {"cpu": "1"},
        {"cpu": (2, 1)},
        {"cpu": (1,)},
        {"cpu": (1, 2, 3)},
        {"cpu": True},
        {"memory": 0},
        {"memory": 1.5},
        {"memory": (512, 256)},
        {"memory": "1GB"},
        {"ephemeral_disk": 0},
    ],
)
def test_resources_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidError, match=next(iter(wrong))):
        spec(**wrong)


@pytest.mark.parametrize(
    ("gpu", "gpus"),
    [
        (None, ()),
        ("h100", (("H100", 1),)),
        ("H100:2", (("H100", 2),)),
        ("H100!", (("H100!", 1),)),
        ("b200+:2", (("B200+", 2),)),
        ("A100-80GB:4", (("A100-80GB", 4),)),
        (["h100:2", "A100", "h100:2"], (("H100", 2), ("A100", 1))),
        ("any", (("any", 1),)),
        ("ANY:2", (("any", 2),)),
    ],
)
def test_gpus(gpu: Any, gpus: Any) -> None:
    assert parse_gpus(gpu) == gpus


@pytest.mark.parametrize("wrong", ["", "H100:0", "H100:65", "H100:x", "H100:2:3", [], [1], 1, "H 100"])
def test_gpus_that_cannot_be_are_refused(wrong: Any) -> None:
    with pytest.raises(InvalidError):
        spec(gpu=wrong)


# --- scaling


def test_scaling() -> None:
    made = spec(min_containers=1, max_containers=4, buffer_containers=2, scaledown_window=30).autoscaling
    assert (made.min_containers, made.max_containers, made.buffer_containers) == (1, 4, 2)
    assert made.scaledown_window == 30.0
    assert spec().autoscaling.scaledown_window == 60.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_containers": -1},
        {"max_containers": 0},
        {"buffer_containers": -1},
        {"min_containers": 1.5},
        {"min_containers": 3, "max_containers": 2},
        *({"scaledown_window": window} for window in (0, 1, -5, 3601, 2.5, True)),
    ],
)
def test_scaling_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidError, match=next(iter(wrong))):
        spec(**wrong)


# --- retries and generators


def test_retries() -> None:
    assert spec(retries=2).retries.max_retries == 2
    assert spec(retries=Retries(max_retries=2)).retries.backoff_coefficient == 2.0


@pytest.mark.parametrize("function", [declared.generator, declared.async_generator])
def test_generators_have_no_retries(function: Any) -> None:
    with pytest.raises(InvalidError, match="generator"):
        spec(function=function, retries=1)
    assert spec(function=function, retries=0).is_generator


@pytest.mark.parametrize(
    ("function", "is_generator", "is_async"),
    [
        (declared.plain, False, False),
        (declared.coroutine, False, True),
        (declared.generator, True, False),
        (declared.async_generator, True, True),
    ],
)
def test_what_a_function_is(function: Any, is_generator: bool, is_async: bool) -> None:
    made = spec(function=function)
    assert (made.is_generator, made.is_async) == (is_generator, is_async)


def test_a_function_that_returns_a_generator_says_so() -> None:
    assert spec(function=declared.returns_generator, is_generator=True).is_generator
    with pytest.raises(InvalidError):
        spec(function=declared.generator, is_generator=False)


# --- environment


def test_the_values_of_secrets_are_in_no_specification() -> None:
    app = App("a", secrets=[Secret.from_dict({"A": "hunter2"})])
    made = spec(app, secrets=[Secret.from_dict({"B": "hunter3"})], env={"C": "env", "D": None})
    assert made.env == {"C": "env"}
    assert "hunter" not in repr(made)


@pytest.mark.parametrize(
    "wrong", [{"env": {"A": 1}}, {"env": ["A"]}, {"secrets": [{"A": "1"}]}, {"secrets": "A"}]
)
def test_environments_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        spec(**wrong)


def test_volumes_are_declared_but_refused_when_published() -> None:
    with pytest.raises(UnimplementedError, match="/data"):
        spec(volumes={"/data": Volume.from_name("v")})
    with pytest.raises(UnimplementedError, match="/data"):
        spec(App("a", volumes={"/data": Volume.from_name("v")}))


def test_what_there_are_no_objects_for_is_refused_at_once() -> None:
    with pytest.raises(UnimplementedError, match="network_file_systems"):
        App("a").function(network_file_systems={"/n": object()})(declared.plain)
    with pytest.raises(UnimplementedError, match="proxy"):
        App("a").function(proxy=object())(declared.plain)


# --- places and what is kept


def test_places_become_labels() -> None:
    assert spec(region="us-east", cloud="aws").labels == {"region": ("us-east",), "cloud": ("aws",)}
    assert spec(region=["eu-west", "us-east"]).labels == {"region": ("eu-west", "us-east")}
    assert spec(cloud="auto").labels == {}


@pytest.mark.parametrize(
    "wrong", [{"region": ""}, {"region": []}, {"region": [1]}, {"cloud": ["aws", "gcp"]}, {"cloud": 1}]
)
def test_places_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        spec(**wrong)


def test_what_decides_nothing_is_kept() -> None:
    made = spec(
        nonpreemptible=True,
        enable_memory_snapshot=True,
        i6pn=True,
        routing_region="us-west",
        experimental_options={"x": 1},
    )
    assert made.options == {
        "nonpreemptible": True,
        "enable_memory_snapshot": True,
        "i6pn": True,
        "routing_region": "us-west",
        "experimental": {"x": 1},
    }


def test_switches() -> None:
    made = spec(
        block_network=True,
        restrict_modal_access=True,
        single_use_containers=True,
        _experimental_restrict_output=True,
    )
    assert made.block_network
    assert made.restrict_access
    assert made.single_use_containers
    assert made.restrict_output
    for name in (
        "block_network",
        "restrict_modal_access",
        "single_use_containers",
        "nonpreemptible",
        "serialized",
    ):
        with pytest.raises(InvalidError, match=name):
            spec(**{name: "yes"})


def test_max_inputs_is_the_older_name_of_single_use() -> None:
    with pytest.warns(DeprecationError, match="single_use_containers") as caught:
        assert spec(max_inputs=1).single_use_containers
    assert caught[0].filename == __file__
    with pytest.raises(InvalidError, match="max_inputs"):
        spec(max_inputs=2)


def test_a_container_is_not_told_about_deprecations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_runtime, "container", _runtime.Container("co-1", "ap-1", "app", "f", "main", {}))
    assert spec(max_inputs=1).single_use_containers


# --- schedules


def test_schedules() -> None:
    assert spec(schedule=Period(days=1)).schedule == {"kind": "period", "days": 1}
    assert spec(schedule=Cron("* * * * *")).schedule["kind"] == "cron"
    with pytest.raises(InvalidError, match="schedule"):
        spec(schedule="daily")


def test_a_scheduled_function_takes_no_arguments() -> None:
    with pytest.raises(InvalidError, match="'x' is required"):
        spec(function=declared.needs_argument, schedule=Period(days=1))


# --- images and serialized functions


def test_an_image_is_the_functions_own_or_the_apps() -> None:
    of_app, own = Image.debian_slim().pip_install("a"), Image.debian_slim().pip_install("b")
    assert spec(App("a", image=of_app)).image == of_app._spec()
    assert spec(App("a", image=of_app), image=own).image == own._spec()
    with pytest.raises(InvalidError, match="image"):
        spec(image="debian")


def test_a_serialized_function_needs_the_same_python(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App("a", image=Image.debian_slim("3.99"))
    made = app.function(serialized=True)(declared.plain)
    with pytest.raises(InvalidError, match=r"3\.99"):
        specified(made, Source(serialized="a" * 64))
    here = App("a").function(serialized=True)(declared.plain)
    assert specified(here, Source(serialized="a" * 64)).options["python"] == Image.debian_slim()._python
