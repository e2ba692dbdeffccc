"""What URLs begin with."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill._wire.specs import FunctionSpec, Source, Web
from tidemill.exception import InvalidError
from tidemill_registry import decisions
from tidemill_registry.decisions import AppState
from tidemill_registry.labels import MAX_LABEL, label
from tidemill_registry.routes import Urls, of_pool

SOURCE = Source(module="m", qualname="f")


def spec(name: str, given: str = "") -> FunctionSpec:
    return FunctionSpec(name, SOURCE, web=Web("asgi", given))


@pytest.mark.parametrize(
    ("suffix", "app", "function", "lasting", "expected"),
    [
        ("", "My_App", "my_fun", True, "team--my-app-my-fun"),
        ("dev", "app", "f", True, "team-dev--app-f"),
        ("", "app", "Model.run", False, "team--app-model-run-dev"),
        ("", "", "f", False, "team--f-dev"),
    ],
)
def test_a_label_names_workspace_app_and_function(
    suffix: str, app: str, function: str, lasting: bool, expected: str
) -> None:
    assert label("team", suffix, app, spec(function), lasting=lasting) == expected


def test_a_label_can_be_chosen_within_the_workspace() -> None:
    assert label("team", "", "app", spec("f", "mine"), lasting=True) == "team--mine"


def test_functions_that_are_not_for_the_web_have_none() -> None:
    assert label("team", "", "app", FunctionSpec("f", SOURCE), lasting=True) == ""


@given(app=st.text(max_size=64), function=st.text(min_size=1, max_size=200), lasting=st.booleans())
def test_every_label_is_one_of_dns(app: str, function: str, lasting: bool) -> None:
    made = label("team", "", app, spec(function), lasting=lasting)
    assert len(made) <= MAX_LABEL
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]*", made)
    assert made.endswith("-dev") or lasting


def test_long_labels_stay_different() -> None:
    one, other = (label("team", "", "a" * 60, spec("f" * 60 + end), lasting=False) for end in "xy")
    assert one != other
    assert len(one) == MAX_LABEL


def test_a_version_leads_its_labels_to_its_pools_and_refuses_the_same_twice() -> None:
    app = AppState("ap-1", "app", "team", "main", "deployed", 0)
    made = decisions.publish(app, {}, (spec("f"), FunctionSpec("g", SOURCE)), shards=4, first_shard=0)
    assert made.handles["f"].web_label == "team--app-f"
    assert made.handles["g"].web_label == ""
    routes = [of_pool(item.pool) for item in made.served]
    assert [route.label for route in routes if route] == ["team--app-f"]
    told = Urls("https://{label}.example").all_told(made.handles)
    assert told["f"].web_url == "https://team--app-f.example"
    assert told["g"].web_url is None
    twice = (spec("f", "x"), spec("g", "x"))
    with pytest.raises(InvalidError, match="have the same URL label"):
        decisions.publish(app, {}, twice, shards=4, first_shard=0)
