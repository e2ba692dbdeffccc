"""Records of inputs arrive over NATS and are found again: exactly, however they come."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from refusals import refused
from sqlalchemy import text
from waiting import until

from tidemill._bus.protocol import RequestFailed
from tidemill._wire import coding, ids, subjects
from tidemill._wire.calls import (
    DETAILED,
    CallDetails,
    CallGraph,
    CallList,
    CountRequests,
    DeadDetails,
    DeadLetter,
    DeadList,
    GetCall,
    GetCallGraph,
    GetDead,
    InputRecord,
    ListCalls,
    ListDead,
    RecordBatch,
    ReplayDead,
    Replayed,
    RequestCount,
    RequestCounts,
    State,
    runs_of,
)
from tidemill._wire.control import CallRecord, FunctionHandle
from tidemill._wire.messages import Chunk, Payload, Try
from tidemill._wire.specs import ClassSpec, FunctionSpec, MethodSpec, Parameter
from tidemill._wire.variants import GetVariant
from tidemill_common import streams
from tidemill_registry.database import new_engine
from tidemill_registry.folding import RETENTION
from tidemill_registry.recording import SETTLE

Spec = Callable[..., FunctionSpec]

END_OF_YEARS = 253_402_300_799.0  # the last moment that is written with four digits


class Story:
    """An app with two functions, and what a test says happened to their inputs."""

    def __init__(self, client: Any, app_id: str, pools: dict[str, str]) -> None:
        self.client = client
        self.app_id = app_id
        self.pools = pools
        self.began = time.time()
        self.count = 0

    def record(self, call: str, state: State, *indices: int, **fields: Any) -> InputRecord:
        values = {
            "attempt": 0,
            "pool": self.pools[fields.pop("function", "f")],
            "parent": "",
            "root": call,
            "container": "co-1",
            "queued": self.began,
            "started": self.began + 1,
            "finished": self.began + 2 if state >= State.RETRIED else 0.0,
            **fields,
        }
        return InputRecord(call=call, state=state, runs=runs_of(indices), **values)

    async def tell(
        self,
        *records: InputRecord,
        source: str = "wo-1",
        dropped: int = 0,
        requests: tuple[RequestCount, ...] = (),
    ) -> None:
        """Publish a batch."""
        self.count += 1
        subject = subjects.event(self.client.workspace, subjects.RECORDS, self.app_id)
        batch = coding.encode(RecordBatch(source, list(records), dropped, requests))
        await self.client.bus.store(subject, batch, msg_id=f"{source}.{self.count}")

    async def ask(self, verb: str, request: object, kind: type[Any]) -> Any:
        """Ask, and again where the registry may have waited in vain for what is on its way."""
        while True:
            began = time.monotonic()
            try:
                answer = await self.client.ask(verb, request, kind)
            except RequestFailed:
                if time.monotonic() - began < 0.9 * SETTLE:
                    raise
            else:
                if time.monotonic() - began < 0.9 * SETTLE:
                    return answer

    async def graph(self, call: str, *, whole: bool = True) -> CallGraph:
        """Return all pages of a graph as one."""
        page = await self.ask("get_call_graph", GetCallGraph(call, whole), CallGraph)
        calls, inputs = list(page.calls), list(page.inputs)
        while page.next:
            page = await self.client.ask("get_call_graph", GetCallGraph(call, whole, page.next), CallGraph)
            calls += page.calls
            inputs += page.inputs
        return CallGraph(page.root, tuple(calls), tuple(inputs))

    async def details(self, call: str) -> CallDetails:
        answer: CallDetails = await self.ask("get_call", GetCall(call), CallDetails)
        return answer

    async def calls(self, **request: Any) -> CallList:
        answer: CallList = await self.ask("list_calls", ListCalls(**request), CallList)
        return answer


async def begun(client: Any, spec: Spec) -> Story:
    """Return a story that a registry listens to: what came before nobody waits for."""
    consumer = streams.records_consumer(client.workspace)
    await until(lambda: client.bus.consumer_state(consumer.stream, consumer.name), what="for the consumer")
    app_id = await client.create("app")
    handles = await client.publish(app_id, spec("f"), spec("g"))
    return Story(client, app_id, {name: handle.pool for name, handle in handles.items()})


@pytest.fixture(scope="module")
def workspaces(standing: Any) -> Iterator[Iterator[str]]:
    """Names of workspaces that a registry knows from its start: for others it looks only now and then."""
    names = asyncio.run(standing.new_workspaces(16))
    registry = asyncio.run(standing.start_registry())
    yield iter(names)
    registry.close()


@pytest.fixture
async def story(workspaces: Iterator[str], standing: Any, spec: Spec) -> AsyncIterator[Story]:
    """A story in a workspace of its own, on the registry that all share."""
    client = await standing.connect(next(workspaces))
    yield await begun(client, spec)
    await client.bus.close()


@pytest.fixture
async def registry(start_registry: Any, client: Any) -> Any:
    """A registry of this test's own."""
    return await start_registry()


