"""The decorators that put a function behind a URL, before anything runs."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tidemill
from tidemill import exception
from tidemill._wire.specs import Concurrency, FunctionSpec, MethodSpec, Web


def hello() -> str:
    return "hello"


class Shop:
    @tidemill.method()
    def sell(self) -> None: ...

    @tidemill.fastapi_endpoint()
    async def look(self) -> None: ...

    @tidemill.asgi_app(label="mine")
    def page(self) -> None: ...


def spec_of(*decorators: Callable[[Any], Any], **options: Any) -> FunctionSpec:
    """Return what is declared of a function under these decorators, the lowest first."""
    app = tidemill.App("app")
    function: Any = hello
    for decorate in decorators:
        function = decorate(function)
    made = app.function(**options)(function)
    assert made.local() == "hello"
    return app._declared["hello"][0].template


def test_each_decorator_says_what_kind_of_function_it_is() -> None:
    assert spec_of().web is None
    assert spec_of(tidemill.asgi_app(label="mine")).web == Web("asgi", "mine")
    assert spec_of(tidemill.wsgi_app(requires_proxy_auth=True)).web == Web("wsgi", "", True)
    made = spec_of(tidemill.fastapi_endpoint(method="post", docs=True))
    assert made.web == Web("endpoint", method="POST", docs=True)
    server = spec_of(tidemill.web_server(8000, startup_timeout=7))
    assert server.web == Web("server", port=8000, startup_timeout=7.0)


def test_the_older_name_of_an_endpoint_says_so() -> None:
    with pytest.warns(exception.DeprecationError, match="fastapi_endpoint"):
        decorate = tidemill.web_endpoint()
    assert spec_of(decorate).web == Web("endpoint")


def test_concurrency_stands_above_or_below() -> None:
    many = tidemill.concurrent(max_inputs=10, target_inputs=5)
    for decorators in ((tidemill.asgi_app(), many), (many, tidemill.asgi_app())):
        assert spec_of(*decorators).concurrency == Concurrency(10, 5)


def test_a_request_is_never_tried_again() -> None:
    assert spec_of(tidemill.asgi_app(), retries=3).retries.max_retries == 0


def test_the_app_knows_which_functions_have_urls() -> None:
    app = tidemill.App("app")
    app.function()(tidemill.asgi_app()(hello))
    app.cls()(Shop)
    assert app.registered_web_endpoints == ["hello", "Shop.look", "Shop.page"]
    methods = app._declared["Shop"][0].template.cls
    assert methods is not None
    assert methods.methods == (
        MethodSpec("sell"),
        MethodSpec("look", is_async=True, web=Web("endpoint")),
        MethodSpec("page", web=Web("asgi", "mine")),
    )


@pytest.mark.parametrize(
    ("decorate", "message"),
    [
        (lambda: tidemill.asgi_app(hello), "without parentheses"),  # type: ignore[arg-type]
        (lambda: tidemill.fastapi_endpoint(method="FETCH"), "not a method: 'FETCH'"),
        (lambda: tidemill.fastapi_endpoint(label="Not a label"), "not a label"),
        (lambda: tidemill.fastapi_endpoint(docs="yes"), "docs has to be True or False"),  # type: ignore[arg-type]
        (lambda: tidemill.web_server(0), "port has to be"),
        (lambda: tidemill.web_server(80, startup_timeout=0), "startup_timeout has to be"),
        (lambda: tidemill.asgi_app()(tidemill.wsgi_app()(hello)), "second decorator for the web"),
        (lambda: tidemill.asgi_app()(tidemill.App("a").function()(hello)), "above @app.function"),
        (lambda: tidemill.concurrent(), "max_inputs has to be"),
        (lambda: tidemill.concurrent(max_inputs=2, target_inputs=3), "is above max_inputs"),
    ],
)
def test_what_cannot_be_is_refused(decorate: Callable[[], object], message: str) -> None:
    with pytest.raises(exception.InvalidError, match=message):
        decorate()


def test_functions_that_cannot_answer_are_refused() -> None:
    def generator() -> Iterator[int]:
        yield 1

    async def coroutine() -> None:
        """Return nothing."""

    def with_parameter(x: int) -> int:
        return x

    with pytest.raises(exception.InvalidError, match="cannot be used on the generator"):
        tidemill.fastapi_endpoint()(generator)
    with pytest.raises(exception.InvalidError, match="is async"):
        tidemill.asgi_app()(coroutine)
    with pytest.raises(exception.InvalidError, match="'x' is required"):
        tidemill.asgi_app()(with_parameter)
    with pytest.raises(exception.InvalidError, match="a schedule cannot call it"):
        spec_of(tidemill.asgi_app(), schedule=tidemill.Period(days=1))
    with pytest.raises(exception.InvalidError, match="runs one input"):
        spec_of(tidemill.asgi_app(), tidemill.concurrent(max_inputs=2), single_use_containers=True)
    with pytest.raises(exception.UnimplementedError, match="custom_domains"):
        tidemill.asgi_app(custom_domains=["a.example"])
