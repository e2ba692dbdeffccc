"""What a new version makes of the schedules of an app."""

from dataclasses import replace
from typing import Any

from tidemill._wire import coding, subjects
from tidemill._wire.schedules import Fired, Firing
from tidemill._wire.specs import FunctionSpec, Pool, Source
from tidemill_common import streams
from tidemill_registry.schedules import Changes, Kept, changes, upcoming

CRON: dict[str, Any] = {"kind": "cron", "cron": "0 9 * * *", "timezone": "Europe/Berlin"}
DAILY: dict[str, Any] = {"kind": "period", "days": 1}
MONTHLY: dict[str, Any] = {"kind": "period", "months": 1}
MADE = 1_800_000_000.0


def pool(schedule: dict[str, Any] | None, name: str = "po-1", function: str = "fu-1") -> Pool:
    return Pool(
        name, "ap-1", "app", function, "main", "main", "cpu", 0, "INPUTS_cpu_0", f"prefix.{name}",
        FunctionSpec("f", Source(), schedule=schedule),
    )  # fmt: skip


def changed(before: dict[str, Any] | None, *after: Pool) -> Changes:
    """Return what becomes of version 1, in which `po-1` served `fu-1` with a schedule."""
    standing = [Kept("sc-1", "fu-1", before, 1, "po-1")] if before else []
    return changes("main", standing, after, 2, MADE, lambda prefix: f"{prefix}-new")


def test_a_new_schedule_is_set_for_the_pool_that_serves_its_function() -> None:
    made = changed(None, pool(CRON), pool(None, "po-2", "fu-2"))
    (entry,) = made.told
    assert (entry.kind, entry.target) == ("timer", subjects.schedule_timer("main", "sc-new"))
    assert entry.headers == {
        "Nats-Schedule": "0 0 9 * * *",
        "Nats-Schedule-Time-Zone": "Europe/Berlin",
        "Nats-Schedule-Target": subjects.schedule_due("main", "sc-new"),
    }
    assert entry.body is not None
    assert coding.decode(Firing, entry.body) == Firing(
        "sc-new", 2, "po-1", "prefix.po-1", "main", "ap-1", "fu-1", CRON, anchor=MADE
    )
    assert made.kept == (Kept("sc-new", "fu-1", CRON, 2, "po-1"),)


def test_a_cron_that_stays_keeps_its_timer_whatever_else_changes() -> None:
    made = changed(CRON, pool(CRON, "po-9"))
    assert made.told == ()
    assert made.kept == (Kept("sc-1", "fu-1", CRON, 2, "po-9"),)


def test_a_cron_that_changes_is_set_again_under_its_id() -> None:
    (entry,) = changed(CRON, pool(CRON | {"timezone": "UTC"})).told
    assert entry.target == subjects.schedule_timer("main", "sc-1")
    assert "Nats-Schedule-Time-Zone" not in entry.headers


def test_a_period_counts_anew_with_each_version() -> None:
    (entry,) = changed(DAILY, pool(DAILY)).told
    assert entry.headers["Nats-Schedule"] == "@every 86400s"


def test_a_period_of_months_is_set_for_its_first_moment() -> None:
    (entry,) = changed(None, pool(MONTHLY)).told
    assert entry.body is not None
    firing = coding.decode(Firing, entry.body)
    assert (firing.anchor, firing.armed) == (MADE, MADE)
    assert 28 * 86_400 <= firing.due - MADE <= 31 * 86_400
    assert entry.headers["Nats-Schedule"].startswith("@at 2027-02-15T")


def test_what_is_no_longer_scheduled_is_removed() -> None:
    for after in ((), (pool(None),)):
        made = changed(CRON, *after)
        assert (made.kept, made.removed) == ((), ("sc-1",))
        assert [(entry.kind, entry.target, entry.key) for entry in made.told] == [
            ("untimer", subjects.schedule_timer("main", "sc-1"), ""),
            ("delete", streams.FIRINGS, "sc-1"),
        ]


def test_what_comes_next_is_what_nats_said_unless_that_is_out_of_date() -> None:
    far = 4_000_000_000.0
    fired = Fired("sc-1", MADE + 1, "fc-1", far)
    assert upcoming(CRON, MADE, fired) == far
    assert upcoming(CRON, MADE + 2, fired) < far  # a later version has set it anew
    assert upcoming(CRON, MADE, replace(fired, next=MADE + 2)) < far
    assert upcoming(CRON, MADE, None) < far
