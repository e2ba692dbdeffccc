import inspect
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import declared
import pytest

import tidemill
from tidemill import App, Image, Secret, Volume, _entrypoint, _plan, _runtime
from tidemill.exception import ExecutionError, InvalidError, UnimplementedError
from tidemill.functions import Function

# --- the app


def test_an_app_without_a_name_has_a_description() -> None:
    app = App()
    assert app.name is None
    assert app.app_id is None
    assert app.description
    assert App("named").description == "named"


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "a/b", 3])
def test_names_that_cannot_be_are_refused(name: Any) -> None:
    with pytest.raises(InvalidError, match="name"):
        App(name)


@pytest.mark.parametrize(
    "wrong",
    [
        {"image": "debian"},
        {"secrets": [{"A": "1"}]},
        {"secrets": Secret.from_dict({})},
        {"volumes": {"/data": "v"}},
        {"volumes": {"data": Volume.from_name("v")}},
        {"include_source": "yes"},
        {"tags": {"a": 1}},
        {"tags": {"a b": "c"}},
        {"tags": {f"t{n}": "x" for n in range(11)}},
        {"tags": ["a"]},
    ],
)
def test_parameters_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        App("a", **wrong)


def test_an_app_travels_as_its_name() -> None:
    app = App("a")
    app.function()(declared.plain)
    copy = pickle.loads(pickle.dumps(app))
    assert copy.name == "a"


def test_what_an_app_cannot_do_yet_is_said() -> None:
    for name in ("server", "sandboxes"):
        with pytest.raises(AttributeError, match=f"App.{name} is not in this version"):
            getattr(App("a"), name)
    with pytest.raises(AttributeError, match=r"App\.sandboxes is not in this version"):
        App.sandboxes


PARAMETERS = """
    image schedule env secrets gpu serialized network_file_systems volumes cpu memory ephemeral_disk
    min_containers max_containers buffer_containers scaledown_window proxy retries timeout startup_timeout
    name is_generator cloud region routing_region nonpreemptible enable_memory_snapshot block_network
    restrict_modal_access single_use_containers i6pn include_source experimental_options
    _experimental_restrict_output max_inputs
"""


def test_the_signature_is_modals() -> None:
    parameters = inspect.signature(App.function).parameters
    names = [name for name in parameters if name not in ("self", "_warn_parentheses_missing")]
    assert names == PARAMETERS.split()
    assert parameters["timeout"].default == 300
    assert parameters["network_file_systems"].default == {}
    assert parameters["volumes"].default == {}


# --- functions


def test_a_declared_function_is_registered_under_its_name() -> None:
    app = App("a")
    plain = app.function()(declared.plain)
    other = app.function(name="other")(declared.generator)
    assert app.registered_functions == {"plain": plain, "other": other}
    assert isinstance(plain, Function)
    assert plain.local(3) == 3
    assert plain.app is app
    assert other.is_generator
    assert app.registered_classes == {}
    assert app.registered_web_endpoints == []


def test_a_function_is_not_called_outside_of_a_running_app() -> None:
    with pytest.raises(ExecutionError, match="outside of a running app"):
        App("a").function()(declared.plain).remote(1)


def test_missing_parentheses_are_named() -> None:
    app = App("a")
    with pytest.raises(InvalidError, match="parentheses") as caught:
        app.function(declared.plain)
    assert "@app.function()" in caught.value.hint
    with pytest.raises(InvalidError, match="parentheses"):
        app.local_entrypoint(declared.plain)


def test_methods_are_refused_with_a_hint() -> None:
    with pytest.raises(InvalidError, match=r"method 'Holder\.method'"):
        App("a").function()(declared.Holder.method)

    class Local:
        def method(self) -> None:
            pass

    with pytest.raises(InvalidError, match="method"):
        App("a").function(serialized=True)(Local.method)


def test_classes_are_refused() -> None:
    with pytest.raises(InvalidError, match="class"):
        App("a").function()(declared.Holder)


@pytest.mark.parametrize("wrong", [3, "f", None])
def test_what_is_no_function_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidError):
        App("a").function()(wrong)


def test_a_function_inside_a_function_has_to_be_serialized() -> None:
    def inner() -> None:
        pass

    with pytest.raises(InvalidError, match="top of its module") as caught:
        App("a").function()(inner)
    assert "serialized=True" in caught.value.hint
    assert App("a").function(serialized=True)(inner).local() is None


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(InvalidError):
        App("a").function()(lambda: 1)
    with pytest.raises(InvalidError, match="name"):
        App("a").function(serialized=True)(lambda: 1)
    assert App("a").function(serialized=True, name="one")(lambda: 1).local() == 1


def test_a_second_decoration_is_refused() -> None:
    app = App("a")
    with pytest.raises(InvalidError, match="already"):
        app.function()(app.function()(declared.plain))


def test_a_second_function_of_one_name_replaces_the_first_with_a_warning() -> None:
    app = App("a")
    app.function()(declared.plain)
    with pytest.warns(UserWarning, match="'plain'") as caught:
        second = app.function(name="plain")(declared.generator)
    assert caught[0].filename == __file__
    assert app.registered_functions == {"plain": second}


def test_source_is_included_as_the_app_says_unless_the_function_does() -> None:
    def included(app: App, **parameters: Any) -> bool:
        app.function(**parameters)(declared.plain)
        return app._declared["plain"][0].include_source

    assert included(App("a"))
    assert not included(App("a", include_source=False))
    assert included(App("a", include_source=False), include_source=True)
    assert not included(App("a"), include_source=False)
    with pytest.raises(InvalidError, match="include_source"):
        included(App("a"), include_source="no")


# --- entrypoints


