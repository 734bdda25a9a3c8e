"""Applies what users' transactions have left in the outbox: starts under given ids, and messages to workflows.

```text
the user's transaction: INSERT ... COMMIT
   └─► row of the outbox ─► a relay: one statement locks it, applies it and removes it
```

Every executing engine has a relay, and nothing coordinates them. A statement locks the rows that it applies, SKIP
LOCKED, and takes none behind a row that another one has: so the rows for a workflow are applied in their order, each
once, whichever process is killed. It runs in autocommit, and so holds a workflow's id or a place in its stream no
longer than any other start or send. See ``apply_starts`` in ``outbox.sql``, and ``send`` in ``message.sql``.

The engine whose user has committed wakes its own relay, or notifies others: see ``committed.py``. What was written by
SQL alone, or by a process that has died, is found by a poll: one probe of the primary key, where there is nothing.

A message to a workflow that has ended, or that nobody knows, is removed, with a line in the log, and counted. One that
finds the inbox full stays, with those behind it on its topic.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import psycopg

from dbosflow._records.producers import outsider_of
from dbosflow._records.spaces import topic_of
from dbosflow._runtime.process.service import Service
from dbosflow._runtime.queues.keyed_relay import KeyedRelay
from dbosflow._store import message, outbox
from dbosflow._store.notify import ALARM_TOPIC, OUTBOX_TOPIC, queue_topic, stream_topic, workflow_topic
from dbosflow._store.queries import is_refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from psycopg import AsyncConnection
    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.wakeups.topics import Wakeups
    from dbosflow._store.message import Relayed
    from dbosflow.config import Settings

logger = logging.getLogger("dbosflow.relay")

_POLL = 0.8
"""Seconds between two looks without a hint: with its jitter at most one."""
_TARGETS = 20
"""Workflows in one statement."""
_ROWS = 100
"""Messages in one statement, whose time grows with their square."""
_BYTES = 4 * 1024 * 1024
"""Bytes of messages to one workflow in one statement."""


class Relay(Service):
    """The relay of one engine."""

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        settings: Settings,
        wakeups: Wakeups,
        announce: Callable[[Iterable[str]], None],
    ) -> None:
        super().__init__("relay", interval=_POLL)
        self._pool = pool
        self._settings = settings
        self._announce = announce
        self._unsubscribe = wakeups.subscribe(OUTBOX_TOPIC, self.wake)
        self._after = ""
        """The place of the walk over all workflows with rows: so those that cannot get theirs hold up no others."""
        self._targets = _TARGETS
        self._applied = False
        """Whether this walk has applied anything: then another one may, too."""
        self._refused: set[str] = set()
        """Workflows for which the database refuses a row: each is logged once."""
        self._keyed = KeyedRelay(settings, announce)
        self.dropped = 0
        """Messages that were removed, because nobody can receive them any more."""

    @property
    def refused(self) -> set[str]:
        """The workflows for which the database refuses a row."""
        return {*self._refused, *self._keyed.refused}

    async def close(self) -> None:
        """Ends the relay."""
        self._unsubscribe()
        await super().close()

    async def work_once(self) -> bool:
        """Applies rows for the next workflows of the walk; returns whether there may be more."""
        schema, limit = self._settings.schema, self._targets
        async with self._pool.connection() as connection:
            found, has_keyed = await outbox.pending(connection, schema, self._after, limit)
            if found:
                self._applied |= await self._apply(connection, found)
            again = has_keyed and await self._keyed.apply(connection)
        is_over = len(found) < limit
        self._after = "" if is_over else found[-1][0]
        if not is_over:
            return True
        again, self._applied = again or self._applied, False
        return again

    async def apply(self, workflow_id: str) -> bool:
        """Applies rows for one workflow; whether there were any that no other engine was applying."""
        async with self._pool.connection() as connection:
            return (
                await self._start(connection, [workflow_id])
                or await self._send(connection, [workflow_id])
                or await self._keyed.apply(connection)
            )

    async def _apply(self, connection: AsyncConnection[Any], found: Sequence[tuple[str, bool]]) -> bool:
        """Applies the oldest rows of these workflows; returns whether any was applied."""
        try:
            started = await self._start(connection, [one for one, is_start in found if is_start])
            sent = await self._send(connection, [one for one, is_start in found if not is_start])
        except psycopg.errors.UniqueViolation:
            return True  # a sender with the same idempotency key was faster: this finds its message next time
        except Exception as error:
            if not is_refused(error):
                raise
            if len(found) == 1:
                self._say_refused(found[0][0], error)
                return False
            applied = [await self._apply(connection, [one]) for one in found]  # the others go on without it
            return any(applied)
        return started or sent

    def _say_refused(self, workflow_id: str, error: Exception) -> None:
        if workflow_id not in self._refused:  # it is looked at again and again
            self._refused.add(workflow_id)
            logger.error(
                "the database refuses a row of the outbox for workflow %s (%s): it stays there",
                *(workflow_id, type(error).__name__),
            )

    async def _start(self, connection: AsyncConnection[Any], ids: list[str]) -> bool:
        rows = await outbox.apply_starts(connection, self._settings.schema, ids) if ids else []
        self._announce([topic for row in rows for topic in self._topics(row)])
        for row in rows:
            self._compare(row)
        return bool(rows)

    def _topics(self, row: dict[str, Any]) -> Iterable[str]:
        yield from (queue_topic(row["queue"]), workflow_topic(row["workflow_id"]))
        if row["remaining"] is not None and row["remaining"] <= 2 * self._settings.safety_poll:
            yield ALARM_TOPIC

    def _compare(self, row: dict[str, Any]) -> None:
        """Says what a start has found under its id."""
        if row["is_new"] or row["taken_by"] is None:
            return
        if row["taken_by"] != row["name"]:
            self.dropped += 1
            logger.error(
                "workflow id %r belongs to workflow %r: the start of %r that a transaction has committed is dropped",
                *(row["workflow_id"], row["taken_by"], row["name"]),
            )
        elif row["differs"]:
            logger.warning(
                "workflow %s was started before, with other arguments; its first execution is used", row["workflow_id"]
            )

    async def _send(self, connection: AsyncConnection[Any], ids: list[str]) -> bool:
        if not ids:
            return False
        settings = self._settings
        limits = {"max_rows": _ROWS // len(ids), "max_bytes": _BYTES}
        limits |= {"max_values": settings.inbox_values, "max_topics": settings.inbox_topics}
        found = await message.relay(connection, settings.schema, ids, limits=limits)
        self._announce({stream_topic(one.workflow_id, one.key) for one in found if one.sent.offset is not None})
        done = [one for one in found if self._is_done(one)]
        return bool(done)

    def _is_done(self, one: Relayed) -> bool:
        """Whether the message's row was removed; and says why, unless it was sent."""
        sent, where = one.sent, (topic_of(one.key), one.workflow_id)
        if sent.offset is not None:
            if sent.differs:
                logger.warning(
                    "topic %r of workflow %s: %s was used before, for another message, which stays",
                    *(*where, outsider_of(one.producer)),
                )
            return True
        if sent.status is not None and not sent.ended:
            return False  # the inbox is full, or another sender was faster
        self.dropped += 1
        why = "there is no such workflow" if sent.status is None else f"the workflow has ended ({sent.status})"
        logger.warning("a message on topic %r to workflow %s is dropped: %s", *where, why)
        return True
