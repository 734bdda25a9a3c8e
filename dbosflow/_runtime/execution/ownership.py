"""Ownership of a runner's workflows: a run's next pass takes a later epoch; released workflows go to their queues."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Protocol

import psycopg

from dbosflow._store import workflow
from dbosflow._store.notify import ALARM_TOPIC, queue_topic
from dbosflow.errors import DbosflowError
from dbosflow.failures import brief_error, dump_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractAsyncContextManager

    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.leases.worker_lease import WorkerLease
    from dbosflow.config import Settings
    from dbosflow.errors import CodecError

logger = logging.getLogger("dbosflow.runner")

_COMMIT_PAUSE = 0.02
"""Seconds until the next look at a row that the COMMIT of a transaction holds."""
_RELEASES = 5
"""How often workflows are given up one by one; after that they go with the worker."""


class OwnershipPort(Protocol):
    """What a runner asks about the workflows that it owns."""

    async def renew(self, run: Run, /) -> int | None:
        """The epoch of the next pass over the workflow of ``run``; ``None`` if it is owned elsewhere."""

    async def release(self, runs: list[Run], /) -> None:
        """Gives up the workflows of these runs, which have stopped."""

    async def put_off(self, run: Run, why: CodecError, /) -> None:
        """Gives up the workflow of a run that has stopped, for some time."""


class LeaseOwnership:
    """Ownership by the lease of a worker, over its ``connection`` between two batches."""

    def __init__(
        self,
        lease: WorkerLease,
        settings: Settings,
        connection: Callable[[], AbstractAsyncContextManager[Any]],
        announce: Callable[[Iterable[str]], None],
    ) -> None:
        self._lease = lease
        self._schema = settings.schema
        self._connection = connection
        self._announce = announce

    async def renew(self, run: Run) -> int | None:
        """The epoch of the next pass over the workflow of ``run``; ``None`` if it is owned elsewhere."""
        while True:
            try:
                async with self._connection() as connection:
                    return await workflow.renew_epoch(
                        connection, self._schema, workflow_id=run.workflow_id, worker_id=self._lease.id, epoch=run.epoch
                    )
            except workflow.RowLockedError:
                await asyncio.sleep(_COMMIT_PAUSE)

    async def put_off(self, run: Run, why: CodecError) -> None:
        """Has the workflow of a run wait for some time, after which any worker may claim it."""
        error = brief_error(dump_error(why))
        for _ in range(_RELEASES):
            try:
                async with self._connection() as connection:
                    was_put_off = await workflow.put_off(
                        connection,
                        self._schema,
                        workflow_id=run.workflow_id,
                        worker_id=self._lease.id,
                        epoch=run.epoch,
                        error=error,
                        was_requested=run.was_requested,
                    )
            except (psycopg.Error, DbosflowError, OSError) as error:
                logger.warning("workflow %s is given up with its worker: %s", run.workflow_id, error)
                return
            if was_put_off:
                self._announce([ALARM_TOPIC])
                return
            await asyncio.sleep(_COMMIT_PAUSE)

    async def release(self, runs: list[Run]) -> None:
        """Returns the workflows of these runs to their queues, now or a little later."""
        for _ in range(_RELEASES):
            try:
                async with self._connection() as connection:
                    released = await workflow.release(
                        connection, self._schema, self._lease.id, [(run.workflow_id, run.epoch) for run in runs]
                    )
            except (psycopg.Error, DbosflowError, OSError) as error:
                logger.warning("%d workflows are handed over a little later: %s", len(runs), error)  # with the worker
                return
            self._announce(map(queue_topic, set(released.values())))
            runs = [run for run in runs if run.workflow_id not in released]
            if not runs:
                return
            await asyncio.sleep(_COMMIT_PAUSE)
