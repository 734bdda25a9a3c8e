"""What a workflow's body can do durably: steps and sleeps. Each is written once, for either colour (see ``drivers``).

An operation begins with its key. If there is a record under that key, the record is replayed. If there is none, the
work is done for real and its outcome committed, and only then does the program go on past it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from dbosflow._records.keys import GIVEN_UP, WOKEN
from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.execution.recorded_values import failure, load
from dbosflow._runtime.execution.run import StepAttempt
from dbosflow._runtime.process.exits import is_signal
from dbosflow._runtime.runs.entries import Record
from dbosflow._runtime.runs.state import RunStopped
from dbosflow.errors import StepFailedError
from dbosflow.failures import dump_error
from dbosflow.tracebacks import summary

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbosflow._runtime.execution.drivers import Driver
    from dbosflow._runtime.execution.run import Run, RunBranch
    from dbosflow._store.step import Recorded
    from dbosflow.definitions import StepDef

logger = logging.getLogger("dbosflow.steps")

_LATE_LEASE_PAUSE = 0.05
_STEP = RecordKind.STEP  # once: Python 3.11 takes its time to look up a member


async def run_step(
    driver: Driver, branch: RunBranch, step: StepDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """The outcome of a step: its record's, or that of running it now."""
    with Operation(branch, step.name, step) as key:
        record = recorded(branch, key, _STEP)
        async with CancellableOperation(driver, branch, key):
            if record is None:
                return await _attempts(driver, branch, key, step=step, args=args, kwargs=kwargs)
            await driver.turn_of(branch.run, key)
            return _outcome(branch.run, record, step)


async def sleep(driver: Driver, branch: RunBranch, seconds: float) -> None:
    """Sleeps until a wake time that is on record: a restart does not begin the sleep anew, and never ends it early."""
    run = branch.run
    with Operation(branch, "sleep", "sleep") as key:
        record = recorded(branch, key, RecordKind.SLEEP)
        async with CancellableOperation(driver, branch, key):
            if record is None:
                delay = seconds + run.environment.clock.ahead
                await driver.commit(run, Record(key, RecordKind.SLEEP, delay=delay))
                remaining = delay - run.environment.clock.ahead
            else:
                await driver.turn_of(run, key)
                if run.recorded(key + WOKEN) is not None:
                    await driver.turn_of(run, key + WOKEN)
                    return
                if run.next_behind(branch.path) is not None:  # it ended before the run had turns
                    return
                if run.sequencer is not None:
                    await driver.catch_up(run, key + WOKEN)
                remaining = (record.remaining or 0.0) - run.age - run.environment.clock.ahead
            if remaining > 0:
                await driver.pause(run, remaining)
            if run.sequencer is not None:  # when it ends is an outcome, too, where others go on meanwhile
                await driver.commit(run, Record(key + WOKEN, RecordKind.WOKEN))


class CancellableOperation:
    """Around an operation's work: a program that cancels it goes on when that is on record, and on replay again."""

    __slots__ = ("_branch", "_driver", "_key")

    def __init__(self, driver: Driver, branch: RunBranch, key: str) -> None:
        self._driver, self._branch, self._key = driver, branch, key

    async def __aenter__(self) -> None:
        run = self._branch.run
        if run.is_draining:
            await self._driver.hold(run)
        if run.recorded_order is None:
            return
        if run.recorded(self._key + GIVEN_UP) is not None:
            await self._driver.await_cancellation(run, self._key)
        elif run.recorded(self._key) is None:
            try:
                await self._driver.catch_up(run, self._key)
            except asyncio.CancelledError:  # also before it began; what fails here has no __aexit__
                await self._driver.record_cancellation(run, self._key)
                raise

    async def __aexit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            await self._driver.record_cancellation(self._branch.run, self._key)


class Operation:
    """An operation of a branch, under way in the block: gives it its key, and refuses whoever is not the branch."""

    __slots__ = ("_branch", "_name", "_owner", "_what")

    def __init__(self, branch: RunBranch, name: str, what: object) -> None:
        self._branch, self._name, self._what = branch, name, what

    def __enter__(self) -> str:
        branch = self._branch
        branch.run.check_may_begin()
        owner = self._owner = branch.check_owner(self._what)
        key = branch.key_of(self._name)
        timers = branch.run.timers
        if timers is not None and timers.any:
            timers.warn_of_pending(branch, key)
        owner.operating, branch.operation = True, key
        return key

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        branch = self._branch
        self._owner.operating, branch.operation = False, None
        branch.run.note_resumption()
        if branch.run.stopping is not None and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise branch.run.stopping


