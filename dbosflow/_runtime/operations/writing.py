"""Stream writes: buffered by the run, durable with or before its next record; a fast writer waits for room.

Code that writes and never waits would hold up its event loop, and so its own commits. So a write yields control after
every so many values. In a run with branches, the place of that must not depend on timing: it follows from what was
written.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal, assert_never

from dbosflow._records.kinds import RecordKind
from dbosflow._records.producers import RESUMED, of_all_attempts
from dbosflow._runtime.execution.run import StepAttempt, TransactionAttempt
from dbosflow._runtime.execution.scope import PlainCall, current_scope
from dbosflow._runtime.operations.operation import DurableOperation
from dbosflow._runtime.replay.branch import Branch
from dbosflow._runtime.runs.entries import Record
from dbosflow._runtime.runs.producers import Producer
from dbosflow.errors import ConfigurationError, NotInWorkflowError, TransactionError
from dbosflow.serde import items_of
from dbosflow.types import FrameKind

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from dbosflow._runtime.execution.drivers import Driver
    from dbosflow._runtime.execution.run import RunBranch
    from dbosflow._runtime.execution.scope import Scope
    from dbosflow._store.step import Recorded

_YIELD_EVERY = 64
"""Values after which a branch yields control; a large value counts for several."""
_WEIGHT_BYTES = 4096

OnRetry = Literal["rollback", "keep", "resume"]
"""What becomes of the values of an attempt that fails."""


def writer(what: str) -> Scope:
    """The writer: the running branch or attempt, or a plain call, whose writes are dropped."""
    scope = current_scope()
    if scope is None:
        msg = f"{what} needs a workflow or step around it: there is no workflow whose stream this could be"
        raise NotInWorkflowError(msg)
    return scope


def set_on_retry(scope: Scope, key: str, on_retry: OnRetry) -> None:
    """Sets what becomes of an attempt's values in a stream when it fails; one answer for each stream."""
    if not isinstance(scope, StepAttempt):
        if on_retry != "rollback" and isinstance(scope, Branch):
            msg = f"on_retry={on_retry!r} is for steps: what a workflow's body writes is never rolled back"
            raise ConfigurationError(msg)
        return
    if isinstance(scope, TransactionAttempt):
        if on_retry != "rollback":
            msg = f"on_retry={on_retry!r} is not for transactions: its values are there with its rows, or not at all"
            raise ConfigurationError(msg)
        return
    if on_retry == "rollback":
        producer = Producer(scope.record_key, scope.name, scope)
    elif on_retry == "keep":
        producer = Producer(scope.record_key, None, scope)
    elif on_retry == "resume":
        producer = Producer(of_all_attempts(scope.key), RESUMED, scope)
        scope.run.streams.resume_producer(key, producer.name)
    else:
        assert_never(on_retry)
    if scope.producers.setdefault(key, producer) != producer:
        msg = f"an attempt of step {scope.key!r} writes to stream {key!r} in one way: on_retry cannot be changed in it"
        raise ConfigurationError(msg)


async def write(scope: Scope, key: str, text: str, what: str, *, on_loop: bool) -> None:
    """Buffers one value once there is room for it. On the loop, lets other tasks go on now and then."""
    if isinstance(scope, PlainCall):
        return
    run = scope.run
    if isinstance(scope, Branch):
        scope.check_owner(what)
        run.check_may_begin()
        producer = scope.producer
    elif isinstance(scope, TransactionAttempt):
        scope.begin_writes().write(key, text)
        return
    else:
        producer = scope.producer(key)
    streams = run.streams
    if streams.needs_room(key, producer) and not await _has_room(scope, on_loop=on_loop):
        streams.refuse_for_room(key, producer)
    streams.write(key, text, producer)
    if on_loop and isinstance(scope, Branch):
        scope.since_yield += 1 + len(text) // _WEIGHT_BYTES
        if scope.since_yield >= _YIELD_EVERY:
            scope.since_yield = 0
            await _yield_control(scope)


def close(scope: Scope, key: str, what: str, kind: FrameKind = FrameKind.COMPLETE, payload: str | None = None) -> None:
    """Buffers the end of a stream."""
    if isinstance(scope, Branch):
        scope.check_owner(what)
        scope.run.check_may_begin()
        scope.run.streams.close(key, scope.producer, kind, payload)
    elif isinstance(scope, TransactionAttempt):
        scope.begin_writes().close(key, kind, payload)
    elif isinstance(scope, StepAttempt):
        scope.run.streams.close(key, scope.producer(key), kind, payload)


