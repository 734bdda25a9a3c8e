"""Starts workflows of which a key of their queue allows one at a time: many at a time in one transaction.

```text
start ─► look ── the id is known, or the key's workflow is the answer ─────────────────────────────► answer
          ▲ └─── free, or to be changed ─► reserve, decide ── a row was locked, or taken just now ──┐  │
          └─────────────────────────────────────────────────────────────────────────────────────────┘  └─► answer
```

A batch has each key once; who starts with the same key waits for the next one. So starts with one key are applied in
the order in which this process was asked. A statement that fails is sent again: a start that was applied finds its id,
or is the last one that its key has seen, and is not applied twice.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from dbosflow._runtime.process.service import Service, is_final, set_closed, set_errors
from dbosflow._store import dedup, waiter
from dbosflow._store.notify import ALARM_TOPIC, CANCEL_TOPIC, WAITERS_TOPIC, queue_topic, workflow_topic
from dbosflow._store.queries import flush_seen
from dbosflow.errors import DuplicateWorkflowError, SerializationError, WorkflowConflictError
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from psycopg import AsyncConnection
    from psycopg_pool import AsyncConnectionPool

    from dbosflow._store.dedup import Decided, Found
    from dbosflow._store.workflow import Enqueued
    from dbosflow.config import Settings

_BUSY_PAUSE = 0.005
"""Seconds until the next look at a row that somebody else is just changing."""
_MOST = 500
"""Starts in one transaction, which holds their keys."""
SUPERSEDED = "a later start took its dedup_key"
"""The reason for which a workflow is cancelled."""


class StartAnswer(NamedTuple):
    """To which workflow a start has led."""

    workflow_id: str
    is_known: bool
    """Whether the start's own id was there before: then it may belong to anything."""


class _Pending(NamedTuple):
    row: Enqueued
    future: asyncio.Future[StartAnswer]


class Deduplicator(Service):
    """The deduplicated starts of one engine."""

    def __init__(
        self, pool: AsyncConnectionPool[Any], settings: Settings, announce: Callable[[Iterable[str]], None]
    ) -> None:
        super().__init__("deduplicator", interval=None)
        self._pool = pool
        self._schema = settings.schema
        self._batch_bytes = settings.batch_bytes
        self._safety_poll = settings.safety_poll
        self._announce = announce
        self._pending: list[_Pending] = []

    async def start(self, row: Enqueued) -> StartAnswer:
        """Starts a workflow, or finds the one that has its key; returns once that is durable.

        Raises:
            DuplicateWorkflowError: another workflow has the key, and the start may only be the first.
            WorkflowConflictError: a workflow of another function has the key.
        """
        self.check_open()
        future: asyncio.Future[StartAnswer] = asyncio.get_running_loop().create_future()
        self._pending.append(_Pending(row, future))
        self.wake()
        return await future

    async def close(self) -> None:
        """Ends the starts; a waiting caller gets an error, since its start is not known to be durable."""
        await super().close()
        set_closed(one.future for one in self._pending)

    async def work_once(self) -> bool:
        """Applies the first start of each key; returns whether there are more."""
        batch = self._take()
        if batch:
            try:
                undone = await self._apply(batch)
            except BaseException:
                self._pending[:0] = [one for one in batch if not one.future.done()]
                raise
            self._pending[:0] = undone
            if undone:
                await asyncio.sleep(_BUSY_PAUSE)
        return bool(self._pending)

    def _take(self) -> list[_Pending]:
        seen: set[object] = set()
        batch: list[_Pending] = []
        others: list[_Pending] = []
        limit = self._batch_bytes
        for one in self._pending:
            names = {dedup.place_of(one.row), one.row.workflow_id}
            if len(batch) == _MOST or limit <= 0 or names & seen:
                others.append(one)
            else:
                batch.append(one)
                limit -= one.row.size
            seen |= names
        self._pending = others
        return batch

    async def _apply(self, batch: list[_Pending]) -> list[_Pending]:
        """Applies starts, each of another key; returns those that must be tried again."""
        try:
            async with self._pool.connection() as connection:
                found = await dedup.look(connection, self._schema, [one.row for one in batch])
                there = [one.workflow_id for one in found.values() if one.is_of_this_start]
                await flush_seen(connection, self._schema, filter(None, there))
                rest = [one for one in batch if not self._answer(one, found[one.row.workflow_id])]
                decided = await dedup.start(connection, self._schema, [one.row for one in rest], SUPERSEDED)
                await self._follow_up(connection, [(one.row, decided.get(one.row.workflow_id)) for one in rest])
        except Exception as error:
            if not is_final(error):
                raise
            if len(batch) == 1:
                set_errors([batch[0].future], error, SerializationError(f"the database refused the start: {error}"))
                return []
            return [undone for one in batch if not one.future.done() for undone in await self._apply([one])]
        for one in rest:
            if (done := decided.get(one.row.workflow_id)) is not None:
                _set(one.future, StartAnswer(done.workflow_id, is_known=False))
        return [one for one in rest if one.row.workflow_id not in decided]

    def _answer(self, one: _Pending, found: Found) -> bool:
        """Answers a start for which nothing is to be written; returns whether it is one."""
        try:
            workflow_id = answer_of(one.row, found)
        except (DuplicateWorkflowError, WorkflowConflictError) as error:
            if not one.future.done():
                one.future.set_exception(error)
            return True
        if workflow_id is None:
            return False
        _set(one.future, StartAnswer(workflow_id, is_known=found.what == "known"))
        return True

    async def _follow_up(
        self, connection: AsyncConnection[Any], decided: Sequence[tuple[Enqueued, Decided | None]]
    ) -> None:
        done = [(row, one) for row, one in decided if one is not None]
        self._announce([topic for row, one in done for topic in topics_of(row, one, self._safety_poll)])
        await wake_successors(connection, self._schema, [one for _, one in done], self._announce)


