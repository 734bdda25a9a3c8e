"""The steps and sleeps of a body. Each operation is written once, for both colours (see ``drivers``)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from dbosflow._records.keys import WOKEN
from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.execution.recorded_values import failure, load
from dbosflow._runtime.execution.scope import current_scope
from dbosflow._runtime.operations.operation import DurableOperation
from dbosflow._runtime.operations.plain_calls import run_plainly_async
from dbosflow._runtime.operations.relaxed import RelaxedAttempts
from dbosflow._runtime.operations.retrying import Attempts
from dbosflow._runtime.operations.transacting import TransactionAttempts
from dbosflow._runtime.replay.branch import Branch
from dbosflow._runtime.runs.entries import Record
from dbosflow.errors import StepFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbosflow._runtime.execution.run import Run, RunBranch
    from dbosflow._store.step import Recorded
    from dbosflow.definitions import StepDef

_STEP = RecordKind.STEP  # once: Python 3.11 takes its time to look up a member


async def run_step(step: StepDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Returns the outcome of a step, from its record or from running it now, in the branch that awaits this."""
    branch = current_scope()
    if not isinstance(branch, Branch):  # carried out of the workflow, or into a step
        return await run_plainly_async(step, args, kwargs)
    run = branch.run
    kind = step.record_kind
    async with DurableOperation(branch, kind, step.name, step) as operation:
        key, record = operation.key, operation.record
        if record is not None:
            await operation.replayed()
            return _outcome(run, record, step)
        attempts = _attempts(step)(operation.driver, branch, key, step)
        made, value, error = await attempts.until_final(run.history.failures.get(key, ()), args, kwargs)
        if error is not None:
            raise failure_again(run, made.error or "", f"key {key!r}", live=error)
        return value


def _attempts(step: StepDef) -> type[Attempts]:
    if step.record_kind is not _STEP:
        return TransactionAttempts
    return RelaxedAttempts if step.relaxed else Attempts


async def sleep(branch: RunBranch, seconds: float) -> None:
    """Sleeps until a wake time that is on record: a restart neither begins the sleep anew nor ends it early."""
    run = branch.run
    async with DurableOperation(branch, RecordKind.SLEEP, "sleep", "sleep") as operation:
        key, record, driver = operation.key, operation.record, operation.driver
        if record is None:
            delay = seconds + run.environment.clock.ahead
            await operation.commit(Record(key, RecordKind.SLEEP, delay=delay))
            remaining = delay - run.environment.clock.ahead
        else:
            await operation.replayed()
            if run.recorded(key + WOKEN) is not None:
                await driver.turn_of(run, key + WOKEN)
                return
            if run.next_behind(branch.path) is not None:  # the sleep ended before the run had turns
                return
            if run.sequencer is not None:
                await driver.catch_up(run, key + WOKEN)
            if run.awaits_delivery:  # the run before was ended in this sleep, whatever is left of it
                await driver.hold(run)
            remaining = (record.remaining or 0.0) - run.age - run.environment.clock.ahead
        if remaining > 0:
            await driver.pause(run, remaining)
        if run.sequencer is not None:  # the moment of its end is an outcome, too, where other branches go on meanwhile
            await operation.commit(Record(key + WOKEN, RecordKind.WOKEN))


def _outcome(run: Run, record: Recorded, step: StepDef) -> Any:
    if record.error is not None:
        raise failure_again(run, record.error, f"key {record.key!r}", record)
    return load(run, step.result, record.output, f"key {record.key!r}", record)


def failure_again(
    run: Run, text: str, where: str, record: Recorded | None = None, *, live: BaseException | None = None
) -> BaseException:
    """The exception of a failed step, rebuilt from its record: live and replayed the same, or the same stand-in.

    A cancellation that a body raises by itself is never raised again: the caller would take it for its own.
    """
    found = failure(run, text, where, record)
    error = found.exception
    if error is None or isinstance(error, asyncio.CancelledError | GeneratorExit):
        error = found.noted(StepFailedError(found.type, found.message))
    return error.with_traceback(live.__traceback__ if live else None)
