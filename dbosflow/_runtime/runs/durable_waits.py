"""Durable waits: what an operation waits for in such a way that its run could leave memory meanwhile.

An operation says what it waits for as a ``DurableWait``, which its driver adds to the run for the time of the wait.
When every branch of a run waits so, the run may be suspended: its body is unwound, and its workflow waits in the
tables. The next pass repeats the operation, which waits again or finds what it waited for. So what the operation has
done before must be on record, and what it waits for must be found in the tables.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow._store.waiter import Target


class Standing(NamedTuple):
    """What an operation waits for now. Times are those of ``time.monotonic``."""

    targets: tuple[Target, ...] = ()
    """Any of these ends the wait."""
    due: float | None = None
    """When the wait is over by itself, as a record of the workflow says."""
    until: float | None = None
    """The same, if it may be on no record yet: a suspension writes it, under ``<the wait's key>/until``."""


class DurableWait:
    """The wait of one operation: for what its ``standing`` says, or a function that returns that or why not."""

    __slots__ = ("_standing", "key")

    def __init__(self, standing: Standing | Callable[[], Standing | str], *, key: str = "") -> None:
        self._standing = standing
        self.key = key
        """The key of the operation, if its ``until`` is to go on record."""

    def standing(self) -> Standing | str:
        """What the operation waits for now; or why its run has to stay in memory."""
        return self._standing if isinstance(self._standing, Standing) else self._standing()


def pause_of(seconds: float) -> DurableWait:
    """The wait for the end of a pause, which is on record: a sleep, or the time before a step's next attempt."""
    return DurableWait(Standing(due=time.monotonic() + seconds))


def elsewhere() -> DurableWait:
    """The wait for something that is not in the tables of the run's engine."""
    return DurableWait(lambda: "what another engine is to bring")
