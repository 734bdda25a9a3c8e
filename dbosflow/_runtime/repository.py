"""Queries for workflows, steps and streams over the pool, each repeated when its connection breaks; and pruning."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout

from dbosflow._runtime.streams.paging import truncated
from dbosflow._store import attribute, listing, message, outbox, retention, step, stream, waiter, workflow
from dbosflow._store.connect import is_silent
from dbosflow._store.queries import is_refused
from dbosflow.errors import DatabaseUnavailableError, EngineClosedError, StreamNotFoundError, WorkflowNotFoundError
from dbosflow.types import WorkflowStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from psycopg import AsyncConnection
    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.streams.position import ReadRequest
    from dbosflow._store.connection import Connection
    from dbosflow._store.listing import Position
    from dbosflow._store.message import LastValue
    from dbosflow._store.queries import Rows
    from dbosflow._store.workflow import Started
    from dbosflow.config import Settings
    from dbosflow.filters import WorkflowFilter
    from dbosflow.types import StepInfo, StreamInfo, WorkflowInfo

T = TypeVar("T")

_PAUSE = 0.1
"""Seconds between two tries of a query. The pool waits for a connection by itself, so this is only for what broke."""

_LOOK = 2.0
"""Seconds for the answer to a look whether the database answers anybody."""

_COMMIT = 0.01
_TRIES = 100
"""Seconds until a commit is over, usually; and how many times that long a removal waits for one."""

logger = logging.getLogger("dbosflow.engine")


class Repository:
    """Queries for what is stored in one schema. Each is one statement, and waits for no batch.

    When a connection breaks, the query is repeated on another one: for ``connect_timeout``, or, if ``patient``, as long
    as it takes.
    """

    def __init__(self, pool: AsyncConnectionPool[Any], settings: Settings, *, patient: bool = False) -> None:
        self._pool = pool
        self._settings = settings
        self._patient = patient

    async def ask(self, statement: Callable[..., Awaitable[T]], *values: object) -> T:
        """Sends a statement on a pooled connection, and returns its answer.

        The statement runs in a task of its own: the caller may be a workflow's body, which is ended by an error that no
        pool knows.

        Raises:
            DatabaseUnavailableError: there was no connection in time.
            EngineClosedError: the engine was closed meanwhile.
        """
        return await asyncio.get_running_loop().create_task(self._ask(statement, values), context=Context())

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[AsyncConnection[Any], str]]:
        """A pooled connection for several statements, and the schema. Nothing is repeated if it breaks."""
        async with self._pool.connection() as connection:
            yield connection, self._settings.schema

    async def _ask(self, statement: Callable[..., Awaitable[T]], values: tuple[object, ...]) -> T:
        deadline = time.monotonic() + self._settings.connect_timeout
        while True:
            try:
                async with self._pool.connection() as connection, self._watched(connection):
                    return await statement(connection, self._settings.schema, *values)
            except PoolClosed as error:
                msg = "the engine was closed before the database had answered"
                raise EngineClosedError(msg) from error
            except psycopg.OperationalError as error:
                if is_refused(error):
                    raise
                if self._patient:
                    logger.warning("the database does not answer: %s; asking again", error)
                elif isinstance(error, PoolTimeout) or time.monotonic() > deadline:
                    raise self._unavailable(error) from error
                await asyncio.sleep(_PAUSE * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)

    @asynccontextmanager
    async def _watched(self, connection: Connection) -> AsyncIterator[None]:
        """Breaks the connection when the database is silent, to others as well. What is only slow has its time."""
        if self._patient:
            yield
            return
        loop = asyncio.get_running_loop()
        looks: list[asyncio.Task[None]] = []
        timer = loop.call_later(
            self._settings.connect_timeout, lambda: looks.append(loop.create_task(self._look(connection)))
        )
        try:
            yield
        finally:
            timer.cancel()
            for look in looks:
                look.cancel()

    async def _look(self, connection: Connection) -> None:
        while True:
            if await is_silent(str(self._pool.conninfo), _LOOK, pooled=bool(self._settings.pooled)):
                connection.give_up()
                return
            await asyncio.sleep(self._settings.connect_timeout)

    def _unavailable(self, error: psycopg.OperationalError) -> DatabaseUnavailableError:
        seconds = f"{self._settings.connect_timeout:g} s"
        if not isinstance(error, PoolTimeout):
            return DatabaseUnavailableError(f"the database did not answer within {seconds}: {error}")
        return DatabaseUnavailableError(
            f"no connection came free within {seconds}: either all {self._settings.pool_size} of the pool are busy "
            "(raise pool_size), or the server gives none (is it up, and below its max_connections?)"
        )

    # -- workflows ---------------------------------------------------------------------------------------------------

    async def started(self, workflow_id: str) -> Started | None:
        """What a workflow id stands for."""
        return (await self.ask(workflow.started, [workflow_id])).get(workflow_id)

    async def status(self, workflow_id: str) -> WorkflowStatus:
        """The workflow's status."""
        found = await self.ask(workflow.outcomes, [workflow_id])
        if workflow_id not in found:
            if await self.ask(outbox.waiting_start, workflow_id) is not None:
                return WorkflowStatus.QUEUED
            found = await self.ask(workflow.outcomes, [workflow_id])  # it may have been applied between the two
        if workflow_id not in found:
            raise not_found(workflow_id)
        return found[workflow_id].status

    async def way(self, start: str, stop: str) -> list[str]:
        """The suspended workflows from ``start`` to ``stop``, each of which waits for the end of the next; or none."""
        return await self.ask(waiter.way, start, stop)

    async def info(self, workflow_id: str) -> WorkflowInfo:
        """The record of the workflow."""
        found = (
            await self.ask(listing.show, workflow_id)
            or await self.ask(outbox.waiting_start, workflow_id)
            or await self.ask(listing.show, workflow_id)
        )
        if found is None:
            raise not_found(workflow_id)
        return found

    async def rows(self, which: WorkflowFilter, position: Position, limit: int, *, records: bool = True) -> Rows:
        """The first ``limit`` rows of a listing after a position, each fetched in statements of limited work."""
        source = await self.ask(listing.source_of, which)
        found: Rows = []
        place: Position | None = position
        # Most listings meet what they look for soon; the others look further with each statement.
        scan = min(2 * limit, listing.SCAN) if source in listing.IN_ORDER_OF_AGE else listing.SCAN
        while place is not None and len(found) < limit:
            look = partial(
                listing.stretch, source=source, position=place, limit=limit - len(found), scan=scan, records=records
            )
            some = await self.ask(look, which)
            found += some.rows
            place = some.next
            scan = min(4 * scan, listing.SCAN)
        return found

    async def count(self, which: WorkflowFilter, by: str | None) -> dict[str, int]:
        """The numbers of workflows that the filter selects, by the values of a column."""
        return await self.ask(listing.count, which, by)

    async def steps(self, workflow_id: str) -> list[StepInfo]:
        """The workflow's records, in the order they were made."""
        return await self.ask(step.list_steps, workflow_id)

    async def step_page(self, workflow_id: str, place: tuple[int, int], limit: int, *, outputs: bool) -> list[StepInfo]:
        """The first ``limit`` records of the workflow after a place."""
        found = await self.ask(partial(step.step_page, place=place, limit=limit, outputs=outputs), workflow_id)
        if not found:
            await self.status(workflow_id)  # raises where there is no such workflow
        return found

    async def collected(self, workflow_id: str, loop_key: str) -> list[str]:
        """The results of a loop's handler for each item, as JSON."""
        return await self.ask(step.collected, workflow_id, loop_key)

    async def update_attributes(self, workflow_id: str, changes: Mapping[str, str | None]) -> None:
        """Sets and removes attributes of the workflow."""
        if not await self.ask(attribute.update, workflow_id, changes):
            raise not_found(workflow_id)

    # -- streams -----------------------------------------------------------------------------------------------------

    async def streams(self, workflow_id: str, reserved: bool = False) -> list[StreamInfo]:  # noqa: FBT001, FBT002 (by the host)
        """The workflow's streams; with ``reserved``, also the engine's own."""
        found = await self.ask(stream.list_streams, workflow_id, None, reserved)
        if not found:
            await self.status(workflow_id)  # raises where there is no such workflow
        return found

    async def stream(self, workflow_id: str, key: str) -> StreamInfo:
        """One stream of the workflow."""
        found = await self.ask(stream.list_streams, workflow_id, key)
        if not found:
            await self.status(workflow_id)
            msg = f"nobody has written to stream {key!r} of workflow {workflow_id!r}"
            raise StreamNotFoundError(workflow_id, key, msg)
        return found[0]

    async def resolve_start(self, request: ReadRequest) -> int:
        """The offset that a start of ``"tail"``, or of a number of values before the end, stands for."""
        if isinstance(request.start, str):
            return await self.ask(stream.tail, request.workflow_id, request.key)
        find = partial(stream.offset_from_end, count=-request.start, committed=request.view == "committed")
        return await self.ask(find, request.workflow_id, request.key)

    async def emitted(self, workflow_id: str, key: str, producer: str) -> list[str]:
        """The durable values of a stream's producer, as the JSON arrays of its blocks."""
        if await self.ask(retention.is_trimmed, workflow_id, key, producer):
            first = await self.ask(retention.first, workflow_id, key)
            raise truncated(workflow_id, key, 0, first or 0)
        return await self.ask(stream.emitted, workflow_id, key, producer)

    async def events(self, workflow_id: str, committed: bool) -> dict[str, LastValue]:  # noqa: FBT001 (by the host)
        """The last value of each of the workflow's events, by key."""
        found: dict[str, LastValue] = {}
        for key in await self.ask(message.events, workflow_id):
            last = await self.ask(message.event, workflow_id, key, committed)
            if last.offset is not None:
                found[key] = last
        if not found:
            await self.status(workflow_id)  # raises where there is no such workflow
        return found

    # -- retention ---------------------------------------------------------------------------------------------------

    async def trim(self, workflow_id: str, key: str, before: int) -> int:
        """Removes the values before an offset of a stream, as far as allowed; returns the first offset still there."""
        first = await self.ask(retention.trim, workflow_id, key, before)
        if first is None:
            await self.stream(workflow_id, key)  # raises
        return first or 0

    async def prune(self, age: float, batch: int, dry_run: bool) -> int:  # noqa: FBT001 (handed on by position)
        """Removes workflows that ended more than ``age`` seconds ago, ``batch`` in a transaction; returns how many."""
        if dry_run:
            return await self.ask(retention.prunable, age)
        pruned = 0
        while True:
            found = await self._once_committed(partial(self.ask, retention.prune, age, batch))
            if found is None:
                return pruned
            pruned += found
            if found < batch:
                return pruned

    async def delete(self, ids: Sequence[str], *, children: bool) -> dict[str, tuple[str, str]]:
        """Removes these workflows, as far as they may go; returns what came of each: an outcome, and its status."""
        remove = partial(retention.delete, children=children)
        found = await self._once_committed(partial(self.ask, remove, ids))
        if found is None:
            statuses = await self.ask(workflow.outcomes, list(ids))
            return {one: ("held", outcome.status) for one, outcome in statuses.items()}
        return found

    async def _once_committed(self, remove: Callable[[], Awaitable[T]]) -> T | None:
        """Removes workflows once those who may have written to them have committed; ``None`` if that takes long."""
        for _ in range(_TRIES):
            with suppress(retention.WritersCommitError):
                return await remove()
            await asyncio.sleep(_COMMIT)
        return None


def not_found(workflow_id: str) -> WorkflowNotFoundError:
    """The error for an id without a workflow."""
    return WorkflowNotFoundError(workflow_id, f"there is no workflow {workflow_id!r}")
