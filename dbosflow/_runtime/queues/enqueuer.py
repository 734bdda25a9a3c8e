"""Enqueues workflows for workers: many at a time in one statement, on a connection of its own. Needs no lease.

The hints of a lone one follow its row on that connection, in a transaction of their own: an idle worker is awake before
the row's own process has heard that it is durable. Those of many are announced together.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from dbosflow._records.producers import is_unsure
from dbosflow._runtime.process.service import Service, set_closed
from dbosflow._runtime.process.session import Session
from dbosflow._runtime.streams.outside_writer import unsure_error
from dbosflow._sessions import WORKER
from dbosflow._store import workflow
from dbosflow._store.queries import is_refused
from dbosflow.errors import PermissionDeniedError, SerializationError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.journal.owner import Announce
    from dbosflow._store.connection import Connection
    from dbosflow._store.workflow import Enqueued
    from dbosflow.config import Settings

_NOTIFY_PAUSE = 10.0
"""Seconds for which no hint follows a row on its connection, after one that failed: its lock may be held for long."""


class _Pending(NamedTuple):
    row: Enqueued
    topics: Sequence[str]
    futures: list[asyncio.Future[bool]]


class Enqueuer(Service):
    """The group commit of enqueues. ``announce`` gets the topics of new rows, and ``on_enqueued`` their ids."""

    def __init__(
        self,
        url: str,
        settings: Settings,
        pool: AsyncConnectionPool[Any],
        *,
        announce: Announce,
        on_enqueued: Callable[[Iterable[str]], None],
    ) -> None:
        super().__init__("enqueuer", interval=None)
        self._announce, self._on_enqueued = announce, on_enqueued
        self._session = Session(url, settings, WORKER, pool)
        self._schema = settings.schema
        self._batch_bytes = settings.batch_bytes
        self._pending: dict[str, _Pending] = {}
        self._notifies_from = 0.0

    @property
    def backend_pid(self) -> int | None:
        """The server process of the connection, by which a listener of this engine knows the engine's own hints."""
        return self._session.backend_pid

    async def enqueue(self, row: Enqueued, topics: Sequence[str]) -> bool:
        """Enqueues a workflow, and announces ``topics``; returns once it is durable whether its row is new.

        If it is not, nothing is announced: the row may be that of an earlier try whose answer was lost. Of callers with
        an equal id the first one has inserted it.
        """
        self.check_open()
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pending.setdefault(row.workflow_id, _Pending(row, topics, [])).futures.append(future)
        self.wake()
        return await future

    async def close(self) -> None:
        """Ends the writes; a waiting caller gets an error, since its row is not known to be durable."""
        await super().close()
        set_closed(future for one in self._pending.values() for future in one.futures)
        await self._session.close()

    async def work_once(self) -> bool:
        """Writes what is pending, up to the limit of a batch.

        A failed statement is sent again, since a repeated enqueue does nothing.
        """
        if self._failures:
            self._give_up()
        pending = self._take()
        if not pending:
            return False
        try:
            async with self._session.turn() as connection:
                new, notified = await self._write(connection, list(pending.values()))
        except BaseException as error:
            if isinstance(error, PermissionDeniedError):  # trying again would change nothing
                for future in (one for each in pending.values() for one in each.futures if not one.done()):
                    future.set_exception(error)
                return bool(self._pending)
            if isinstance(error, Exception) and is_refused(error):
                await self._one_by_one(pending)
                return True
            self._put_back(pending)
            raise
        self._answer(pending.values(), new, notified=notified)
        return bool(self._pending)

    def _take(self) -> dict[str, _Pending]:
        """The next rows, about as many bytes as a batch may have: Postgres takes no message of 1 GB, however often."""
        taken, limit, rest = {}, self._batch_bytes, iter(self._pending.items())
        for workflow_id, one in rest:
            taken[workflow_id] = one
            limit -= one.row.size
            if limit <= 0:
                break
        self._pending = dict(rest)
        return taken

    async def _write(self, connection: Connection, pending: Sequence[_Pending]) -> tuple[Collection[str], bool]:
        """Writes the rows, behind a lone one its hints. Returns the new ids, and whether the hints were sent."""
        first, *others = pending
        is_prepared = connection.prepare_threshold is not None
        if others or not (is_prepared and first.topics) or time.monotonic() < self._notifies_from:
            return await workflow.enqueue(connection, self._schema, [one.row for one in pending]), False
        is_new, notified = await workflow.enqueue_and_notify(connection, self._schema, first.row, first.topics)
        if not notified:
            self._notifies_from = time.monotonic() + _NOTIFY_PAUSE
        return [first.row.workflow_id] if is_new else [], notified

    def _give_up(self) -> None:
        """Forgets starts whose message, if it is there, will soon not be found by its producer any more."""
        for workflow_id, one in list(self._pending.items()):
            if one.row.message is not None and is_unsure(one.row.message.producer):
                del self._pending[workflow_id]
                for future in (each for each in one.futures if not each.done()):
                    future.set_exception(unsure_error(workflow_id))

    async def _one_by_one(self, pending: dict[str, _Pending]) -> None:
        """Writes the rows one by one after the database has refused one for its data; the others go on without it."""
        rest = dict(pending)
        for workflow_id, one in pending.items():
            try:
                async with self._session.turn() as connection:
                    new, notified = await self._write(connection, [one])
            except BaseException as refused:
                if not (isinstance(refused, Exception) and is_refused(refused)):
                    self._put_back(rest)
                    raise
                for future in one.futures:
                    if not future.done():
                        future.set_exception(SerializationError(f"the database refused the arguments: {refused}"))
            else:
                self._answer([one], new, notified=notified)
            del rest[workflow_id]

    def _put_back(self, pending: dict[str, _Pending]) -> None:
        """Keeps the rows that could not be written for the next statement, before those that came meanwhile."""
        for workflow_id, one in self._pending.items():
            pending.setdefault(workflow_id, one._replace(futures=[])).futures.extend(one.futures)
        self._pending = pending

    def _answer(self, written: Iterable[_Pending], new: Collection[str], *, notified: bool) -> None:
        """The rows are durable: tells the workers of those that are new, then the callers.

        Where all callers were cancelled, nobody asks whether an old row is that of a try whose answer was lost.
        """
        topics: dict[str, None] = {}
        for one in written:
            if one.row.workflow_id in new or all(future.done() for future in one.futures):
                topics |= dict.fromkeys(one.topics)
        if topics:
            self._announce(topics, notified=notified)
        self._on_enqueued(new)
        for one in written:
            is_new = one.row.workflow_id in new
            for future in one.futures:
                if not future.done():
                    future.set_result(is_new)
                is_new = False
