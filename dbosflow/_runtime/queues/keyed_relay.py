"""Applies the starts with keys that users' transactions have left in the outbox, of each key in their order.

One transaction locks the oldest start of each key, applies it by the rules of every start with a key, and removes it.
Nobody is there any more who could be told that the key is another workflow's: such a start is dropped, with a line in
the log.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from dbosflow._runtime.queues.deduplicator import SUPERSEDED, answer_of, topics_of, wake_successors
from dbosflow._store import dedup, outbox
from dbosflow._store.queries import is_refused
from dbosflow.errors import CodecError, DuplicateWorkflowError, WorkflowConflictError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from uuid import UUID

    from psycopg import AsyncConnection

    from dbosflow._store.dedup import Decided
    from dbosflow._store.workflow import Enqueued
    from dbosflow.config import Settings

logger = logging.getLogger("dbosflow.relay")

_MOST = 100
"""Keys in one transaction."""
_START = ("", "")


class KeyedRelay:
    """The part of a relay that applies starts with keys."""

    def __init__(self, settings: Settings, announce: Callable[[Iterable[str]], None]) -> None:
        self._settings = settings
        self._announce = announce
        self._after = _START
        """The place of the walk over the keys."""
        self._refused: set[UUID] = set()
        """Starts that the database refuses: each is logged once, and holds up those of its key."""
        self.dropped = 0

    @property
    def refused(self) -> set[str]:
        """The ids of starts that the database refuses."""
        return {str(one) for one in self._refused}

    async def apply(self, connection: AsyncConnection[Any]) -> bool:
        """Applies the oldest start of each of some keys; returns whether any was applied, or the walk goes on."""
        try:
            applied, following = await self._apply(connection, _MOST)
        except Exception as error:
            if not _is_about_a_start(error):
                raise
            applied, following = await self._apply_alone(connection)
        self._after = following or _START
        return applied or following is not None

    async def _apply_alone(self, connection: AsyncConnection[Any]) -> tuple[bool, tuple[str, str] | None]:
        """One key after the other: of several, one has a start that the database refuses."""
        found = False
        following: tuple[str, str] | None = self._after
        for _ in range(_MOST):
            self._after = following or _START
            try:
                applied, following = await self._apply(connection, 1)
            except Exception as error:
                if not _is_about_a_start(error):
                    raise
                applied, following = False, await self._pass(connection, error)
            found |= applied
            if following is None:
                break
        return found, following

    async def _pass(self, connection: AsyncConnection[Any], error: Exception) -> tuple[str, str] | None:
        async with connection.transaction():
            starts, following = await outbox.keyed(connection, self._settings.schema, self._after, 1)
        for one in starts:
            if one.id not in self._refused:
                self._refused.add(one.id)
                logger.error(
                    "a start with the key %r of queue %r in the outbox cannot be applied (%s): it stays there",
                    *(one.place[1], one.place[0], type(error).__name__),
                )
        return following

    async def _apply(self, connection: AsyncConnection[Any], limit: int) -> tuple[bool, tuple[str, str] | None]:
        schema = self._settings.schema
        async with connection.transaction():
            starts, following = await outbox.keyed(connection, schema, self._after, limit)
            if not starts:
                return False, following
            rows = [one.start() for one in starts]
            found = await dedup.look(connection, schema, rows)
            rest = [row for row in rows if self._is_to_be_applied(row, found[row.workflow_id])]
            decided = await dedup.start(connection, schema, rest, SUPERSEDED) if rest else {}
            undone = {row.workflow_id for row in rest} - decided.keys()
            done = [one for one, row in zip(starts, rows, strict=True) if row.workflow_id not in undone]
            if done:
                await outbox.remove_keyed(connection, schema, done)
        await self._follow_up(connection, [(row, decided.get(row.workflow_id)) for row in rest])
        return bool(done), following

    def _is_to_be_applied(self, row: Enqueued, found: dedup.Found) -> bool:
        try:
            return answer_of(row, found) is None
        except (DuplicateWorkflowError, WorkflowConflictError) as error:
            self.dropped += 1
            logger.warning("the start of %r that a transaction has committed is dropped: %s", row.name, error)
            return False

    async def _follow_up(
        self, connection: AsyncConnection[Any], decided: Sequence[tuple[Enqueued, Decided | None]]
    ) -> None:
        done = [(row, one) for row, one in decided if one is not None]
        poll = self._settings.safety_poll
        self._announce([topic for row, one in done for topic in topics_of(row, one, poll)])
        await wake_successors(connection, self._settings.schema, [one for _, one in done], self._announce)


def _is_about_a_start(error: Exception) -> bool:
    """Whether the others can be applied without it: it cannot be read here, or the database refuses it."""
    return is_refused(error) or isinstance(error, CodecError)
