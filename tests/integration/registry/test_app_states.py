"""The life of apps, played at random on the real tables beside a model of a few lines."""

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from stored_records import Records, spec

from tidemill import exception
from tidemill._wire import coding
from tidemill._wire.apps import CreateApp, PublishFunctions
from tidemill._wire.control import GetFunction
from tidemill._wire.deploying import FindApps, ListDeployments, LookupApp, RollbackApp, RolloverApp
from tidemill._wire.specs import FunctionSpec, Pool
from tidemill_local.database import Database
from tidemill_registry import deployments, environments, lookups, publishing
from tidemill_registry.apps import Apps
from tidemill_registry.database import database_clock, new_engine
from tidemill_registry.decisions import DOABLE, LIFE, LIVE

NAMES = st.sampled_from(["one", "two"])
# What an app may consist of: a few functions, each in one of three variants.
FUNCTIONS = st.dictionaries(st.sampled_from(["f", "g", "h"]), st.sampled_from([1.0, 2.0, 3.0]), max_size=3)
STRATEGIES = st.sampled_from(["rolling", "recreate"])

Variants = dict[str, float]


def specs(variants: Variants) -> tuple[FunctionSpec, ...]:
    return tuple(spec(name, timeout=timeout) for name, timeout in variants.items())


@dataclass
class Modelled:
    """An app as it should be."""

    name: str
    state: str
    versions: list[Variants] = field(default_factory=list)

    def serve(self, variants: Variants, *, renewed: bool = False) -> None:
        if renewed or not self.versions or self.versions[-1] != variants:
            self.versions.append(variants)


