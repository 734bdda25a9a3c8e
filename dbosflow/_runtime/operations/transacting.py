"""Transactions: steps whose records are committed with the user's rows, by the user's own transaction.

```text
BEGIN ─► function ─► returned ─► last statement, COMMIT ─► delivered, like any outcome
            │                        │
            │                        └─ conflict with another transaction, or the connection is lost: anew
            └─ raised ─► ROLLBACK ─► a conflict: anew; else the failure is on record, by the journal
```

An attempt that begins anew because of a conflict has a number of its own, and no record: it has left no trace.
"""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors

from dbosflow._records.keys import attempt_name
from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.execution.recorded_values import load
from dbosflow._runtime.execution.run import TransactionAttempt
from dbosflow._runtime.operations.retrying import Attempts, Caller, is_outcome, running_task
from dbosflow._runtime.runs.entries import Record
from dbosflow._store.transaction import LostStatementError
from dbosflow._store.wire import is_stale
from dbosflow.failures import dump_error
from dbosflow.retries import outcome_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from dbosflow._runtime.execution.run import StepAttempt
    from dbosflow._runtime.execution.transaction_port import TransactionPort, TransactionsPort
    from dbosflow._store.transaction import Witnessed
    from dbosflow.transaction_definitions import TransactionDef

logger = logging.getLogger("dbosflow.transactions")

_CONFLICTS = (errors.SerializationFailure, errors.DeadlockDetected, LostStatementError)
"""The last one: psycopg has deallocated our statements, as it does with all behind a savepoint's rollback."""
_TIME_IS_OVER = ("25P03", "25P04")
"""The codes with which a server ends a session that is idle in a transaction, or whose transaction is too long."""
_FIRST_PAUSE = 0.002
_LONGEST_PAUSE = 1.0
"""Seconds before an attempt begins anew, doubled at each: as long as short transactions take."""


class TransactionAttempts(Attempts):
    """The attempts of a transaction in this pass."""

    _step: TransactionDef

    def _new_attempt(self) -> StepAttempt:
        self._number += 1
        name = attempt_name(self._run.epoch, self._number)
        return TransactionAttempt(self._run, self._key, name, reads_only=self._step.read_only)

    async def _once(
        self, attempt: StepAttempt, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[Record, Any, BaseException | None]:
        run, step, conflicts = self._run, self._step, 0
        step.check_not_given(args)
        if run.environment.transactions is None:  # a replay, which runs nothing
            return await super()._once(attempt, args, kwargs)
        while True:
            outcome = _Outcome(self, attempt, args, kwargs)
            await outcome.make()
            if not outcome.is_conflict or conflicts >= step.max_conflicts:
                return outcome.record, outcome.value, outcome.failure
            conflicts += 1
            logger.info(
                *("%s of workflow %s begins anew, conflict %d of %d", self._key, run.workflow_id),
                *(conflicts, step.max_conflicts),
            )
            pause = min(_FIRST_PAUSE * 2.0 ** min(conflicts, 20), _LONGEST_PAUSE)
            self._end()  # no drain waits for what has left nothing
            await self._driver.pause(run, pause * random.uniform(0.2, 1.0))  # noqa: S311 (jitter)
            await self._begin()
            attempt = self._new_attempt()

    def _conclude(self, record: Record, error: BaseException | None, failures: int) -> Awaitable[None]:
        """Waits for the turn of what is committed already; puts anything else on record by the journal."""
        if error is not None or record.waiter is None:
            return super()._conclude(record, error, failures)
        return self._driver.delivered(record.waiter)


class _Outcome:
    """One transaction, from its beginning to its end: its record, and its value or error."""

    def __init__(
        self, attempts: TransactionAttempts, attempt: StepAttempt, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        self._driver = attempts._driver  # noqa: SLF001 (a part of it)
        self._step = attempts._step  # noqa: SLF001
        self._run = attempt.run
        self._attempt = attempt
        self._args, self._kwargs = args, kwargs
        self.record = Record(attempt.key, RecordKind.TRANSACTION, attempt=attempt.name)
        self.value: Any = None
        self.failure: BaseException | None = None
        self.is_conflict = False

    async def make(self) -> None:
        """Runs the function in a transaction, and commits it or rolls it back."""
        began, caller = time.monotonic(), Caller(running_task())
        transactions = self._run.environment.transactions
        assert transactions is not None
        begun = await self._begin(transactions)
        try:
            await self._run_function(begun)
            self.record.elapsed = time.monotonic() - began
            await self._commit(begun)
        except BaseException as error:
            self._attempt.closed = True
            if not is_outcome(error, caller):
                raise
            self.record.output = self.record.waiter = self.value = None
            self.failure = error
            self.is_conflict = _is_conflict(error, begun)
            self.record.error = dump_error(outcome_of(error))
            self.record.elapsed = time.monotonic() - began

    async def _begin(self, transactions: TransactionsPort) -> TransactionPort[Any]:
        begun: list[TransactionPort[Any]] = []
        try:
            return await self._driver.wait(self._run, transactions.begin(self._step, self._attempt.name, begun.append))
        except BaseException:  # a thread that is told to stop gets no result that comes in the same moment
            for one in begun:
                self._driver.on_loop(one.abandon)
            raise

    async def _run_function(self, begun: TransactionPort[Any]) -> None:
        caller = Caller(running_task())
        try:
            returned = await self._driver.call(self._attempt, self._step, (begun.argument, *self._args), self._kwargs)
            self.record.output, self.value = self._step.result.round_trip(returned)
            self._attempt.closed = True
        except BaseException as error:
            self._attempt.closed = True
            if not is_outcome(error, caller):
                self._driver.on_loop(begun.abandon)
                raise
            if is_stale(_of_psycopg(error)):
                self._driver.on_loop(begun.abandon)
            else:
                await self._driver.wait(self._run, begun.roll_back())
            if begun.expired is not None and isinstance(_of_psycopg(error), errors.QueryCanceled):
                raise begun.expired from error
            raise

    async def _commit(self, begun: TransactionPort[Any]) -> None:
        run, driver = self._run, self._driver
        if self._step.read_only:
            await driver.wait(run, begun.commit_read_only())
            return
        self.record.waiter = driver.new_waiter()
        assert isinstance(self._attempt, TransactionAttempt)
        found = await driver.wait(run, begun.commit(run, self.record, self._attempt.writes))
        if found is not None:
            self._take(found)

    def _take(self, found: Witnessed) -> None:
        """Hands on what is on record: a witness has shown it."""
        self.value = load(self._run, self._step.result, found.output, f"key {self.record.key!r}")


def _is_conflict(error: BaseException, begun: TransactionPort[Any]) -> bool:
    """Whether the same function may succeed in a new transaction: nothing of this one is committed."""
    found = _of_psycopg(error)
    if found is None or isinstance(found, _CONFLICTS) or is_stale(found):  # stale: the next one has another session
        return found is not None
    return begun.is_lost and found.sqlstate not in _TIME_IS_OVER


def _of_psycopg(error: BaseException | None) -> psycopg.Error | None:
    """The error of psycopg that is behind this one: others, such as SQLAlchemy, raise errors of their own for it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, psycopg.Error):
            return error
        seen.add(id(error))
        error = error.__cause__
    return None