@pytest.fixture
async def own_story(registry: Any, client: Any, spec: Spec) -> Story:
    """A story on it."""
    return await begun(client, spec)


async def test_a_graph_holds_what_every_input_called(story: Story) -> None:
    root, mapped, leaf = sorted(ids.new(ids.CALL) for _ in range(3))
    below = {"parent": ids.input_id(root, 0), "root": root, "function": "g"}
    await story.tell(story.record(mapped, State.QUEUED, 0, 1, 2, container="", started=0.0, **below))
    await story.tell(story.record(mapped, State.SUCCESS, 0, 2, **below))
    await story.tell(story.record(mapped, State.TIMEOUT, 1, **below))
    under = {"parent": ids.input_id(mapped, 1), "root": root}
    await story.tell(story.record(leaf, State.SUCCESS, 0, container="co-2", **under))
    await story.tell(story.record(root, State.SUCCESS, 0))
    graph = await story.graph(leaf)
    assert graph.root == root
    assert [(one.call, one.index, one.status, one.container) for one in graph.inputs] == [
        (root, 0, "success", "co-1"),
        (mapped, 0, "success", "co-1"),
        (mapped, 1, "timeout", "co-1"),
        (mapped, 2, "success", "co-1"),
        (leaf, 0, "success", "co-2"),
    ]
    assert [(one.function, one.module, one.status, one.parent) for one in graph.calls] == [
        ("f", "m", "success", ""),
        ("g", "m", "timeout", ids.input_id(root, 0)),
        ("f", "m", "success", ids.input_id(mapped, 1)),
    ]
    assert [one.call for one in (await story.graph(mapped, whole=False)).calls] == [mapped, leaf]


async def test_an_unfinished_graph_waits_for_what_is_on_its_way(story: Story) -> None:
    call = ids.new(ids.CALL)
    asked = asyncio.create_task(story.graph(call))
    await story.tell(story.record(call, State.SUCCESS, 0))
    assert [one.status for one in (await asked).inputs] == ["success"]
    unknown = await refused(story.graph(ids.new(ids.CALL)))
    assert (unknown.code, unknown.hint) == (
        "not_found",
        "records are kept for 7 days; web requests that succeed are mostly only counted",
    )


async def test_records_in_any_order_from_two_replicas_come_to_the_same(
    own_story: Story, start_registry: Any, database: Any
) -> None:
    await start_registry()
    call = ids.new(ids.CALL)
    batches = [
        [own_story.record(call, State.QUEUED, *range(40), started=0.0, container="")],
        [own_story.record(call, State.RETRIED, 7, reason="ValueError: no")],
        [own_story.record(call, State.STARTED, 7, attempt=1, container="co-2")],
        *(
            [own_story.record(call, State.SUCCESS, index, finished=own_story.began + 3)]
            for index in range(40)
        ),
        [own_story.record(call, State.FAILURE, 3, finished=own_story.began + 9, container="co-9")],
        [own_story.record(call, State.SUCCESS, *range(5_000, 5_400))],
    ]
    again = [*batches, *batches, *batches]
    random.shuffle(again)
    await asyncio.gather(*(own_story.tell(*batch) for batch in again))
    await own_story.tell(own_story.record(call, State.SUCCESS, 40))

    async def complete() -> CallDetails | None:
        found = await own_story.details(call)
        return found if found.call.counts.get("success") == 441 else None

    found = await until(complete)
    assert found.call.counts == {"success": 441, "pending": 5_400 - 441}
    assert found.inputs[3].container == "co-1"
    assert found.inputs[7].tries == (
        Try(0, "co-1", own_story.began + 1, own_story.began + 2, "ValueError: no"),
    )
    assert found.inputs[7].attempts == 2