class Machine(RuleBasedStateMachine):
    database: Database
    apps_seen: Bundle[str] = Bundle("apps_seen")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.model: dict[str, Modelled] = {}

    @initialize()
    def begin(self) -> None:
        workspace = f"m{next(_numbers)}"
        self.records = Records(new_engine(self.database.url, 2), workspace)
        self.apps = Apps(self.records.engine, database_clock)
        self.run(environments.prepare(self.records.engine, workspace))

    def teardown(self) -> None:
        if hasattr(self, "records"):
            self.run(self.records.engine.dispose())
        self.runner.close()

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def refused(self, work: Any) -> exception.Error | None:
        """Do something that may be refused; return the refusal."""
        try:
            self.run(work)
        except exception.Error as error:
            return error
        return None

    def deployed(self, name: str) -> str | None:
        """Return the id of the app that is deployed under a name, by the model."""
        ids = (key for key, app in self.model.items() if (app.name, app.state) == (name, "deployed"))
        return next(ids, None)

    # --- what may happen

    @rule(target=apps_seen, name=NAMES, state=st.sampled_from(["ephemeral", "detached"]))
    def create(self, name: str, state: str) -> str:
        made = self.run(self.apps.create(self.records.workspace, CreateApp(name, "", state)))
        assert made.app_id not in self.model
        self.model[made.app_id] = Modelled(name, state)
        return str(made.app_id)

    @rule(target=apps_seen, name=NAMES, variants=FUNCTIONS, strategy=STRATEGIES)
    def deploy(self, name: str, variants: Variants, strategy: str) -> Any:
        before = self.deployed(name)
        deployed = self.run(self.records.deploy(*specs(variants), name=name, strategy=strategy))
        is_new = before is None
        assert is_new == (deployed.app_id not in self.model)
        app = self.model.setdefault(deployed.app_id, Modelled(name, "deployed"))
        count = len(app.versions)
        app.serve(variants)
        assert deployed.version == len(app.versions)
        assert deployed.skipped == (len(app.versions) == count)
        return deployed.app_id if is_new else multiple()

    @rule(target=apps_seen, name=NAMES)
    def look_up(self, name: str) -> Any:
        before = self.deployed(name)
        request = LookupApp(name, create_if_missing=True)
        found = self.run(self.apps.look_up(self.records.workspace, request)).app_id
        if before is not None:
            assert found == before
            return multiple()
        self.model[found] = Modelled(name, "deployed")
        return found

    @rule(app_id=apps_seen, variants=FUNCTIONS)
    def publish(self, app_id: str, variants: Variants) -> None:
        request = PublishFunctions(app_id, specs(variants))
        app = self.model[app_id]
        publish = publishing.publish(self.records.engine, self.records.workspace, request, database_clock)
        refusal = self.refused(publish)
        assert (refusal is None) == (app.state in DOABLE["publish functions for"])
        if refusal is None:
            app.serve(variants)

    @rule(app_id=apps_seen, version=st.integers(1, 6), strategy=STRATEGIES)
    def roll_back(self, app_id: str, version: int, strategy: str) -> None:
        request = RollbackApp(app_id, version=version, strategy=strategy)
        app = self.model[app_id]
        refusal = self.refused(
            deployments.roll_back(self.records.engine, self.records.workspace, request, database_clock)
        )
        allowed = app.state in DOABLE["roll back"] and version <= len(app.versions)
        assert (refusal is None) == allowed
        if allowed:
            app.serve(app.versions[version - 1])

    @rule(app_id=apps_seen, strategy=STRATEGIES)
    def roll_over(self, app_id: str, strategy: str) -> None:
        request = RolloverApp(app_id, strategy=strategy)
        app = self.model[app_id]
        refusal = self.refused(
            deployments.roll_over(self.records.engine, self.records.workspace, request, database_clock)
        )
        assert (refusal is None) == (app.state in DOABLE["roll over"])
        if refusal is None:
            app.serve(app.versions[-1] if app.versions else {}, renewed=True)

    @rule(app_id=apps_seen)
    def heartbeat(self, app_id: str) -> None:
        refusal = self.refused(self.apps.heartbeat(self.records.workspace, app_id))
        assert (refusal is None) == (self.model[app_id].state in DOABLE["hear the client of"])

    @rule(app_id=apps_seen)
    def stop(self, app_id: str) -> None:
        self.run(self.apps.stop(self.records.workspace, app_id, "enough"))
        app = self.model[app_id]
        assert app.state == "stopped" or "stopped" in LIFE[app.state]
        app.state = "stopped"

    # --- what always holds

    @invariant()
    def the_tables_tell_what_the_model_does(self) -> None:
        if hasattr(self, "records"):
            self.run(self._check())

    async def _check(self) -> None:
        engine, workspace = self.records.engine, self.records.workspace
        found = await lookups.find_apps(engine, workspace, FindApps(states=tuple(LIFE), limit=1_000))
        told = {app.app_id: (app.name, app.state, app.version, app.functions) for app in found.apps}
        assert told == {
            key: (app.name, app.state, len(app.versions), len(app.versions[-1]) if app.versions else 0)
            for key, app in self.model.items()
        }
        for key, app in self.model.items():
            if app.state in LIVE:
                await self._check_app(key, app)

    async def _check_app(self, key: str, app: Modelled) -> None:
        engine, workspace = self.records.engine, self.records.workspace
        listed = await deployments.list_versions(engine, workspace, ListDeployments(key))
        assert [one.functions for one in reversed(listed.deployments)] == [
            tuple(sorted(variants)) for variants in app.versions
        ]
        serving = "SELECT json_object_agg(functions.name, pools.id) FROM pools JOIN functions "
        serving += "ON functions.id = function_id WHERE pools.app_id = :id AND superseded_at IS NULL"
        pools = await self.records.sql(serving, id=key) or {}
        assert set(pools) == set(app.versions[-1] if app.versions else ())
        for number, variants in enumerate(app.versions, 1):
            for name, timeout in variants.items() if app.state == "deployed" else ():
                handle, _ = await lookups.get_function(
                    engine, workspace, GetFunction(app.name, name, version=number)
                )
                record = await self.records.sql("SELECT record FROM pools WHERE id = :id", id=handle.pool)
                pool = coding.decode(Pool, record)
                assert (pool.spec.timeout, handle.timeout) == (timeout, timeout)
                assert pool.superseded == (pools.get(name) != pool.id)


_numbers = itertools.count()


def test_apps_live_as_the_table_of_states_says(shared_database: Database) -> None:
    Machine.database = shared_database
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=10,
            stateful_step_count=12,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )


def test_every_state_leads_to_states_that_there_are() -> None:
    assert {state for states in LIFE.values() for state in states} <= set(LIFE)
    assert set(LIVE) == {"ephemeral", "detached", "deployed"}
    assert all(set(states) <= set(LIFE) - {"new"} for states in DOABLE.values())
