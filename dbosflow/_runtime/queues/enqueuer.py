"""Enqueues workflows for workers: many at a time in one statement, on a connection of the pool. Needs no lease."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from dbosflow._records.producers import is_unsure
from dbosflow._runtime.process.service import Service, set_closed
from dbosflow._runtime.streams.outside_writer import unsure_error
from dbosflow._store import workflow
from dbosflow._store.queries import is_refused
from dbosflow.errors import PermissionDeniedError, SerializationError

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool

    from dbosflow._store.workflow import Enqueued


class Enqueuer(Service):
    """The group commit of enqueues."""

    def __init__(self, pool: AsyncConnectionPool[Any], schema: str) -> None:
        super().__init__("enqueuer", interval=None)
        self._pool = pool
        self._schema = schema
        self._pending: dict[str, tuple[Enqueued, list[asyncio.Future[bool]]]] = {}

    async def enqueue(self, row: Enqueued) -> bool:
        """Enqueues a workflow; returns, once it is durable, whether its row is new. An equal id is inserted once."""
        self.check_open()
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pending.setdefault(row.workflow_id, (row, []))[1].append(future)
        self.wake()
        return await future

    async def close(self) -> None:
        """Ends the writes; a waiting caller gets an error, since its row is not known to be durable."""
        await super().close()
        set_closed(future for _, futures in self._pending.values() for future in futures)

    async def work_once(self) -> bool:
        """Writes all pending rows; a failed statement is sent again, since a repeated enqueue does nothing."""
        if self._failures:
            self._give_up()
        pending, self._pending = self._pending, {}
        if not pending:
            return False
        rows = [row for row, _ in pending.values()]
        try:
            async with self._pool.connection() as connection:
                new = await workflow.enqueue(connection, self._schema, rows)
        except BaseException as error:
            if isinstance(error, PermissionDeniedError):  # trying again would change nothing
                for future in (one for _, futures in pending.values() for one in futures if not one.done()):
                    future.set_exception(error)
                return bool(self._pending)
            if isinstance(error, Exception) and is_refused(error):
                await self._one_by_one(pending)
                return True
            self._put_back(pending)
            raise
        for workflow_id, (_, futures) in pending.items():
            _set_results(futures, is_new=workflow_id in new)
        return bool(self._pending)

    def _give_up(self) -> None:
        """Forgets starts whose message, if it is there, will soon not be found by its producer any more."""
        for workflow_id, (row, futures) in list(self._pending.items()):
            if row.message is not None and is_unsure(row.message.producer):
                del self._pending[workflow_id]
                for future in (one for one in futures if not one.done()):
                    future.set_exception(unsure_error(workflow_id))

    async def _one_by_one(self, pending: dict[str, tuple[Enqueued, list[asyncio.Future[bool]]]]) -> None:
        """Writes the rows one by one after the database has refused one for its data; the others go on without it."""
        rest = dict(pending)
        for workflow_id, (row, futures) in pending.items():
            try:
                async with self._pool.connection() as connection:
                    new = await workflow.enqueue(connection, self._schema, [row])
            except BaseException as refused:
                if not (isinstance(refused, Exception) and is_refused(refused)):
                    self._put_back(rest)
                    raise
                for future in futures:
                    if not future.done():
                        future.set_exception(SerializationError(f"the database refused the arguments: {refused}"))
            else:
                _set_results(futures, is_new=workflow_id in new)
            del rest[workflow_id]

    def _put_back(self, pending: dict[str, tuple[Enqueued, list[asyncio.Future[bool]]]]) -> None:
        """Keeps the rows that could not be written for the next statement, before those that came meanwhile."""
        for workflow_id, (row, futures) in self._pending.items():
            pending.setdefault(workflow_id, (row, []))[1].extend(futures)
        self._pending = pending


def _set_results(futures: list[asyncio.Future[bool]], *, is_new: bool) -> None:
    for first, future in enumerate(futures):
        if not future.done():
            future.set_result(is_new and first == 0)