async def test_a_map_of_a_million_inputs_is_counted_in_few_rows(story: Story, standing: Any) -> None:
    call, size = ids.new(ids.CALL), 1_000_000
    for first in range(0, size, 10_000):
        await story.tell(
            *(
                story.record(call, State.SUCCESS, *range(start, start + 500))
                for start in range(first, first + 10_000, 500)
            )
        )
    await story.tell(story.record(call, State.FAILURE, size, reason="ValueError: the last"))

    async def counted() -> bool:
        return (await story.graph(call)).calls[0].counts == {"success": size, "failure": 1}

    await until(counted)
    graph = await story.graph(call)
    assert (graph.calls[0].num_inputs, graph.calls[0].status) == (size + 1, "failure")
    assert len(graph.inputs) == DETAILED
    engine = new_engine(standing.database.url, 2)
    async with engine.connect() as connection:
        query = text("SELECT count(*) FROM input_counts WHERE call_id = :call")
        rows = await connection.scalar(query, {"call": call})
    await engine.dispose()
    assert rows == 245


async def test_what_is_left_of_a_cancelled_call_has_ended(story: Story) -> None:
    call = ids.new(ids.CALL)
    await story.tell(story.record(call, State.QUEUED, 0, 1, 2, container="", started=0.0))
    await story.tell(story.record(call, State.SUCCESS, 1))
    await story.tell(story.record(call, State.CANCELLED))
    graph = await story.graph(call)
    assert [one.status for one in graph.inputs] == ["terminated", "success", "terminated"]
    assert graph.calls[0].counts == {"success": 1, "terminated": 2}


async def test_calls_are_listed_newest_first_by_what_they_are(story: Story) -> None:
    calls = sorted(ids.new(ids.CALL) for _ in range(9))
    states = [State.SUCCESS, State.FAILURE, State.STARTED] * 3
    for number, (call, state) in enumerate(zip(calls, states, strict=True)):
        await story.tell(story.record(call, state, 0, function="g" if number > 5 else "f"))
    await story.graph(calls[-1])  # waits for what is on its way
    newest = list(reversed(calls))
    assert [one.call for one in (await story.calls()).calls] == newest
    first = await story.calls(limit=4, app_id=story.app_id)
    rest = await story.calls(limit=9, app_id=story.app_id, before=first.next)
    assert [one.call for one in (*first.calls, *rest.calls)] == newest
    assert rest.next == ""
    for status, offset in (("success", 0), ("failure", 1), ("pending", 2)):
        found = (await story.calls(status=status)).calls
        assert [one.call for one in found] == list(reversed(calls[offset::3]))
    assert [one.call for one in (await story.calls(function="g")).calls] == newest[:3]
    assert (await story.calls(until=story.began - 60)).calls == ()
    assert len((await story.calls(since=story.began - 60)).calls) == 9
    assert (await refused(story.calls(status="good"))).hint.startswith("there are pending, success")


