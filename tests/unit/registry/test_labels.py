"""What URLs begin with."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill._wire.specs import ClassSpec, FunctionSpec, MethodSpec, Parameter, Source, Web
from tidemill.exception import InvalidError
from tidemill_registry import decisions
from tidemill_registry.decisions import AppState
from tidemill_registry.labels import MAX_LABEL, labels
from tidemill_registry.routes import Urls, of_pool

SOURCE = Source(module="m", qualname="f")
SHOP = FunctionSpec(
    "Shop",
    SOURCE,
    cls=ClassSpec(
        (
            MethodSpec("sell"),
            MethodSpec("look", web=Web("endpoint", requires_proxy_auth=True)),
            MethodSpec("the_page", is_async=True, web=Web("asgi")),
            MethodSpec("till", web=Web("endpoint", "pay-here")),
        ),
        (Parameter("size", "str"),),
    ),
)


def label(workspace: str, suffix: str, app: str, function: FunctionSpec, *, lasting: bool) -> str:
    return labels(workspace, suffix, app, function, lasting=lasting).get("", "")


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
    assert [route.label for item in made.served for route in of_pool(item.pool)] == ["team--app-f"]
    told = Urls("https://{label}.example").all_told(made.handles)
    assert told["f"].web_url == "https://team--app-f.example"
    assert told["g"].web_url is None
    twice = (spec("f", "x"), spec("g", "x"))
    with pytest.raises(InvalidError, match="have the same URL label"):
        decisions.publish(app, {}, twice, shards=4, first_shard=0)


def test_each_web_method_of_a_class_has_a_label_and_a_route_of_its_own() -> None:
    app = AppState("ap-1", "app", "team", "main", "deployed", 0)
    made = decisions.publish(app, {}, (SHOP,), shards=4, first_shard=0)
    (served,) = made.served
    look, page, till = of_pool(served.pool)
    assert (look.label, look.method, look.function) == ("team--app-shop-look", "look", "Shop.look")
    assert (page.label, page.kind, page.method) == ("team--app-shop-the-page", "asgi", "the_page")
    assert (till.label, till.method) == ("team--pay-here", "till")
    assert [route.requires_proxy_auth for route in (look, page, till)] == [True, False, False]
    assert {route.pool for route in (look, page, till)} == {served.pool.id}
    assert look.parameters == (Parameter("size", "str"),)
    assert served.pool.has_web
    told = Urls("https://{label}.example").all_told(made.handles)["Shop"]
    assert told.of_method("look").web_url == "https://team--app-shop-look.example"
    assert told.of_method("look").web_label == "team--app-shop-look"
    assert (told.of_method("sell").web_url, told.web_url) == (None, None)
    same = FunctionSpec("g", SOURCE, web=Web("asgi", "pay-here"))
    with pytest.raises(InvalidError, match=r"'Shop.till' and 'g' have the same URL label"):
        decisions.publish(app, {}, (SHOP, same), shards=4, first_shard=0)