def recorded(branch: RunBranch, key: str, kind: RecordKind) -> Recorded | None:
    """The record of an operation that begins; what stands there instead is a contradiction."""
    run = branch.run
    record = run.recorded(key)
    if record is not None and record.kind != kind:
        raise run.disagree(f"asks for a {kind} at key {key!r}", f"a {record.kind}", record)
    if run.recorded_order is not None:
        there = run.recorded_order.ask(branch.path, key)
        if there is not None:
            known = "" if record is not None else ", which is not on record"
            raise run.disagree(f"asks for {key!r}{known}", f"{there!r} next", there)
    return record


async def _attempts(
    driver: Driver, branch: RunBranch, key: str, *, step: StepDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    run = branch.run
    failed = run.history.failures.get(key, [])
    failures, number = len(failed), 0
    if failed:
        await driver.pause(run, step.retry.delay_after(failures) - failed[-1].age - run.age)
    while True:
        number += 1
        attempt = StepAttempt(run, key, f"{run.epoch}.{number}")
        await in_time(driver, branch)
        run.begin_attempt(key)
        run.body_begins()
        try:
            record, value, error = await attempt_once(driver, attempt, step, args, kwargs)
            failures += error is not None
            again = error is not None and step.retry.allows_retry(failures, error)
            if not again:
                await driver.commit(run, record)
        finally:
            run.body_ended()
        if error is None:
            return value
        if not again:
            warn_of_failure(run, key, step, failures, error, again=False)
            raise failure_again(run, record.error or "", f"key {key!r}", live=error)
        warn_of_failure(run, key, step, failures, error)
        # Durable before the next attempt begins, or a crash in that one would forget that this one has failed.
        failed_record = Record(attempt.record_key, RecordKind.ATTEMPT, error=record.error, attempt=attempt.name)
        failed_record.elapsed = record.elapsed
        await driver.commit(run, failed_record)
        await driver.pause(run, step.retry.delay_after(failures))


async def attempt_once(
    driver: Driver, attempt: StepAttempt, step: StepDef, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Record, Any, BaseException | None]:
    """Runs the body once: the record of its outcome, and its value or error."""
    began, task = time.monotonic(), running_task()
    record = Record(attempt.key, _STEP, attempt=attempt.name)
    value: Any = None
    failure: BaseException | None = None
    try:
        returned = await driver.call(attempt, step, args, kwargs)
        record.output, value = step.result.round_trip(returned)
    except BaseException as error:
        if not is_outcome(error, task):
            raise
        failure = error
        record.error = dump_error(error)
    finally:
        attempt.closed = True
    record.elapsed = time.monotonic() - began
    return record, value, failure


def warn_of_failure(
    run: Run, key: str, step: StepDef, failures: int, error: BaseException, *, again: bool = True
) -> None:
    """Warns of an attempt that has failed: which it was, and when the next one comes."""
    after = f"next in {step.retry.delay_after(failures):g} s" if again else "no other follows"
    logger.warning(
        *("step %s of workflow %s failed, attempt %d of %d, %s: %s", key, run.workflow_id),
        *(failures, step.retry.max_attempts, after, summary(error)),
    )


def is_outcome(error: BaseException, task: asyncio.Task[Any] | None) -> bool:
    """Whether what a function, called in ``task``, has raised is how it came out, and not the end of this pass."""
    if isinstance(error, RunStopped) or is_signal(error):
        return False
    if isinstance(error, asyncio.CancelledError):  # else it is the body's own, of a task inside it
        return task is None or not task.cancelling()
    return not isinstance(error, GeneratorExit) or running_task() is task  # else its coroutine is thrown away


def running_task() -> asyncio.Task[Any] | None:
    """The task that runs here; ``None`` on a thread of a sync workflow."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _outcome(run: Run, record: Recorded, step: StepDef) -> Any:
    if record.error is not None:
        raise failure_again(run, record.error, f"key {record.key!r}", record)
    return load(run, step.result, record.output, f"key {record.key!r}", record)


def failure_again(
    run: Run, text: str, where: str, record: Recorded | None = None, *, live: BaseException | None = None
) -> BaseException:
    """The exception of a failed step, rebuilt from its record: live and replayed the same, or the same stand-in.

    A cancellation that a body raises by itself is never raised again: for its caller it would be one of its own.
    """
    found = failure(run, text, where, record)
    error = found.exception
    if error is None or isinstance(error, asyncio.CancelledError | GeneratorExit):
        error = found.noted(StepFailedError(found.type, found.message))
    return error.with_traceback(live.__traceback__ if live else None)


async def in_time(driver: Driver, branch: RunBranch) -> None:
    """Waits while the lease is past its deadline: then another worker may own the run already."""
    while not branch.run.environment.lease.in_time:
        await driver.pause(branch.run, _LATE_LEASE_PAUSE)
    if branch.run.is_draining:
        await driver.hold(branch.run)
    branch.run.check_may_begin()