async def test_calls_of_methods_are_shown_and_found_as_such(story: Story, spec: Spec) -> None:
    model = spec("Model", cls=ClassSpec((MethodSpec("predict"), MethodSpec("train"))))
    app_id = await story.client.create("classes")
    story.pools["Model"] = (await story.client.publish(app_id, model))["Model"].pool
    predict, train, forged = calls = [ids.new(ids.CALL) for _ in range(3)]
    for call, method in zip(calls, ("predict", "train", "drop"), strict=True):
        await story.tell(story.record(call, State.QUEUED, 0, function="Model"))
        await story.tell(story.record(call, State.SUCCESS, 0, function="Model", method=method))
    assert (await story.details(predict)).call.function == "Model.predict"
    assert (await story.graph(train)).calls[0].function == "Model.train"
    assert (await story.details(forged)).call.function == "Model"  # which has no such method
    assert [one.call for one in (await story.calls(function="Model.predict")).calls] == [predict]
    assert {one.call for one in (await story.calls(function="Model")).calls} == set(calls)


async def test_records_of_unknown_functions_and_nonsense_stop_nothing(
    own_story: Story, registry: Any
) -> None:
    await own_story.client.bus.store(
        subjects.event(own_story.client.workspace, subjects.RECORDS, own_story.app_id), b"nonsense"
    )
    call = ids.new(ids.CALL)
    unknown = own_story.record(call, State.SUCCESS, 0)._replace(pool=ids.new(ids.POOL))
    await own_story.tell(unknown, own_story.record(call, State.SUCCESS, 1), dropped=7)
    assert [one.index for one in (await own_story.graph(call)).inputs] == [1]
    _, metrics = await registry.get("/metrics")
    assert "tidemill_records_lost_total 7.0" in metrics
    assert "tidemill_records_refused_total 1.0" in metrics


async def test_a_record_that_the_database_refuses_keeps_no_other_from_being_written(
    story: Story, standing: Any
) -> None:
    connection = await asyncpg.connect(standing.database.url.replace("+asyncpg", ""))
    await connection.execute("ALTER TABLE inputs ADD CHECK (container <> 'co-refused')")
    await connection.close()
    refused_one, call = ids.new(ids.CALL), ids.new(ids.CALL)
    await asyncio.gather(
        story.tell(story.record(refused_one, State.SUCCESS, 0)._replace(container="co-refused")),
        story.tell(story.record(call, State.SUCCESS, 0)),
    )
    assert [one.status for one in (await story.graph(call)).inputs] == ["success"]


async def test_records_wait_in_the_stream_for_a_registry(
    own_story: Story, registry: Any, start_registry: Any
) -> None:
    await registry.kill()
    call = ids.new(ids.CALL)
    await own_story.tell(own_story.record(call, State.SUCCESS, 0))
    await start_registry()
    assert [one.status for one in (await own_story.graph(call)).inputs] == ["success"]


async def test_calls_are_forgotten_after_seven_days(own_story: Story, database: Any, until: Any) -> None:
    old = ids.first_at(ids.CALL, time.time() - RETENTION - 3_600)
    kept = ids.new(ids.CALL)
    await own_story.tell(own_story.record(kept, State.SUCCESS, *range(2_000)))
    await own_story.graph(kept)
    engine = new_engine(database.url, 2)
    tables = {"calls": "id", "inputs": "call_id", "input_counts": "call_id"}
    moves = [f"UPDATE {table} SET {key} = :old" for table, key in tables.items()]
    counts = ", ".join(f"(SELECT count(*) FROM {table})" for table in tables)
    async with engine.begin() as connection:
        for move in moves:
            await connection.execute(text(move), {"old": old})
    await own_story.tell(own_story.record(kept, State.SUCCESS, 0))

    async def left() -> bool:
        async with engine.connect() as connection:
            return tuple((await connection.execute(text(f"SELECT {counts}"))).one()) == (1, 1, 0)

    await until(left)
    await engine.dispose()


# --- dead letters


async def bury(story: Story, index: int = 0, pool: str = "", method: str = "", **fields: Any) -> str:
    """Publish a dead letter; return its input's id."""
    call = ids.new(ids.CALL)
    tries = (Try(0, "co-1", 1.0, 2.0, "ValueError: no"),)
    chunk = Chunk(
        call,
        [index],
        1,
        f"tm.replies.{story.client.workspace}.gone",
        [Payload(1, b"\x92\x90\x80")],
        1.0,
        tries=tries,
        method=method,
    )
    letter = DeadLetter(
        pool or story.pools["f"],
        story.app_id,
        call,
        index,
        time.time(),
        "no retry is left",
        coding.encode(chunk),
        **fields,
    )
    await story.client.bus.store(
        subjects.dead(story.client.workspace, letter.pool, call, index), coding.encode(letter)
    )
    return ids.input_id(call, index)


