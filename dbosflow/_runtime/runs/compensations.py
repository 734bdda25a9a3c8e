"""The compensations of a run: those that its body has registered, and what is on record of carrying them out.

```text
body raises ───────────────────────────────► over ──► compensating (on record) ──► each once, the last one first ──► end
request ──► cancelled (on record) ──► its turn: the body is notified ──► over ──► compensating ...
```

Both records are needed for one reason: the next owner must find the same compensations. So the moment at which the body
is notified of a request is an outcome with a turn, which a replay repeats, and what is carried out has a branch of its
own, which the body's replay does not see.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from dbosflow._records.keys import CANCELLED, COMPENSATING, is_of_compensations

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Mapping

    from dbosflow._runtime.runs.entries import Record
    from dbosflow._store.step import History, Recorded
    from dbosflow.definitions import StepDef

UNDONE = "that it failed here, and was being undone"
"""What the records hold where a body's compensations have begun, for the error that parks the workflow."""


class Compensation(NamedTuple):
    """A step that undoes something."""

    step: StepDef
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class Compensations:
    """The compensations of one run whose workflow compensates."""

    __slots__ = ("begun", "carry_out", "delivered", "delivered_by", "delivery", "history", "left", "notes", "under_way")

    def __init__(self, past: History) -> None:
        self.left: list[Compensation] = []
        """Those that are registered and not carried out."""
        self.carry_out: Callable[[Any], Awaitable[None]] | None = None
        """Carries them out in a branch, once any is registered."""
        self.notes: list[str] = []
        """What failed of it."""
        self.under_way = False
        """Whether the body is over, and they are being carried out."""
        self.delivery: asyncio.Future[None] | None = None
        """Done when the record of the delivery is durable, and its turn has come."""
        records = past.records
        self.delivered: Recorded | None = records.get(CANCELLED)
        """The record that a request was delivered to the body."""
        self.delivered_by: Record | None = None
        """The same, if it is of this pass."""
        self.begun: Recorded | None = records.get(COMPENSATING)
        """The record that the body was over and its compensations began."""
        self.history: History = replace(
            past,
            records={key: record for key, record in records.items() if is_of_compensations(key)},
            failures={key: failed for key, failed in past.failures.items() if is_of_compensations(key)},
            loops={},
        )
        """What is on record of carrying them out."""

    def register(self, compensation: Compensation, carry_out: Callable[[Any], Awaitable[None]]) -> None:
        """Registers a compensation."""
        self.left.append(compensation)
        self.carry_out = carry_out


def of_body(past: History, *, is_async: bool) -> History:
    """What of a history the body replays. A thread repeats no turns: it finds the place of the delivery by itself."""
    records = {
        key: record
        for key, record in past.records.items()
        if not is_of_compensations(key) and (is_async or key != CANCELLED)
    }
    failures = {key: failed for key, failed in past.failures.items() if not is_of_compensations(key)}
    return replace(past, records=records, failures=failures)