def answer_of(row: Enqueued, found: Found) -> str | None:
    """The workflow to which a start leads without a change; ``None`` if something is to be written.

    Raises:
        DuplicateWorkflowError: another workflow has the key, and the start may only be the first.
        WorkflowConflictError: a workflow of another function has the key.
    """
    if found.workflow_id is None or found.what == "free":
        return None
    if found.what != "held":
        return found.workflow_id
    queue, key = dedup.place_of(row)
    policy = None if row.dedup is None else row.dedup.policy
    who = f"workflow {found.workflow_id!r} of {found.name!r} has the dedup_key {key!r} of queue {queue!r}"
    if policy == "raise":
        raise DuplicateWorkflowError(found.workflow_id, f"{who}, and has not ended")
    if found.name != row.name:
        raise WorkflowConflictError(found.workflow_id, f"{who}, so {row.name!r} cannot have it: take another key")
    return found.workflow_id if policy == "existing" else None


def topics_of(row: Enqueued, decided: Decided, safety_poll: float) -> list[str]:
    """Who is to be told of what came of a start."""
    topics = [queue_topic(decided.queue), workflow_topic(decided.workflow_id)]
    is_put_off = decided.status == WorkflowStatus.SCHEDULED and row.dedup is not None and row.dedup.longest is not None
    if is_put_off or (row.options is not None and row.options.is_urgent(safety_poll)):
        topics.append(ALARM_TOPIC)
    if decided.predecessor is not None:  # first that somebody waits: the end of the other one is news for that
        topics += [WAITERS_TOPIC, CANCEL_TOPIC, workflow_topic(decided.predecessor)]
        topics += [queue_topic(decided.predecessor_queue or "")]
    return topics


async def wake_successors(
    connection: AsyncConnection[Any],
    schema: str,
    decided: Sequence[Decided],
    announce: Callable[[Iterable[str]], None],
) -> None:
    """Queues those whose predecessor has ended before anybody knew that they wait. The sweeper finds any later ones."""
    waiting = {one.predecessor: one.workflow_id for one in decided if one.predecessor is not None}
    if waiting:
        statuses = await waiter.statuses(connection, schema, list(waiting))
        over = [waiting[one] for one in waiting if one not in statuses or statuses[one].ended]
        announce(map(queue_topic, await waiter.wake(connection, schema, sorted(over)) if over else []))


def _set(future: asyncio.Future[StartAnswer], answer: StartAnswer) -> None:
    if not future.done():
        future.set_result(answer)
