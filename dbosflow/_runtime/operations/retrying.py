"""The attempts of a step, or of a loop's handler at one item: one after another, until one succeeds or none may follow.

```text
pause ──► attempt ──► succeeded, or failed for good ──► concluded: its record
  ▲          └─────── failed ──► on record, or a crash in the next attempt would forget it ──┐
  └──────────────────────────────────────────────────────────────────────────────────────────┘
```
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, ClassVar

from dbosflow._records.keys import attempt_name
from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.execution.run import StepAttempt
from dbosflow._runtime.operations.ahead import until_durable
from dbosflow._runtime.process.exits import is_signal
from dbosflow._runtime.replay.branch import is_on_loop, running_coroutine
from dbosflow._runtime.runs.entries import Record
from dbosflow._runtime.runs.state import RunStopped
from dbosflow.failures import dump_error
from dbosflow.retries import outcome_of
from dbosflow.tracebacks import summary

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from dbosflow._runtime.execution.drivers import Driver
    from dbosflow._runtime.execution.run import Run, RunBranch
    from dbosflow._store.step import Recorded
    from dbosflow.definitions import StepDef

logger = logging.getLogger("dbosflow.steps")

_LATE_LEASE_PAUSE = 0.05


class Attempts:
    """The attempts of a step in this pass. A loop records its attempts in its own way: see ``for_each``."""

    __slots__ = ("_branch", "_caller", "_driver", "_is_under_way", "_key", "_number", "_run", "_step")

    waits_for_outcomes: ClassVar[bool] = True
    """Whether all that the program has must be durable before the body begins: the body may tell others."""

    def __init__(self, driver: Driver, branch: RunBranch, key: str, step: StepDef) -> None:
        self._driver, self._branch, self._key, self._step = driver, branch, key, step
        self._run: Run = branch.run
        owner = branch.owner
        self._caller = Caller(None if owner is None else owner.task)
        self._number = 0
        self._is_under_way = False
        """Whether a body counts as under way, and it is for this to say when it has ended."""

    async def until_final(
        self, past: Sequence[Recorded], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[Record, Any, BaseException | None]:
        """Goes on after the ``past`` attempts: returns the record of the last attempt, and its value or error."""
        run, key, failures = self._run, self._key, len(past)
        if past:
            await self._pause(self._left_of_pause(past[-1], failures))
        while True:
            attempt = self._new_attempt()
            if run.buffer.ahead and self.waits_for_outcomes:
                await until_durable(self._driver, run)
            await self._begin()
            try:
                run.begin_attempt(key)
                record, value, error = await self._once(attempt, args, kwargs)
                again = False
                if error is not None:
                    failures += 1
                    again, error = _judged(self._step, failures, error, record)
                if error is None or not again:
                    await self._conclude(record, error, failures)
                    return record, value, error
                delay = await self._failed(attempt, record, error, failures)
            finally:
                self._end()
            await self._pause(delay)

    def _new_attempt(self) -> StepAttempt:
        self._number += 1
        return StepAttempt(self._run, self._key, attempt_name(self._run.epoch, self._number))

    async def _once(
        self, attempt: StepAttempt, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[Record, Any, BaseException | None]:
        """Runs the function once; returns the record of its outcome, and its value or error."""
        began, step = time.monotonic(), self._step
        record = Record(attempt.key, step.record_kind, attempt=attempt.name)
        value: Any = None
        failure: BaseException | None = None
        try:
            returned = await self._driver.call(attempt, step, args, kwargs)
            record.output, value = step.result.round_trip(returned)
        except BaseException as error:
            if not is_outcome(error, self._caller):
                raise
            failure = error
            record.error = dump_error(outcome_of(error))
        finally:
            attempt.closed = True
        record.elapsed = time.monotonic() - began
        return record, value, failure

    async def _failed(self, attempt: StepAttempt, record: Record, error: BaseException, failures: int) -> float:
        """Puts the failure of an attempt on record, which another one follows; the seconds until then."""
        step = self._step
        recorded = step.retry.recorded_delay_after(failures, error)
        delay = step.retry.delay_after(failures) if recorded is None else recorded
        warn_of_failure(self._run, self._key, step, failures, error, next_in=delay)
        failed = Record(attempt.record_key, RecordKind.ATTEMPT, error=record.error, attempt=attempt.name)
        failed.elapsed = record.elapsed
        if recorded is not None:
            failed.delay = recorded + self._run.environment.clock.ahead
        await self._commit_failure(failed)
        return delay

    def _left_of_pause(self, last: Recorded, failures: int) -> float:
        """What is left of the pause behind the ``last`` failed attempt, of an earlier pass."""
        run = self._run
        if last.remaining is not None:
            return last.remaining - run.age - run.environment.clock.ahead
        return self._step.retry.delay_after(failures) - last.age - run.age

    async def _begin(self) -> None:
        """Counts a body that is about to run, once it may; raises if none may any more."""
        run = self._run
        if run.is_draining or not run.environment.lease.in_time:
            while not run.environment.lease.in_time:  # another worker may own the run already
                await self._driver.pause(run, _LATE_LEASE_PAUSE)
            if run.is_draining or run.awaits_delivery:
                await self._driver.hold(run)
        run.check_may_begin()
        run.body_begins()
        self._is_under_way = True

    def _end(self) -> None:
        """Counts it off: its outcome is durable, or never will be."""
        if self._is_under_way:
            self._is_under_way = False
            self._run.body_ended()

    def _conclude(self, record: Record, error: BaseException | None, failures: int) -> Awaitable[None]:
        """Puts the final outcome on record, which no other attempt follows."""
        if error is not None:
            return self._conclude_failed(record, error, failures)
        return self._driver.commit(self._run, record)

    async def _conclude_failed(self, record: Record, error: BaseException, failures: int) -> None:
        await self._driver.commit(self._run, record)
        warn_of_failure(self._run, self._key, self._step, failures, error)

    async def _commit_failure(self, record: Record) -> None:
        """Puts the failure of an attempt on record, before the next one begins."""
        await self._driver.commit(self._run, record)

    async def _pause(self, seconds: float) -> None:
        await self._driver.pause(self._run, seconds)


def _judged(step: StepDef, failures: int, error: BaseException, record: Record) -> tuple[bool, BaseException]:
    """Whether another attempt follows, and the error of this one: that of the author's ``retry_on``, if it raises."""
    caller = Caller(running_task())
    try:
        again = step.retry.allows_retry(failures, error)
    except BaseException as raised:
        if not is_outcome(raised, caller):
            raise
        raised.__context__ = raised.__context__ or error
        record.error = dump_error(raised)
        return False, raised
    return again, error if again else outcome_of(error)


