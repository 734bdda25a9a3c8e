"""An operation of a workflow's body: the common part of all operations.

An operation begins with its key, and has one of three lives:

```text
           ┌─ live      no record under the key: the work is done, its outcome is committed, then the program goes on
key ───────┼─ replayed  its record is delivered in its turn; a record of something else is a contradiction
           └─ cancelled the program has cancelled it: the cancellation goes on record first, and is replayed, too
```

An operation is written once for both colours: it waits by the driver of its workflow's body (see ``drivers``).
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Self

from dbosflow._records.keys import COMPENSATIONS, GIVEN_UP, UNTIL
from dbosflow._records.kinds import STEPS, RecordKind
from dbosflow._runtime.runs.state import RunStopped
from dbosflow.definitions import StepDef

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dbosflow._runtime.execution.drivers import Driver
    from dbosflow._runtime.execution.run import Run, RunBranch
    from dbosflow._runtime.replay.branch import Owner
    from dbosflow._runtime.runs.entries import Record
    from dbosflow._runtime.runs.opening import Opening
    from dbosflow._store.step import Recorded

_CALLS = frozenset({RecordKind.CHILD, RecordKind.MAP})
"""Operations whose arguments may be refused, which is on no record: they say themselves when they begin."""


class Operation:
    """An operation of a branch, under way in the block: it has its key; callers other than the branch are refused."""

    __slots__ = ("_name", "_owner", "_what", "branch", "key", "run")

    def __init__(self, branch: RunBranch, name: str, what: object) -> None:
        self._name, self._what = name, what
        self._owner: Owner
        self.branch = branch
        self.run: Run = branch.run
        self.key: str

    def __enter__(self) -> Self:
        run, branch = self.run, self.branch
        run.check_may_begin()
        if run.compensating and branch.path != COMPENSATIONS:
            raise RunStopped(f"the body of workflow {run.workflow_id!r} is over")
        owner = self._owner = branch.check_owner(self._what)
        key = self.key = branch.key_of(self._name)
        timers = run.timers
        if timers is not None and timers.any:
            timers.warn_of_pending(branch, key)
        owner.operating, branch.operation = True, key
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        run = self.run
        self._owner.operating, self.branch.operation = False, None
        run.note_resumption()
        if run.stopping is not None and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise run.stopping

    def find_record(self, kind: RecordKind) -> Recorded | None:
        """The operation's record; a record of another kind is a contradiction."""
        run, key = self.run, self.key
        if run.recorded_order is None:  # nothing is on record
            return None
        record = run.recorded(key)
        if record is not None and record.kind != kind and not STEPS.issuperset((record.kind, kind)):
            raise run.disagree(f"asks for a {kind} at key {key!r}", f"a {record.kind}", record)
        there = run.recorded_order.ask(self.branch.path, key)
        if there is not None:
            known = "" if record is not None else ", which is not on record"
            raise run.disagree(f"asks for {key!r}{known}", f"{there!r} next", there)
        return record


class DurableOperation(Operation):
    """An operation whose outcome is on record, or will be. In the block it is live or replayed, and can be cancelled.

    With a ``record`` it is replayed: the block awaits ``replayed``, before or after its use of the record. Without one
    it is live: the block does the work and commits.
    """

    __slots__ = ("cancellable", "driver", "kind", "record")

    def __init__(self, branch: RunBranch, kind: RecordKind, name: str, what: object) -> None:
        super().__init__(branch, name, what)
        self.driver: Driver = self.run.driver
        self.kind = kind
        self.record: Recorded | None = None
        self.cancellable = True
        """Whether a cancellation that reaches the block is put on record; not where the outcome is decided already."""

    async def __aenter__(self) -> Self:
        self.__enter__()
        run = self.run
        try:
            self.record = self.find_record(self.kind)
            opening = run.opening  # the loop may set it to None meanwhile
            if opening is not None and not self._is_relaxed:
                await self._wait_for_start(opening)
            if self.cancellable and (run.is_draining or run.recorded_order is not None or run.request is not None):
                await self._wait_to_begin()
        except BaseException as error:
            self.__exit__(type(error))
            raise
        return self

    @property
    def _is_relaxed(self) -> bool:
        """Whether it is a relaxed step: what that comes to may be forgotten, and here the workflow with it."""
        return self.kind is RecordKind.STEP and isinstance(self._what, StepDef) and self._what.relaxed

    async def _wait_to_begin(self) -> None:
        """Waits if nothing may begin any more, if a cancellation is on record, or while other branches replay."""
        run = self.run
        if run.is_draining:
            await self.driver.hold(run)
        if run.recorded_order is not None:
            if run.recorded(self.key + GIVEN_UP) is not None:
                await self.driver.await_cancellation(run, self.key)
            elif self.record is None:
                try:
                    await self.driver.catch_up(run, self.key)
                except asyncio.CancelledError:  # even before the operation began
                    await self.driver.record_cancellation(run, self.key)
                    raise
        if self.record is None and run.compensations is not None:
            if run.awaits_delivery:
                await self.driver.hold(run)
            if self.kind not in _CALLS:
                run.check_may_follow(self.key)

    async def _wait_for_start(self, opening: Opening) -> None:
        """Waits until the workflow has a row: before, nobody may notice what the operation does."""
        started = self.driver.new_waiter()
        self.driver.on_loop(partial(opening.expect, started))
        try:
            await self.driver.delivered(started)
        except asyncio.CancelledError:  # even before the operation began
            if self.cancellable:
                await self.driver.record_cancellation(self.run, self.key)
            raise

    async def __aexit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        if kind is not None and self.cancellable and issubclass(kind, asyncio.CancelledError):
            try:
                await self.driver.record_cancellation(self.run, self.key)
            except BaseException as error:
                self.__exit__(type(error))
                raise
        self.__exit__(kind)

    def time_left(self) -> float | None:
        """Seconds until the end of the operation's wait, if that was put on record while the run was suspended."""
        until = self.run.recorded(self.key + UNTIL)
        if until is None:
            return None
        return max((until.remaining or 0.0) - self.run.age - self.run.environment.clock.ahead, 0.0)

    async def replayed(self) -> None:
        """Waits for the turn of the operation's record."""
        await self.driver.turn_of(self.run, self.key)

    async def commit(self, record: Record) -> None:
        """Waits until the operation's record is durable and its turn has come."""
        await self.driver.commit(self.run, record)

    async def outcome(self, live: Callable[[], Awaitable[Record]]) -> Record | Recorded:
        """Returns the record in its turn, or the outcome of ``live`` once it is durable."""
        if self.record is not None:
            await self.replayed()
            return self.record
        record = await live()
        await self.commit(record)
        return record