def written(scope: Scope, key: str) -> int:
    """How many values the scope has in the stream, durable or buffered."""
    if isinstance(scope, PlainCall):
        return 0
    if isinstance(scope, TransactionAttempt):
        return 0 if scope.writes is None else scope.writes.count(key)
    producer = scope.producer if isinstance(scope, Branch) else scope.producer(key)
    return scope.run.streams.count(key, producer.name)


async def _has_room(scope: RunBranch | StepAttempt, *, on_loop: bool) -> bool:
    """Whether there is room for the next value. A branch among others waited for room when it yielded control."""
    run = scope.run
    if isinstance(scope, Branch) and run.sequencer is not None:
        had_room, scope.had_room = scope.had_room, True
        return had_room
    driver = run.loop_driver if on_loop else run.thread_driver
    return await driver.room(run)


async def _yield_control(branch: RunBranch) -> None:
    """Lets the loop, or the other branches, go on."""
    run = branch.run
    if run.sequencer is None:
        await asyncio.sleep(0)
        return
    owner = branch.owner
    assert owner is not None  # the caller
    owner.operating = True
    try:
        branch.had_room = await run.sequencer.yield_control()
    finally:
        owner.operating = False
        run.note_resumption()


async def flush(driver: Driver, scope: Scope) -> None:
    """Waits until everything that the run has buffered is durable.

    Among branches this is an outcome like any other: it is recorded, so that a replay goes on from it in the same turn.
    """
    if isinstance(scope, TransactionAttempt):
        msg = "what a transaction writes is durable with its commit, and not before: leave flush() out of its function"
        raise TransactionError(msg)
    if isinstance(scope, StepAttempt):
        await driver.durable(scope.run)
    elif isinstance(scope, Branch):
        await _when_durable(scope, RecordKind.FLUSH)


async def emitted(driver: Driver, scope: Scope, key: str) -> list[str]:
    """Returns the values that the scope has in the stream, as JSON: with ``resume``, also those of earlier attempts.

    Never more than the scope has written by now: in a replay, more values may be durable.
    """
    if isinstance(scope, PlainCall):
        return []
    if isinstance(scope, TransactionAttempt):
        return [] if scope.writes is None else scope.writes.texts(key)
    run = scope.run
    producer = scope.producer if isinstance(scope, Branch) else scope.producer(key)
    count = run.streams.count(key, producer.name)

    async def look() -> list[str]:
        pages = await run.engine.patient_repository.emitted(run.workflow_id, key, producer.name)
        return [text for page in pages for text in items_of(page)][:count]

    if isinstance(scope, Branch):
        return await _when_durable(scope, RecordKind.EMITTED, look)
    await driver.durable(run)
    return await driver.wait(run, look())


class _Sight(DurableOperation):
    """A read of what is durable, which has a turn and a record among branches only.

    Whether the run had turns by then may be timing: a library makes a task now and then, before the first branch.
    """

    __slots__ = ("ahead", "has_turn")

    ahead: str | None
    """The next operation on record for the branch."""
    has_turn: bool

    def find_record(self, kind: RecordKind) -> Recorded | None:
        """The operation's record, if it has a turn."""
        run = self.run
        self.ahead = run.next_behind(self.branch.path)
        self.has_turn = self.cancellable = self.ahead == self.key or (run.sequencer is not None and self.ahead is None)
        return super().find_record(kind) if self.has_turn else None


async def _when_durable(
    branch: RunBranch, kind: RecordKind, look: Callable[[], Coroutine[Any, Any, list[str]]] | None = None
) -> list[str]:
    """Waits until everything that the run has buffered is durable; returns what ``look`` then reads."""
    run = branch.run
    found: list[str] = []
    async with _Sight(branch, kind, kind, kind) as operation:
        driver = operation.driver
        if not operation.has_turn:
            if operation.ahead is None:  # else more is on record behind this, and all earlier writes are durable
                await driver.durable(run)
            return found if look is None else await driver.wait(run, look())
        if look is not None:
            if operation.record is None:
                await driver.durable(run)
            found = await driver.wait(run, look())  # before its turn: after it, the branch would go on later
        if operation.record is None:
            await operation.commit(Record(operation.key, kind))
        else:
            await operation.replayed()
        return found
