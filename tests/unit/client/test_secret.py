import os
import pickle
from pathlib import Path

import pytest

from tidemill import Secret, _dotenv, _runtime
from tidemill.exception import ExecutionError, InvalidError


def test_a_secret_from_a_dictionary_leaves_none_out() -> None:
    assert Secret.from_dict({"A": "1", "B": None})._variables() == {"A": "1"}
    assert Secret.from_dict()._variables() == {}


@pytest.mark.parametrize("wrong", [{"A": 1}, {1: "A"}, {"": "x"}, {"A=B": "x"}, {"A": "\0"}, ["A"]])
def test_a_secret_of_anything_but_strings_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidError):
        Secret.from_dict(wrong)


def test_values_are_never_shown() -> None:
    assert "hunter2" not in repr(Secret.from_dict({"PASSWORD": "hunter2"}))


def test_a_secret_copies_the_local_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDE", "high")
    assert Secret.from_local_environ(["TIDE"])._variables() == {"TIDE": "high"}


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(InvalidError, match="NOT_SET_1, NOT_SET_2"):
        Secret.from_local_environ(["NOT_SET_1", "NOT_SET_2"])


def test_in_a_container_the_local_environment_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    container = _runtime.Container("co-1", "ap-1", "app", "f", "main", {})
    monkeypatch.setattr(_runtime, "container", container)
    assert Secret.from_local_environ(["NOT_SET_1"])._variables() == {}


def test_a_dotenv_file_is_searched_upwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("USER=user\n")
    (tmp_path / ".env-dev").write_text("USER=dev\n")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (below / "script.py").write_text("")
    assert Secret.from_dotenv(below)._variables() == {"USER": "user"}
    assert Secret.from_dotenv(str(below / "script.py"))._variables() == {"USER": "user"}
    assert Secret.from_dotenv(below, filename=".env-dev")._variables() == {"USER": "dev"}
    monkeypatch.chdir(below)
    assert Secret.from_dotenv()._variables() == {"USER": "user"}


def test_a_dotenv_file_is_read_when_the_app_starts_and_not_before(tmp_path: Path) -> None:
    secret = Secret.from_dotenv(tmp_path, filename=".nowhere-env")
    with pytest.raises(InvalidError, match=r"\.nowhere-env"):
        secret._variables()
    (tmp_path / ".nowhere-env").write_text("A=1")
    assert secret._variables() == {"A": "1"}


def test_a_named_secret_is_lazy() -> None:
    secret = Secret.from_name("my-secret", required_keys=["TOKEN"])
    assert secret.name == "my-secret"
    assert not secret.is_hydrated
    with pytest.raises(ExecutionError, match="no id yet"):
        secret.object_id


def test_a_secret_without_a_name_cannot_be_changed() -> None:
    with pytest.raises(InvalidError, match="no name"):
        Secret.from_dict({"A": "1"}).update({"A": "2"})


def test_values_do_not_travel_with_a_function() -> None:
    data = pickle.dumps(Secret.from_dict({"PASSWORD": "hunter2"}))
    assert b"hunter2" not in data
    with pytest.raises(InvalidError, match="not in this process"):
        pickle.loads(data)._variables()
    named = pickle.loads(pickle.dumps(Secret.from_name("stored", required_keys=["A"])))
    assert (named.name, named._required) == ("stored", ("A",))


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, None, "a/b"])
def test_names_that_cannot_be_are_refused(name: object) -> None:
    with pytest.raises(InvalidError):
        Secret.from_name(name)


def test_a_secret_is_not_made_by_its_class() -> None:
    with pytest.raises(InvalidError, match="class"):
        Secret()


# --- the format


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("A=1\nB = two words # comment\n", {"A": "1", "B": "two words"}),
        ("# only\n\n  # comments\n", {}),
        ("export A=1", {"A": "1"}),
        ("A='$HOME # ${X} \\n'", {"A": "$HOME # ${X} \\n"}),
        ('A="a\\nb\\t\\"c\\" \\\\"', {"A": 'a\nb\t"c" \\'}),
        ('A="one\ntwo" # after\nB=2', {"A": "one\ntwo", "B": "2"}),
        ("A=1\nB=${A}2${C:-3}${D}", {"A": "1", "B": "123"}),
        ("URL=http://host/#anchor", {"URL": "http://host/#anchor"}),
        ("A=\nB", {"A": "", "B": None}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("PASSWORD=it's", {"PASSWORD": "it's"}),
    ],
)
def test_the_dotenv_format(text: str, values: dict[str, str | None]) -> None:
    assert _dotenv.parse(text, {}) == values


def test_references_reach_the_environment() -> None:
    assert _dotenv.parse("A=${HOME}", os.environ) == {"A": os.environ["HOME"]}


def test_a_line_that_cannot_be_read_is_named() -> None:
    with pytest.raises(InvalidError, match="line 2"):
        _dotenv.parse("A=1\n=oops\n")
