"""Whole days through the scheduler, on which the clocks of two zones change: each tick starts its workflow once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.schedules.world import World

DAYS = [("Europe/Oslo", "2026-03-29"), ("Europe/Oslo", "2026-10-25")]
DAYS += [("America/New_York", "2026-03-08"), ("America/New_York", "2026-11-01")]
LOOKS = timedelta(minutes=7)
"""Between two looks: some find nothing, some find two ticks."""

SHOWN: dict[str, Callable[[datetime], bool]] = {
    "*/15 * * * *": lambda at: at.minute % 15 == 0,
    "0 * * * *": lambda at: at.minute == 0,
    "*/20 2 * * *": lambda at: at.hour == 2 and at.minute % 20 == 0,
}
"""At each real time at which a clock on the wall shows this."""


def wanted(day: datetime, end: datetime, zone: ZoneInfo) -> dict[str, list[datetime]]:
    """The ticks of each schedule, by a walk over the minutes of the day."""
    minutes = [day + timedelta(minutes=number) for number in range(1, int((end - day).total_seconds()) // 60 + 1)]
    clock = {at: at.astimezone(zone).replace(tzinfo=None) for at in minutes}
    found = {cron: [at for at in minutes if is_one(clock[at])] for cron, is_one in SHOWN.items()}
    half = {clock[at].date(): at for at in reversed(minutes) if (clock[at].hour, clock[at].minute) == (2, 30)}
    gap = [at for at in minutes if clock[at] - clock.get(at - timedelta(minutes=1), clock[at]) > timedelta(minutes=1)]
    found["30 2 * * *"] = sorted([*gap, *half.values()])  # right after a gap, or at the first of two
    found["every"] = [at for at in minutes if at.timestamp() % 2700 == 0]
    return found


@pytest.mark.parametrize(("zone", "date"), DAYS, ids=lambda one: one)
async def test_each_tick_of_a_day_on_which_the_clocks_change(world: World, zone: str, date: str) -> None:
    """The clock is moved over the day and the hours around it, by two schedulers in turn."""
    day = datetime.fromisoformat(date).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    end = day + timedelta(hours=26)
    ticks = wanted(day, end, ZoneInfo(zone))
    world.set_clock(day)
    for name in ticks:
        times = {"every": 2700} if name == "every" else {"cron": name, "timezone": zone}
        await world.apply(name, **times)
    other, now, number = world.scheduler(), day, 0
    while now < end:
        now, number = min(now + LOOKS, end), number + 1
        await world.at(now, scheduler=other if number % 2 else None)
    await other.close()
    found = {name: await world.started(name) for name in ticks}
    assert found == {name: [f"{at:%Y-%m-%dT%H:%M:%S}" for at in times] for name, times in ticks.items()}
    assert len(ticks["30 2 * * *"]) == (2 if date < "2026-06" else 1)  # a day of 23 hours, and some of the next
    assert {(await world.info(name)).missed for name in ticks} == {0}
