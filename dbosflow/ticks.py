"""The times of a schedule: a cron expression in a time zone, or an interval. Whole seconds; only arithmetic, no clock.

The expression is read by ``cronsim``, which does what Debian's cron does, but only on the face of a clock without a
time zone. What a change of the clocks means is decided here, by the rule of Vixie cron (cron(8), "Daylight Saving Time
and other time changes"):

```text
fixed times       neither the minute nor the hour begins with a star: one tick for each time on the clock's face
                  in a gap:     once, at the end of the gap, however many of its times fall into the gap
                  in an overlap: once, at the first of the two
everything else   a tick at each real moment at which the clock shows a time of the expression
                  in a gap:     the clock does not show those times, so there is no tick
                  in an overlap: at both
```

An interval is counted from 1970-01-01T00:00:00Z, whatever the clocks show.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from dbosflow.config import check_duration, shown
from dbosflow.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECOND = timedelta(seconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LOOK_EVERY = timedelta(hours=6)
"""No zone changes its offset twice within this time."""
_FAR, _NEAR = timedelta(days=4), timedelta(days=2)
"""Offsets differ by less than ``_NEAR``. So of the changes on the way to a tick that is ``_FAR`` away only those count
that are near to the begin, since the clock may show a time again, or near to the tick."""
_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class Ticks(Protocol):
    """The times of a schedule."""

    def after(self, moment: datetime) -> datetime | None:
        """The first tick after a moment, in UTC; ``None`` if none comes before the year 10000."""


@dataclass(frozen=True)
class Interval:
    """A tick each so many seconds, counted from 1970."""

    every: timedelta

    def after(self, moment: datetime) -> datetime | None:
        """See ``Ticks``."""
        try:
            return _EPOCH + ((moment - _EPOCH) // self.every + 1) * self.every
        except OverflowError:
            return None


@dataclass(frozen=True)
class Cron:
    """The ticks of a cron expression in a time zone."""

    expression: str
    timezone: str

    @cached_property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    @cached_property
    def _text(self) -> str:
        return _NAMED.get(self.expression.strip().lower(), self.expression)

    @cached_property
    def _is_of_fixed_times(self) -> bool:
        *_, minute, hour, _, _, _ = self._text.split()
        return not minute.startswith("*") and not hour.startswith("*")

    def after(self, moment: datetime) -> datetime | None:
        """See ``Ticks``."""
        try:
            return self._fixed_after(moment) if self._is_of_fixed_times else self._shown_after(moment)
        except (OverflowError, StopIteration):  # the calendar's end; or no such day for 50 years
            return None

    def _fixed_after(self, moment: datetime) -> datetime:
        """The first moment that stands for one of the times, each of which has one moment."""
        for time in self._times(moment.astimezone(self._zone).replace(tzinfo=None)):
            found = self._moment_of(time)
            if found > moment:  # else the time was there before, and the clock shows it again
                return found
        raise StopIteration

    def _shown_after(self, moment: datetime) -> datetime:
        """The first moment at which the clock shows one of the times.

        As long as the offset of the zone stays, the next one is as far away as on the face of the clock. Where the
        offset changes on the way, the search begins anew with the clock as it is then.
        """
        begin, offset = moment, self._offset(moment)
        while True:
            found = (next(self._times((begin + offset).replace(tzinfo=None))) - offset).replace(tzinfo=UTC)
            end = found if found - begin <= _FAR else begin + _NEAR
            change = self._change(begin + _SECOND, end, offset)
            if change is not None:
                begin, offset = change - _SECOND, self._offset(change)
            elif end == found:
                return found
            else:
                begin = found - _NEAR
                offset = self._offset(begin)

    def _times(self, after: datetime) -> Iterator[datetime]:
        """The times of the expression on the face of a clock."""
        return CronSim(self._text, after)

    def _moment_of(self, time: datetime) -> datetime:
        """The first moment at which the clock shows a time; of a time that it skips, the end of the gap."""
        moment = time.replace(tzinfo=self._zone).astimezone(UTC)
        if moment.astimezone(self._zone).replace(tzinfo=None) == time:
            return moment
        before = time.replace(tzinfo=self._zone, fold=1).astimezone(UTC)
        return self._change(before, moment, self._offset(before)) or moment

    def _change(self, begin: datetime, end: datetime, offset: timedelta) -> datetime | None:
        """The first second from ``begin`` to ``end`` at which the offset is another one."""
        same, other = begin - _SECOND, begin
        while self._offset(other) == offset:
            if other >= end:
                return None
            same, other = other, min(other + _LOOK_EVERY, end)
        while other - same > _SECOND:
            middle = same + (other - same) // 2 // _SECOND * _SECOND
            if self._offset(middle) == offset:
                same = middle
            else:
                other = middle
        return other

    def _offset(self, moment: datetime) -> timedelta:
        return moment.astimezone(self._zone).utcoffset() or timedelta()


def ticks_of(cron: str | None, every: float | None, timezone: str) -> Ticks:
    """The times of a stored schedule: ``every`` is in seconds."""
    return Interval(timedelta(seconds=every)) if cron is None else Cron(cron, timezone)  # type: ignore[arg-type]


def check_cron(expression: object, timezone: object) -> None:
    """Raises a ``ConfigurationError`` unless the expression and the time zone are valid, and some tick comes."""
    if not isinstance(timezone, str) or not _is_zone(timezone):
        msg = (
            f"timezone={shown(timezone)} must be the name of a time zone, such as 'Europe/Oslo'. They come with the "
            "system, or with the package tzdata"
        )
        raise ConfigurationError(msg)
    if not isinstance(expression, str):
        msg = f"cron={shown(expression)} must be a text, such as '0 3 * * *'"
        raise ConfigurationError(msg)
    try:
        CronSim(_NAMED.get(expression.strip().lower(), expression), datetime.now(UTC))
        first = Cron(expression, timezone).after(datetime.now(UTC))
    except CronSimError as error:
        msg = (
            f"cron={shown(expression)} is no cron expression: {error}. Write minute, hour, day of the month, month and "
            "day of the week, such as '0 3 * * MON-FRI'; seconds may come first"
        )
        raise ConfigurationError(msg) from error
    if first is None:
        raise ConfigurationError(f"cron={expression!r} never comes: there is no such day")


def check_every(every: object) -> float:
    """The seconds of an interval. Raises a ``ConfigurationError`` unless it is one of whole seconds."""
    seconds = check_duration("every", every)
    if seconds != int(seconds):
        raise ConfigurationError(f"every={shown(every)} must be a whole number of seconds")
    return int(seconds)


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