def test_entrypoints_are_registered_and_stay_callable() -> None:
    app = App("a")
    entrypoint = app.local_entrypoint()(declared.plain)
    named = app.local_entrypoint(name="other")(declared.plain)
    assert entrypoint(4) == 4
    assert app.registered_entrypoints == {"plain": entrypoint, "other": named}
    with pytest.raises(InvalidError, match="'plain'"):
        app.local_entrypoint()(declared.plain)


# --- including


def test_an_included_app_brings_functions_and_tags() -> None:
    app_a, app_b = App("a", tags={"x": "a", "y": "a"}), App("b", tags={"x": "b", "z": "b"})
    foo = app_a.function()(declared.plain)
    bar = app_b.function()(declared.generator)
    assert app_a.include(app_b) is app_a
    assert app_a.registered_functions == {"plain": foo, "generator": bar}
    assert app_a.get_tags() == {"x": "a", "y": "a", "z": "b"}
    assert bar.app is app_b


def test_an_included_app_keeps_its_own_defaults() -> None:
    own, other = Image.debian_slim().pip_install("own"), Image.debian_slim().pip_install("other")
    app, included = App("a", image=own), App("b", image=other)
    app.function()(declared.plain)
    included.function()(declared.generator)
    plan = _plan.pack(app.include(included), None, "main")
    assert {spec.name: spec.image for spec in plan.specs} == {
        "plain": own._spec(),
        "generator": other._spec(),
    }


def test_tags_need_not_be_inherited() -> None:
    app = App("a").include(App("b", tags={"x": "1"}), inherit_tags=False)
    assert app.get_tags() == {}


def test_including_replaces_a_function_of_the_same_name_with_a_warning() -> None:
    app_a, app_b = App("a"), App("b")
    app_a.function()(declared.plain)
    theirs = app_b.function(name="plain")(declared.generator)
    with pytest.warns(UserWarning, match="'plain'"):
        app_a.include(app_b)
    assert app_a.registered_functions["plain"] is theirs


def test_including_twice_changes_nothing() -> None:
    app_a, app_b = App("a"), App("b")
    app_b.function()(declared.plain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        app_a.include(app_b).include(app_b)


def test_only_apps_are_included() -> None:
    with pytest.raises(InvalidError):
        App("a").include("b")


# --- tags and links


def test_tags_are_replaced_as_a_whole() -> None:
    app = App("a", tags={"x": "1"})
    app.set_tags({"y": "2"})
    assert app.get_tags() == {"y": "2"}
    with pytest.raises(InvalidError):
        app.set_tags({"a b": "c"})


async def test_tags_are_awaitable_too() -> None:
    app = App("a")
    await app.set_tags.aio({"y": "2"})
    assert await app.get_tags.aio() == {"y": "2"}


def test_an_app_that_does_not_run_has_no_page() -> None:
    with pytest.raises(InvalidError, match="neither runs nor is deployed"):
        App("a").get_dashboard_url()


# --- what cannot run


@pytest.fixture
def app() -> App:
    app = App("a")
    app.function()(declared.plain)
    return app


def refused(app: App, **parameters: Any) -> str:
    with pytest.raises((InvalidError, UnimplementedError)) as caught, app.run(**parameters):
        pass
    return str(caught.value)


def test_a_module_that_is_being_imported_runs_no_app(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    with _entrypoint.importing("tidemill run hello.py"):
        assert "tidemill run hello.py imports" in refused(app)
    monkeypatch.setattr(_runtime, "container", _runtime.Container("co-1", "ap-1", "app", "f", "main", {}))
    assert "a container imports" in refused(app)


def test_runs_that_cannot_be_are_refused_before_anything_starts(app: App) -> None:
    assert "interactive" in refused(app, interactive=True)
    assert "name" in refused(app, name="a b")
    app.function(secrets=[Secret.from_dotenv(filename=".nowhere")], name="secretive")(declared.plain)
    assert ".nowhere" in refused(app)
    assert not app.is_running


def test_a_failed_start_can_be_tried_again(app: App) -> None:
    for _ in range(2):
        assert "interactive" in refused(app, interactive=True)


# --- what cannot be deployed


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"name": "a b"}, "name"),
        ({"strategy": "blue"}, "strategy"),
        ({"tag": "x" * 51}, "tag"),
        ({"tag": "a b"}, "tag"),
    ],
)
def test_deployments_that_cannot_be_are_refused(app: App, parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        app.deploy(**parameters)


def test_an_app_without_a_name_is_not_deployed() -> None:
    with pytest.raises(InvalidError, match="without a name"):
        App().deploy()


def test_a_module_that_is_being_imported_deploys_no_app(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    with _entrypoint.importing("tidemill deploy hello.py"), pytest.raises(InvalidError, match=r"hello\.py"):
        app.deploy()
    monkeypatch.setattr(_runtime, "container", _runtime.Container("co-1", "ap-1", "app", "f", "main", {}))
    with pytest.raises(InvalidError, match=r"app\.deploy\(\).* a container imports"):
        app.deploy()


def test_nothing_is_deployed_to_a_stack_that_would_end_with_the_program(
    app: App, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path))
    monkeypatch.delenv("TIDEMILL_SERVER_URL", raising=False)
    with pytest.raises(tidemill.exception.ConnectionError, match="no server is running"):
        app.deploy(client=tidemill.Client())


def test_in_its_containers_an_app_has_their_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_runtime, "container", _runtime.Container("co-1", "ap-1", "a", "f", "main", {}))
    assert App("a").app_id == "ap-1"
    assert App("b").app_id is None


# --- types


def test_decorated_functions_keep_their_types() -> None:
    plain: Function[..., int, int] = App("a").function()(declared.plain)
    raw: Callable[..., int] = plain.get_raw_f()
    assert raw is declared.plain
