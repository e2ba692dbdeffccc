"""Classes on a whole stack."""

import os
from collections.abc import Iterator

import class_programs as programs
import pytest
from running_stacks import RunningStack
from waiting import wait_until

import tidemill
from tidemill import Client, Cls, Function, _output
from tidemill.exception import InvalidError, NotFoundError


@pytest.fixture(scope="module")
def running(stack: RunningStack) -> Iterator[Client]:
    """The app, while it runs for the tests of this module."""
    info = stack.info
    with (
        Client.from_credentials(info.token_id, info.token_secret, server_url=info.server_url) as client,
        programs.app.run(client=client),
    ):
        yield client


@pytest.mark.usefixtures("running")
def test_methods_of_a_class_share_one_object_whose_hooks_ran_in_order() -> None:
    model = programs.Model()
    assert model.predict.remote(4) == (["base", "loaded small"], 8)
    assert list(model.predict.map([1, 2])) == [(["base", "loaded small"], 2), (["base", "loaded small"], 4)]
    assert model.on_the_loop.remote()
    assert list(model.count.remote_gen(3)) == [0, 1, 2]
    assert model.count_async.spawn(3).get() == [0, 1, 2]
    assert model.where.remote()[0] != os.getpid()


@pytest.mark.usefixtures("running")
async def test_async_methods_share_the_loop_of_their_hooks() -> None:
    both = programs.AllAsync()
    assert await both.hear.remote.aio() is False
    await both.tell.remote.aio()
    assert await both.hear.remote.aio() is True


@pytest.mark.usefixtures("running")
def test_each_set_of_parameters_and_options_has_containers_of_its_own() -> None:
    large = programs.Model(size="large")
    large.update_autoscaler(max_containers=1)  # one process, however long a call has to wait
    assert large.predict.remote(1)[0] == ["base", "loaded large"]
    pid = large.where.remote()[0]
    assert programs.Model(size="large").where.is_hydrated  # it is not asked for again
    assert programs.Model(size="large").where.remote() == (pid, "")
    optional = programs.Model.with_options(env={"OPTION": "on"})  # type: ignore[attr-defined]
    assert optional(size="large").where.remote()[1] == "on"
    assert programs.option.with_options(env={"OPTION": "on"}).remote() == "on"
    assert programs.option.remote() == "none"


@pytest.mark.usefixtures("running")
def test_methods_call_their_own_class_and_objects_travel() -> None:
    local, remote, where, pid = programs.Model().calls_itself.remote()
    assert (local[1], remote) == (2, (["base", "loaded inside"], 4))
    assert where[0] != pid
    assert programs.takes.remote(programs.Model(size="sent")) == (["base", "loaded sent"], 8)


def test_methods_that_are_sent_elsewhere_keep_parameters_and_options(running: Client) -> None:
    variant = programs.Model.with_options(env={"OPTION": "on"})  # type: ignore[attr-defined]
    object_ = variant(size="own")
    result = (["base", "loaded own"], 8)
    assert programs.takes_method.remote(object_.predict) == result
    call = object_.gives_itself.spawn()
    predict, count, optional, sent = call.get()
    for function in (predict, count, optional):
        function.hydrate(client=running)
    assert (predict.remote(4), sent) == (result, result)
    assert predict.remote(1) == (["base", "loaded own"], 2)
    assert list(count.remote_gen(2)) == [0, 1]
    assert optional.remote()[1] == "also"
    assert programs.takes_method.remote(predict) == result
    wait_until(
        lambda: [node.function_name for node in call.get_call_graph()] == ["Model.gives_itself"],
        what="for the record",  # it comes a moment after the result
    )


@pytest.mark.usefixtures("running")
def test_a_class_can_be_sent_by_value() -> None:
    assert programs.Serialized(start=10).add.remote(1) == 111
    assert programs.Serialized(start=10).add_twice.remote(1) == 121


@pytest.mark.usefixtures("running")
def test_what_an_enter_hook_raises_is_told() -> None:
    with pytest.raises(FileNotFoundError, match="the weights"):
        programs.Broken().never.remote()


def test_exit_hooks_run_when_the_app_ends(running: Client, capsys: pytest.CaptureFixture[str]) -> None:
    with _output.show(), tidemill.App("leaving").include(programs.app).run(client=running):
        programs.Model().predict.remote(1)
        programs.AllAsync().hear.remote()
        busy = programs.Busy().sleeps
        busy.spawn()
        wait_until(lambda: busy.get_current_stats().num_running_inputs == 1, what="for the input to run")
    out = capsys.readouterr().out
    assert all(line in out for line in ("left small", "left async", "left busy")), out


def test_a_deployed_class_is_found_by_name(running: Client) -> None:
    app = tidemill.App("deployed-classes").include(programs.app)
    app.deploy(client=running)
    try:
        found = Cls.from_name("deployed-classes", "Model", client=running)
        assert found(size="found").predict.remote(3) == (["base", "loaded found"], 6)
        assert found(size="found").predict.spawn(4).get() == (["base", "loaded found"], 8)
        pinned = Cls.from_name("deployed-classes", "Model", version=1, client=running)
        assert pinned.with_options(env={"OPTION": "on"})().where.remote()[1] == "on"
        with pytest.raises(TypeError, match="unexpected keyword argument 'sice'"):
            found(sice="x").predict.remote(1)
        with pytest.raises(NotFoundError, match="the class Model has no method 'nothing'"):
            found().nothing.remote()
        with pytest.raises(InvalidError, match="Model is a class"):
            Function.from_name("deployed-classes", "Model", client=running).remote()
        with pytest.raises(InvalidError, match="option is a function, not a class"):
            Cls.from_name("deployed-classes", "option", client=running).hydrate()
    finally:
        app.stop(client=running)
