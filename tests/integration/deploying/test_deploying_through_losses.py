"""Deployments while the registry is killed, on a stack of their own."""

import threading

import pytest
from running_stacks import RunningStack, wait_until

from tidemill import App, Function, _deploying


def version(number: int) -> App:
    app = App("lossy-number")
    app.function(serialized=True, name="number")(lambda: number)
    return app


@pytest.mark.long
def test_deployments_come_through_while_the_registry_is_killed(
    mortal_stack: RunningStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_deploying, "DEPLOY_TIMEOUT", 3.0)  # of an answer that will not come
    monkeypatch.setattr(_deploying, "TRIES", 10)
    with mortal_stack.client() as client:
        version(0).deploy(client=client)
        function = Function.from_name("lossy-number", "number", client=client)
        assert function.remote() == 0
        for number in (1, 2):
            # Some of these fall before the request, some into it and some behind it: all are to come through.
            killer = threading.Timer(0.01 * number, mortal_stack.kill, ["registry"])
            old = mortal_stack.part("registry").pid
            assert old is not None
            killer.start()
            app = version(number).deploy(client=client)
            killer.join()
            mortal_stack.wait_restarted("registry", old)
            assert app.info().version == number + 1
            assert app.registered_functions["number"].remote() == number
            wait_until(lambda number=number: function.remote() == number)
