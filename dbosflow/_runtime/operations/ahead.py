"""Outcomes that a program has before they are durable: draws, and those of relaxed steps.

```text
draw, or body of a relaxed step over ──► record in the run's buffer ──► the program goes on ──► batch ──► durable
                                                 └── the run stops, or its worker dies: forgotten, with all behind it
```

Everything that the run writes goes in the order of the buffer, and a block of a stream ends at such a record. So
nothing that follows from an outcome is durable before it, and a crash forgets a suffix of what the program has seen.
What leaves the process by another way waits in ``until_durable``: the body of an ordinary step, a message, a request to
cancel.

In a run with branches, the order in which outcomes are delivered is on record, too: by turns. A relaxed outcome has a
turn of its own, behind all that the buffer holds. So if another outcome waits there for its commit, the relaxed one
waits with it, like that of an ordinary step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbosflow._runtime.execution.drivers import Driver
    from dbosflow._runtime.execution.run import Run


async def until_durable(driver: Driver, run: Run) -> None:
    """Waits for what the program has already, before something leaves the process that may follow from it.

    And for the row of the workflow, if a relaxed step has begun before that.
    """
    if run.buffer.ahead or run.opening is not None:
        await driver.durable(run)
