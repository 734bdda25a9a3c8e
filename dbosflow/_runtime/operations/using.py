"""``current().use``: units that were really used, which correct the rate of the workflow's queue.

In a body the correction comes first, under the operation's key, and then its record. So a replay corrects nothing; if
the worker dies in between, the next one corrects again, and finds that the call has counted. A step has used something
in each of its attempts, so each counts, under the attempt's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbosflow._records.kinds import RecordKind
from dbosflow._records.pins import queue_of
from dbosflow._runtime.operations.ahead import until_durable
from dbosflow._runtime.operations.operation import DurableOperation
from dbosflow._runtime.runs.entries import Record
from dbosflow._store.used_units import UsedUnits

if TYPE_CHECKING:
    from dbosflow._runtime.execution.drivers import Driver
    from dbosflow._runtime.execution.run import Run, RunBranch, StepAttempt

_NAME = "use"


async def use(branch: RunBranch, units: int) -> None:
    """Makes units count that the workflow has used: once, in its body."""
    run = branch.run
    async with DurableOperation(branch, RecordKind.USE, _NAME, f"current().use({units})") as operation:
        key = operation.key

        async def live() -> Record:
            await until_durable(operation.driver, run)
            await _count(run, operation.driver, key, units, epoch=run.epoch)
            return Record(key, RecordKind.USE, output=str(units))

        await operation.outcome(live)


async def use_in_step(attempt: StepAttempt, driver: Driver, units: int) -> None:
    """Makes units count that an attempt of a step has used."""
    run = attempt.run
    await until_durable(driver, run)
    await _count(run, driver, f"{attempt.record_key}/{_NAME}{attempt.count_used()}", units, epoch=None)


async def _count(run: Run, driver: Driver, key: str, units: int, *, epoch: int | None) -> None:
    queue = queue_of(run.queue)
    if queue:  # what belongs to none has taken nothing of a rate
        await driver.wait(run, run.engine.use(UsedUnits(run.workflow_id, key, units, queue, epoch)))
