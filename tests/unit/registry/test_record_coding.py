"""Records are the same bytes whoever makes them."""

from tidemill._wire import coding
from tidemill._wire.control import FunctionHandle
from tidemill._wire.specs import FunctionSpec, ImageSpec, Pool, Resources, Source
from tidemill_registry import records

SPEC = FunctionSpec(
    "f",
    Source(("digest",), "m", "f"),
    ImageSpec((("env", {"vars": {"A": "ü"}}), ("workdir", {"path": "/"}))),
    secrets=("st-1",),
    resources=Resources(cpu=1.0, gpus=(("T4", 1),)),
    schedule={"kind": "cron", "cron": "* * * * *"},
    labels={"region": ("eu",)},
    options={"bytes": b"\0", "deep": [1, None, 2.5]},
)
POOL = Pool(
    "po-1", "ap-1", "app", "fu-1", "main", "main", "cpu", 3, "INPUTS_cpu_3", "tm.inputs", SPEC,
    {"f": FunctionHandle("fu-1", "f", "ap-1", "po-1", "tm.inputs", timeout=7.0)}, superseded=True,
)  # fmt: skip


def test_records_are_what_the_wire_format_says() -> None:
    assert records.encode(POOL) == coding.encode(POOL)
    assert records.encode(SPEC) == coding.encode(SPEC)


def test_records_are_read_as_they_were_written() -> None:
    written = records.encode(POOL)
    assert records.pool(written) == coding.decode(Pool, written)
    assert records.encode(records.pool(written)) == written
    assert records.encode(records.spec(records.encode(SPEC))) == records.encode(SPEC)


def test_records_of_an_older_version_read_with_defaults() -> None:
    older = {
        key: value
        for key, value in coding.decode(dict, records.encode(POOL)).items()
        if key not in ("superseded", "generation", "strategy")
    }
    pool = records.pool(coding.encode(older))
    assert (pool.superseded, pool.generation, pool.strategy) == (False, 0, "rolling")