def warn_of_failure(
    run: Run, key: str, step: StepDef, failures: int, error: BaseException, *, next_in: float | None = None
) -> None:
    """Warns that an attempt has failed: its number, and the seconds until the next one; ``None`` if there is none."""
    after = "no other follows" if next_in is None else f"next in {next_in:.3g} s"
    logger.warning(
        *("step %s of workflow %s failed, attempt %d of %d, %s: %s", key, run.workflow_id),
        *(failures, step.retry.max_attempts, after, summary(error)),
    )


class Caller:
    """The task that calls a function of the author's; none on a thread of a sync workflow."""

    __slots__ = ("_cancels", "task")

    def __init__(self, task: asyncio.Task[Any] | None) -> None:
        self.task = task
        # What was asked of it before and has arrived. In Python 3.11 a task group that has failed leaves one for ever.
        self._cancels = 0 if task is None else task.cancelling() - getattr(task, "_must_cancel", False)

    @property
    def is_cancelled(self) -> bool:
        """Whether the task is to be cancelled, and was not when it called."""
        return self.task is not None and self.task.cancelling() > self._cancels


def is_outcome(error: BaseException, caller: Caller) -> bool:
    """Whether an error of a function called by ``caller`` is the function's outcome, and not the end of this pass."""
    if isinstance(error, RunStopped) or is_signal(error):
        return False
    if isinstance(error, asyncio.CancelledError):  # unrequested, it comes from a task of the body's
        return not caller.is_cancelled
    # If it runs elsewhere, the coroutine is being discarded.
    return not isinstance(error, GeneratorExit) or running_task() is caller.task


def running_task() -> asyncio.Task[Any] | None:
    """The task that runs here; ``None`` on a thread of a sync workflow."""
    coroutine = running_coroutine()
    if coroutine is not None:
        return coroutine.task
    return asyncio.current_task() if is_on_loop() else None
