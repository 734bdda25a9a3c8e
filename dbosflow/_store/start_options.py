"""The columns of a start that most starts leave empty: they travel only if some start in the statement has one."""

from __future__ import annotations

import time
from typing import NamedTuple


class StartOptions(NamedTuple):
    """The optional columns of a start, and its attributes.

    A field ``x`` is the parameter ``:option_x`` of the section ``options``.

    The statements are ``started`` in ``sql/batch.sql`` and ``enqueue`` in ``sql/workflow.sql``.
    """

    timeout: float | None = None
    """Seconds from the statement until its deadline."""
    deadline: float | None = None
    """The deadline in seconds since 1970, by the database's clock."""
    max_recoveries: int | None = None
    """How often its workers may die in a row without a new record, in place of the engine's setting."""
    attributes: str | None = None
    """A JSON object of names and the JSON of their values, for the table ``attribute``."""

    def ends_within(self, seconds: float) -> bool:
        """Whether the deadline comes so soon that other processes are told of it."""
        remaining = self.remaining()
        return remaining is not None and remaining <= 2 * seconds

    def remaining(self) -> float | None:
        """About how many seconds there are until the deadline, by the clock of this process."""
        ends = [self.timeout, None if self.deadline is None else max(self.deadline - time.time(), 0.0)]
        return min((seconds for seconds in ends if seconds is not None), default=None)


NO_OPTIONS = StartOptions()
