"""The moments that a crontab expression names are those at which NATS fires it."""

import asyncio
import random
import struct
import time
import zoneinfo
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest
from waiting import until

from tidemill import _crontab
from tidemill._bus.protocol import Stored
from tidemill._crontab import Crontab, Values
from tidemill._wire import subjects
from tidemill_common import schedules, streams
from tidemill_common.bus import nats
from tidemill_common.bus.protocol import ServiceBus
from tidemill_local.broker import Broker

EACH = 60  # expressions in each zone
AHEAD = (4.0, 12.0, 30.0)  # seconds until they fire: longer where storing them took too long
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Sydney")


def zone_file(folder: Path, name: str, changes: list[tuple[float, int]]) -> None:
    """Write a time zone: from each unix time on it is so many seconds ahead of UTC."""
    first = changes[0][1] if changes else 0
    kinds = sorted({first, *(offset for _, offset in changes)})
    data = b"TZif\0" + bytes(15) + struct.pack(">6l", 0, 0, 0, len(changes), len(kinds), 4)
    data += b"".join(struct.pack(">l", int(at)) for at, _ in changes)
    data += bytes(kinds.index(offset) for _, offset in changes)
    data += b"".join(struct.pack(">lBB", offset, 0, 0) for offset in kinds) + b"TST\0"
    (folder / name).write_bytes(data)


@pytest.fixture
async def bus(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ServiceBus]:
    """A server for which, as for Python, two zones change their clocks at the next full hour."""
    at = (time.time() // 3_600 + 1) * 3_600
    zone_file(tmp_path, "Forward", [(at - 400 * 86_400, 3_600), (at, 7_200)])
    zone_file(tmp_path, "Back", [(at - 400 * 86_400, 7_200), (at, 3_600)])
    monkeypatch.setenv("ZONEINFO", str(tmp_path))
    path = [str(tmp_path), *zoneinfo.TZPATH]
    zoneinfo.reset_tzpath(path)
    broker.kill()
    await broker.start()
    bus = await nats.connect(broker.url, "service", broker.settings.passwords["service"])
    await streams.apply(bus)
    yield bus
    await bus.close()
    zoneinfo.reset_tzpath(path[1:])
    zoneinfo.ZoneInfo.clear_cache(only_keys=["Forward", "Back"])


def with_now(crontab: Crontab, now: datetime) -> Crontab:
    """Return an expression that fits this minute too."""

    def also(values: Values, value: int) -> Values:
        return values if values.any else Values(tuple(sorted({*values.values, value})))

    return Crontab(
        also(crontab.minutes, now.minute),
        also(crontab.hours, now.hour),
        also(crontab.days, now.day),
        also(crontab.months, now.month),
        also(crontab.weekdays, now.isoweekday() % 7),
    )


def field(low: int, high: int) -> str:
    """Return some field of an expression."""
    pick = sorted(random.choices(range(low, high + 1), k=2))
    forms = ("*", "*", f"{pick[0]}", f"{pick[0]}-{pick[1]}", f"*/{random.randint(2, 9)}", f"{pick[0]},{high}")
    return random.choice(forms)


def expression(now: datetime) -> Crontab:
    """Return some expression; in zones that change their clocks one that goes on in an hour near it."""
    fields = [field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 7)]
    if now.tzname() == "TST":
        near = sorted({(now.hour + some) % 24 for some in random.choices(range(4), k=2)})
        fields = [str(random.randint(0, now.minute)), ",".join(map(str, near)), "*", "*", "*"]
    return _crontab.read(" ".join(fields))


async def test_nats_fires_when_the_expression_says(bus: ServiceBus) -> None:
    for ahead in AHEAD:
        wanted, target = await store_all(bus, ahead)
        if time.time() < target - 1:
            break
        await bus.purge(streams.TIMERS.name, ">")
    second = int(target) % 60
    fired = await all_fired(bus, len(wanted))
    for name, upcoming in fired.items():
        crontab, zone = wanted[name]
        # Schedules fire at the beginning of a minute, these at one of its seconds.
        after = crontab.after(int(target) - second, zoneinfo.ZoneInfo(zone)) + second
        assert upcoming == after, f"{crontab.pattern!r} in {zone}"


async def store_all(bus: ServiceBus, ahead: float) -> tuple[dict[str, tuple[Crontab, str]], float]:
    """Store schedules that fire `ahead` seconds from now; return them with their zones, and when that is."""
    target = time.time() + ahead
    second = int(target) % 60
    wanted: dict[str, tuple[Crontab, str]] = {}
    stores = []
    for zone in (*ZONES, "Forward", "Back"):
        for number in range(EACH):
            now = datetime.fromtimestamp(target, zoneinfo.ZoneInfo(zone))
            crontab = with_now(expression(now), now)
            name = f"sc-{zone.replace('/', '_')}-{number}"
            wanted[name] = crontab, zone
            headers = {
                "Nats-Schedule": f"{second} {crontab.pattern.removeprefix('0 ')}",
                "Nats-Schedule-Target": subjects.schedule_due("main", name),
                "Nats-Schedule-Time-Zone": zone,
            }
            stores.append(bus.store(subjects.schedule_timer("main", name), b"", headers=headers))
    await asyncio.gather(*stores)
    return wanted, target


async def all_fired(bus: ServiceBus, count: int) -> dict[str, float | None]:
    """Return when NATS fires each schedule next, as soon as all of them have fired."""

    async def due() -> list[Stored] | None:
        found = [one async for one in bus.read(streams.TIMERS.name, "tm.due.>")]
        return found if len(found) >= count else None

    fired = await until(due)
    return {subjects.schedule_of(one.subject): schedules.next_firing(one.headers) for one in fired}