async def listed(story: Story, count: int = 1) -> DeadList:
    async def enough() -> DeadList | None:
        found = await story.client.ask("list_dead", ListDead(), DeadList)
        assert isinstance(found, DeadList)
        return found if len(found.letters) >= count else None

    letters: DeadList = await until(enough)
    return letters


async def test_a_dead_letter_is_listed_with_every_attempt(story: Story) -> None:
    named = [await bury(story, index) for index in (0, 5)]
    letters = (await listed(story, 2)).letters
    assert [one.input_id for one in letters] == named[::-1]
    assert {(one.function, one.reason, one.attempts, one.app_id) for one in letters} == {
        ("f", "no retry is left", 1, story.app_id)
    }
    first = await story.client.ask("list_dead", ListDead(limit=1, function="f"), DeadList)
    rest = await story.client.ask("list_dead", ListDead(before=first.next), DeadList)
    assert [one.input_id for one in (*first.letters, *rest.letters)] == named[::-1]
    details = await story.client.ask("get_dead", GetDead(named[0]), DeadDetails)
    assert (details.tries, details.size) == ((Try(0, "co-1", 1.0, 2.0, "ValueError: no"),), 3)
    assert (await refused(story.client.ask("get_dead", GetDead("in-1-0"), DeadDetails))).code == "not_found"


async def test_a_letter_that_no_table_can_hold_does_not_keep_others_from_being_listed(story: Story) -> None:
    call = ids.new(ids.CALL)
    letter = DeadLetter(story.pools["f"], story.app_id, call, 2**40, time.time(), "no", b"", readable=False)
    subject = subjects.dead(story.client.workspace, letter.pool, call, letter.index)
    await story.client.bus.store(subject, coding.encode(letter))
    await story.tell(story.record(call, State.SUCCESS, 0), story.record(call, State.SUCCESS, 1, pool="po\0"))
    graph = await story.graph(call)
    assert [one.status for one in graph.inputs] == ["success"]


async def test_a_dead_letter_is_replayed_once_by_the_present_function(story: Story, spec: Spec) -> None:
    named = await bury(story)
    await listed(story)
    handles = await story.client.publish(story.app_id, spec("f", timeout=7.0), spec("g"))
    asked = [story.client.ask("replay_dead", ReplayDead(named), Replayed) for _ in range(4)]
    answers = await asyncio.gather(*asked)
    again = await story.client.ask("replay_dead", ReplayDead(named), Replayed)
    assert again.again
    assert {one.call for one in (*answers, again)} == {again.call}
    prefix = handles["f"].prefix
    stream = subjects.stream_of(prefix)
    waiting = [one async for one in story.client.bus.read(stream, subjects.pool_inputs(prefix))]
    chunk = coding.decode(Chunk, waiting[0].data)
    assert len(waiting) == 1
    assert (chunk.call, chunk.indices, chunk.reply, chunk.inputs) == (
        again.call,
        [0],
        "",
        [Payload(1, b"\x92\x90\x80")],
    )
    stored = await story.client.bus.last(
        subjects.results_stream(story.client.workspace),
        subjects.call_record(story.client.workspace, again.call),
    )
    assert coding.decode(CallRecord, stored.data).num_inputs == 1
    assert (await listed(story)).letters[0].replayed_as == again.call


