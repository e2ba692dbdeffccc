import datetime
from typing import Annotated, Any, Literal, Optional

import click
import pytest
from click.testing import CliRunner

from tidemill._entrypoint import build_command
from tidemill.exception import InvalidError


def run(function: Any, *words: str) -> Any:
    """Return what a function is called with for some words of a command line."""
    called: list[Any] = []
    command = build_command(function, lambda *args, **kwargs: called.append((args, kwargs)))
    result = CliRunner().invoke(command, words, catch_exceptions=False, standalone_mode=True)
    if result.exit_code:
        raise click.UsageError(f"{result.exit_code}: {result.output}")
    ((args, kwargs),) = called
    return function(*args, **kwargs)


def refused(function: Any, *words: str) -> str:
    with pytest.raises(click.UsageError) as caught:
        run(function, *words)
    text = str(caught.value)
    assert text.startswith("2: ")
    return text


def test_every_parameter_is_an_option_in_kebab_case() -> None:
    def main(some_name: str, count: int, size: float) -> Any:
        return some_name, count, size

    assert run(main, "--some-name", "x", "--count", "3", "--size", "2.5") == ("x", 3, 2.5)


def test_what_has_no_default_is_required() -> None:
    def main(foo: int, bar: str = "hello") -> Any:
        return foo, bar

    assert "--foo" in refused(main)
    assert run(main, "--foo", "1") == (1, "hello")


def test_switches() -> None:
    def main(flag: bool, loud: bool = True, quiet: bool | None = None) -> Any:
        return flag, loud, quiet

    assert run(main, "--flag") == (True, True, None)
    assert run(main, "--no-flag", "--no-loud", "--quiet") == (False, False, True)
    assert "flag" in refused(main)


def test_dates() -> None:
    def main(when: datetime.datetime, until: datetime.datetime | None = None) -> Any:
        return when, until

    assert run(main, "--when", "2022-10-31") == (datetime.datetime(2022, 10, 31), None)  # noqa: DTZ001
    assert run(main, "--when", "2022-10-31T01:02:03", "--until", "2022-10-31 01:02:03")[1].hour == 1
    refused(main, "--when", "yesterday")


@pytest.mark.parametrize(
    "annotation",
    [
        Optional[int],  # noqa: UP045 - this form is the claim
        int | None,
        Annotated[int, "n"],
        Annotated[int | None, "n"],
    ],
)
def test_what_may_be_none_is_read_as_what_it_is_otherwise(annotation: Any) -> None:
    def main(n: Any = None) -> Any:
        return n

    main.__annotations__["n"] = annotation
    assert run(main, "--n", "3") == 3
    assert run(main) is None


def test_choices() -> None:
    def main(size: Literal["small", "large"], number: Literal[1, 2] = 1) -> Any:
        return size, number

    assert run(main, "--size", "large", "--number", "2") == ("large", 2)
    assert "small" in refused(main, "--size", "medium")
    refused(main, "--size", "small", "--number", "3")


def test_what_has_no_annotation_is_text_and_its_default_stays_what_it_is() -> None:
    def main(text, number=3):  # type: ignore[no-untyped-def]
        return text, number

    assert run(main, "--text", "1") == ("1", 3)
    assert run(main, "--text", "1", "--number", "4") == ("1", "4")


def test_annotations_may_be_texts() -> None:
    def main(n: "int", when: "datetime.datetime | None" = None) -> Any:
        return n, when

    assert run(main, "--n", "3") == (3, None)


def test_words_alone_are_taken_as_they_are() -> None:
    def main(*words: str) -> Any:
        return words

    assert run(main, "a", "--b", "-c", "--", "d e") in [
        ("a", "--b", "-c", "--", "d e"),
        ("a", "--b", "-c", "d e"),
    ]
    assert run(main) == ()


def test_words_and_parameters_cannot_be_mixed() -> None:
    def main(n: int, *words: str) -> Any:
        return n, words

    with pytest.raises(InvalidError, match="words"):
        build_command(main, print)


@pytest.mark.parametrize("annotation", [list[str], dict, int | str, Literal[1, "a"], "Nowhere", bytes])
def test_other_annotations_are_refused(annotation: Any) -> None:
    def main(value: Any) -> Any:
        return value

    main.__annotations__["value"] = annotation
    with pytest.raises(InvalidError, match="unparseable annotation"):
        build_command(main, print)


def test_keyword_arguments_are_refused() -> None:
    def main(**values: str) -> Any:
        return values

    with pytest.raises(InvalidError, match="values"):
        build_command(main, print)


def test_positional_parameters_are_options_too() -> None:
    def main(a: int, /, b: int) -> Any:
        return a, b

    assert run(main, "--b", "2", "--a", "1") == (1, 2)


def test_a_docstring_is_the_help() -> None:
    def main(n: int = 3) -> None:
        """Do it all."""

    result = CliRunner().invoke(build_command(main, print), ["--help"])
    assert "Do it all." in result.output
    assert "--n INTEGER" in result.output
    assert "[default: 3]" in result.output


def test_bad_values_exit_with_2() -> None:
    def main(n: int) -> Any:
        return n

    assert "'x' is not a valid integer" in refused(main, "--n", "x")
    assert "No such option" in refused(main, "--m", "1")
