"""Relaxed steps: their outcomes are recorded in order, and the program goes on before they are durable (see ``ahead``).

What fails is durable at once, as in any step: an attempt that is forgotten would not count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow._runtime.operations.retrying import Attempts

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from dbosflow._runtime.runs.entries import Record


class RelaxedAttempts(Attempts):
    """The attempts of a relaxed step in this pass."""

    waits_for_outcomes = False

    def _conclude(self, record: Record, error: BaseException | None, failures: int) -> Awaitable[None]:
        """Hands a value on at once; waits until the record of a final failure is durable."""
        if error is not None:
            return super()._conclude(record, error, failures)
        return self._driver.hand_on(self._run, record)
