"""The times of cron expressions and intervals over a whole year, against what a clock on the wall shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from dbosflow.errors import ConfigurationError
from dbosflow.ticks import Cron, Interval, check_cron, check_every

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STEP, HOUR = timedelta(minutes=5), timedelta(hours=1)
ZONES = ["Europe/Oslo", "America/New_York", "Australia/Lord_Howe", "Antarctica/Troll"]
"""The clocks of the third change by half an hour, those of the last by two hours."""
YEAR = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)

# An expression, and the same for the clock on the wall.
FIXED: dict[str, Callable[[datetime], bool]] = {
    "30 2 * * *": lambda at: (at.hour, at.minute) == (2, 30),
    "0 0 * * *": lambda at: (at.hour, at.minute) == (0, 0),
    "15,45 1,2,3 * * *": lambda at: at.hour in {1, 2, 3} and at.minute in {15, 45},
    "30 1-5 * * SUN": lambda at: at.hour in range(1, 6) and at.minute == 30 and at.weekday() == 6,
    "0 2 29 3 *": lambda at: (at.month, at.day, at.hour, at.minute) == (3, 29, 2, 0),
}
SHOWN: dict[str, Callable[[datetime], bool]] = {
    "*/15 0-3 * * *": lambda at: at.hour < 4 and at.minute % 15 == 0,
    "0 * * * *": lambda at: at.minute == 0,
    "30 * * * *": lambda at: at.minute == 30,
    "45 */2 * * *": lambda at: at.hour % 2 == 0 and at.minute == 45,
    "*/20 2 * * *": lambda at: at.hour == 2 and at.minute % 20 == 0,
    "*/30 1 25 10 *": lambda at: (at.month, at.day, at.hour) == (10, 25, 1) and at.minute % 30 == 0,
}


@cache
def shown(zone: str) -> list[tuple[datetime, datetime]]:
    """Each five minutes of the year, and of the day before, with what a clock on the wall shows."""
    clock, found = ZoneInfo(zone), []
    at = YEAR[0] - 25 * HOUR
    while at < YEAR[1] + HOUR:
        found.append((at, at.astimezone(clock).replace(tzinfo=None)))
        at += STEP
    return found


def ticks(ticks: Cron | Interval, begin: datetime, end: datetime) -> Iterator[datetime]:
    """The ticks after ``begin`` and before ``end``."""
    at = ticks.after(begin)
    while at is not None and at < end:
        yield at
        at = ticks.after(at)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("expression", SHOWN)
def test_intervals_come_at_each_real_time_that_the_clock_shows(zone: str, expression: str) -> None:
    fits = SHOWN[expression]
    expected = [at for at, face in shown(zone) if fits(face) and YEAR[0] < at < YEAR[1]]
    assert list(ticks(Cron(expression, zone), *YEAR)) == expected


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("expression", FIXED)
def test_fixed_times_come_once_each_right_after_a_gap_and_at_the_first_of_two(zone: str, expression: str) -> None:
    fits, expected, seen = FIXED[expression], set(), set()
    for (before, face_before), (at, face) in pairwise(shown(zone)):
        skipped, step = face_before + STEP, face - face_before
        if step > STEP:  # the clock was put forward
            expected |= {at for n in range(step // STEP - 1) if fits(skipped + n * STEP)}
        if fits(face) and face not in seen:
            expected.add(at)
        seen.add(face)
        assert at - before == STEP
    assert list(ticks(Cron(expression, zone), *YEAR)) == sorted(at for at in expected if YEAR[0] < at < YEAR[1])


@pytest.mark.parametrize(
    ("zone", "expression", "after", "expected"),
    [
        ("Europe/Oslo", "30 2 * * *", "2026-03-28T12:00Z", "2026-03-29T01:00Z"),  # 02:30 does not exist: at 03:00
        ("Europe/Oslo", "30 2 * * *", "2026-03-29T01:00Z", "2026-03-30T00:30Z"),
        ("Europe/Oslo", "30 2 * * *", "2026-10-24T12:00Z", "2026-10-25T00:30Z"),  # the first 02:30
        ("Europe/Oslo", "30 2 * * *", "2026-10-25T00:30Z", "2026-10-26T01:30Z"),
        ("Europe/Oslo", "30 2 * * *", "2026-10-25T01:15Z", "2026-10-26T01:30Z"),  # asked during the second
        ("America/New_York", "@daily", "2026-07-01T12:00Z", "2026-07-02T04:00Z"),
        ("UTC", "0 0 29 2 *", "2026-01-01T00:00Z", "2028-02-29T00:00Z"),
        ("UTC", "0 0 L * *", "2026-02-01T00:00Z", "2026-02-28T00:00Z"),
        ("UTC", "*/10 * * * * *", "2026-02-01T00:00Z", "2026-02-01T00:00:10Z"),
        ("UTC", "* * * * *", "9999-12-31T23:59Z", None),
        ("America/New_York", "0 0 1 1 *", "9999-06-01T00:00Z", None),
    ],
)
def test_the_next_tick(zone: str, expression: str, after: str, expected: str | None) -> None:
    found = Cron(expression, zone).after(datetime.fromisoformat(after))
    assert found == (None if expected is None else datetime.fromisoformat(expected))


def test_an_interval_is_counted_from_1970() -> None:
    """So it does not matter when it was applied, or by whom."""
    at = datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert Interval(HOUR).after(at) == datetime(2026, 1, 1, 1, tzinfo=UTC)
    assert Interval(timedelta(days=7)).after(at) == datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=7)
    assert Interval(timedelta(seconds=1)).after(at) == at + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("expression", "timezone", "said"),
    [
        ("0 0 30 2 *", "UTC", "Bad day-of-month"),
        ("0 0 31 4,6 *", "UTC", "Bad day-of-month"),
        ("61 * * * *", "UTC", "Bad minute"),
        ("* * *", "UTC", "Wrong number of fields"),
        ("hourly", "UTC", "minute, hour, day of the month"),
        ("", "UTC", "minute, hour, day of the month"),
        (5, "UTC", "must be a text"),
        ("0 0 * * *", "Mars/Olympus", "tzdata"),
        ("0 0 * * *", "../../etc/passwd", "name of a time zone"),
        ("0 0 * * *", "", "name of a time zone"),
        ("0 0 * * *", None, "name of a time zone"),
        ("0 0 * * *", "Europe\0", "name of a time zone"),
    ],
)
def test_what_is_no_schedule_is_refused(expression: object, timezone: object, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        check_cron(expression, timezone)


@pytest.mark.parametrize("every", [0, -1, 0.5, 1.5, timedelta(milliseconds=1), "1", None, 1e300])
def test_an_interval_is_of_whole_seconds(every: object) -> None:
    with pytest.raises(ConfigurationError, match="every"):
        check_every(every)
