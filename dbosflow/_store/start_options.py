"""What most starts leave empty: columns, which travel only if some start in the statement has one, and the key."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, get_args

from dbosflow.attributes import attributes_text
from dbosflow.config import LARGEST_INTEGER, check_duration, check_identifier, check_moment, check_whole, shown
from dbosflow.errors import ConfigurationError
from dbosflow.types import OnDuplicate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    from dbosflow.attributes import Attribute


class StartOptions(NamedTuple):
    """The optional columns of a start, and its attributes.

    A field ``x`` is the parameter ``:option_x`` of the section ``options``.

    The statements are ``started`` in ``sql/batch.sql`` and ``enqueue`` in ``sql/workflow.sql``.
    """

    timeout: float | None = None
    """Seconds until its deadline, from the statement or from the time for which the start is scheduled."""
    deadline: float | None = None
    """The deadline in seconds since 1970, by the database's clock."""
    max_recoveries: int | None = None
    """How often its workers may die in a row without a new record, in place of the engine's setting."""
    attributes: str | None = None
    """A JSON object of names and the JSON of their values, for the table ``attribute``."""
    delay: float | None = None
    """Seconds from the statement until it may begin; ``run_at`` is ``None`` then."""
    run_at: float | None = None
    """The time from which on it may begin, in seconds since 1970, by the database's clock."""
    units: int | None = None
    """What it takes of the rate of its queue, in place of one."""

    @property
    def is_scheduled(self) -> bool:
        """Whether it is to begin at a time, which may have come."""
        return self.delay is not None or self.run_at is not None

    def is_urgent(self, seconds: float) -> bool:
        """Whether its time or its deadline comes so soon that the alarms of other processes are told of it."""
        moments = [self._wait(), self.remaining()]
        return any(moment is not None and moment <= 2 * seconds for moment in moments)

    def remaining(self) -> float | None:
        """About how many seconds there are until the deadline, by the clock of this process."""
        allowed = None if self.timeout is None else (self._wait() or 0.0) + self.timeout
        ends = [allowed, None if self.deadline is None else max(self.deadline - time.time(), 0.0)]
        return min((seconds for seconds in ends if seconds is not None), default=None)

    def _wait(self) -> float | None:
        """About how many seconds there are until it may begin, if it is scheduled."""
        if self.delay is not None or self.run_at is None:
            return self.delay
        return max(self.run_at - time.time(), 0.0)


NO_OPTIONS = StartOptions()


def checked_options(
    timeout: float | timedelta | None,
    deadline: datetime | None,
    attributes: Mapping[str, Attribute] | None,
    *,
    delay: float | timedelta | None,
    run_at: datetime | None,
    units: int | None,
) -> StartOptions | None:
    """The optional columns, checked; ``None`` if the start has none. Raises a ``ConfigurationError``."""
    if delay is not None and run_at is not None:
        msg = "delay and run_at both say when the workflow begins: give one of them"
        raise ConfigurationError(msg)
    optional = StartOptions(
        timeout=None if timeout is None else check_duration("timeout", timeout),
        deadline=None if deadline is None else check_moment("deadline", deadline).timestamp(),
        attributes=None if attributes is None else attributes_text(attributes),
        delay=None if delay is None else check_duration("delay", delay),
        run_at=None if run_at is None else check_moment("run_at", run_at).timestamp(),
        units=units,
    )
    return None if optional == NO_OPTIONS else optional


def checked_units(units: object, queue: str | None) -> int | None:
    """The units of a start in ``queue``, checked; ``None`` for one. Raises a ``ConfigurationError``."""
    found = check_whole("units", units, 1, LARGEST_INTEGER)
    if found == 1:
        return None
    if queue is None:
        msg = f"units={found} are taken of the rate of a queue: add queue=..."
        raise ConfigurationError(msg)
    return found


class Dedup(NamedTuple):
    """The key of a deduplicated start."""

    key: str
    policy: OnDuplicate
    """What to do if a workflow of the queue has the key."""
    longest: float | None = None
    """Seconds for which replacements put a workflow off, at most."""


def checked_dedup(
    key: str | None,
    on_duplicate: OnDuplicate,
    replace_within: float | timedelta | None,
    options: StartOptions | None,
) -> Dedup | None:
    """The key of a start with its policy, checked; ``None`` if it has none. Raises a ``ConfigurationError``."""
    if on_duplicate not in get_args(OnDuplicate):
        msg = f"on_duplicate={shown(on_duplicate)} must be one of {', '.join(map(repr, get_args(OnDuplicate)))}"
        raise ConfigurationError(msg)
    if key is None:
        if on_duplicate != "existing" or replace_within is not None:
            msg = "on_duplicate and replace_within are about starts with one key: add dedup_key=..."
            raise ConfigurationError(msg)
        return None
    check_identifier("dedup_key", key)
    is_put_off = options is not None and options.is_scheduled
    if on_duplicate == "cancel_running" and is_put_off:
        msg = "on_duplicate='cancel_running' begins when the one before is over: leave out delay and run_at"
        raise ConfigurationError(msg)
    if replace_within is None:
        return Dedup(key, on_duplicate)
    if on_duplicate != "replace" or not is_put_off:
        msg = "replace_within is the longest time that on_duplicate='replace' with a delay or run_at puts a start off"
        raise ConfigurationError(msg)
    return Dedup(key, on_duplicate, check_duration("replace_within", replace_within))