async def test_what_a_variant_gave_up_is_replayed_by_the_same_variant(story: Story, spec: Spec) -> None:
    methods, parameters = (MethodSpec("predict"),), (Parameter("size", "str", False, "small"),)
    model = spec("Model", cls=ClassSpec(methods, parameters))
    base = (await story.client.publish(story.app_id, model))["Model"]
    large = GetVariant(base.pool, {"size": "large"})
    variant = await story.client.ask("get_variant", large, FunctionHandle)
    named = await bury(story, pool=variant.pool, method="predict")
    assert (await listed(story)).letters[0].function == "Model.predict"
    newer = (await story.client.publish(story.app_id, replace(model, timeout=7.0)))["Model"]
    again = await story.client.ask("replay_dead", ReplayDead(named), Replayed)
    present = await story.client.ask("get_variant", replace(large, pool=newer.pool), FunctionHandle)
    stream = subjects.stream_of(present.prefix)
    (waiting,) = [one async for one in story.client.bus.read(stream, subjects.pool_inputs(present.prefix))]
    chunk = coding.decode(Chunk, waiting.data)
    assert (chunk.call, chunk.method) == (again.call, "predict")


async def test_what_cannot_run_is_not_replayed(story: Story) -> None:
    unreadable = await bury(story, readable=False)
    gone = await bury(story)
    await listed(story, 2)
    answer = await refused(story.client.ask("replay_dead", ReplayDead(unreadable), Replayed))
    assert "could not be read" in answer.message
    await story.client.stop(story.app_id)
    answer = await refused(story.client.ask("replay_dead", ReplayDead(gone), Replayed))
    assert answer.message == "the function f does not run any more"


async def test_requests_are_counted_once_however_often_they_are_told(story: Story) -> None:
    minute, pools = int(story.began // 60), story.pools
    earlier = RequestCount(pools["f"], minute - 1, 100)
    await story.tell(requests=(earlier, RequestCount(pools["f"], minute, 7)))
    await story.tell(requests=(RequestCount(pools["f"], minute, 9), RequestCount(pools["g"], minute, 2)))
    await story.tell(requests=(RequestCount(pools["f"], minute, 7),))
    await story.tell(requests=(RequestCount(pools["f"], minute, 5), earlier), source="wo-2")
    await story.tell(requests=(RequestCount("po-unknown", minute, 5),), source="wo-3")

    async def all_of(**asked: Any) -> RequestCounts:
        answer: RequestCounts = await story.client.ask(
            "count_requests", CountRequests(**asked), RequestCounts
        )
        return answer

    async def counted() -> RequestCounts | None:
        found = await all_of()
        return found if found.succeeded == 216 else None

    found = await until(counted)
    assert [(each.began, each.succeeded) for each in found.minutes][-1] == ((minute - 1) * 60.0, 200)
    assert sorted(each.succeeded for each in found.minutes) == [2, 14, 200]
    assert (await all_of(function="f", since=story.began)).succeeded == 14
    assert (await all_of(until=minute * 60.0)).succeeded == 200
    assert (await all_of(since=story.began, until=END_OF_YEARS)).succeeded == 16
    assert (await all_of(since=END_OF_YEARS, until=END_OF_YEARS)).succeeded == 0
    assert (await story.calls()).requests == 216
    assert (await story.calls(status="failure")).requests == 0


async def test_another_workspace_sees_nothing_and_can_tell_nothing(story: Story) -> None:
    mine, forged = ids.new(ids.CALL), ids.new(ids.CALL)
    named = await bury(story)
    await listed(story)
    await streams.apply_workspace(story.client.bus, "other")
    batch = RecordBatch("wo-1", [story.record(forged, State.SUCCESS, 0)])
    await story.client.bus.store(
        subjects.event("other", subjects.RECORDS, story.app_id), coding.encode(batch), msg_id="forged"
    )
    await story.tell(story.record(mine, State.SUCCESS, 0))
    await story.graph(mine)
    other = type(story.client)(story.client.bus, "other")
    for verb, request in (
        ("get_call_graph", GetCallGraph(mine)),
        ("get_call", GetCall(mine)),
        ("get_dead", GetDead(named)),
        ("replay_dead", ReplayDead(named)),
    ):
        assert (await refused(other.ask(verb, request, CallGraph))).code == "not_found"
    assert (await other.ask("list_calls", ListCalls(), CallList)).calls == ()
    assert (await other.ask("list_dead", ListDead(), DeadList)).letters == ()
    assert [one.call for one in (await story.calls()).calls] == [mine]
