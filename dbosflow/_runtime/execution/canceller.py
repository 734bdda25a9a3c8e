"""Receives cancel requests for the runs of this worker, and has the runner carry them out.

A cancel is a request in the workflow's row, since only the owner's fence may write for a run. A passed deadline (see
``alarm``) is one, too.

```text
running ──cancel()──► requested ─notify─► delivered ──► its children are asked ──► ended: cancelled
                          │  the body is notified, and no operation of the body begins any more
                          └── never ran: cancelled in the same statement
```

*Requested* is final: the statement that would end the workflow as succeeded, failed or blocked reads that row, and
writes nothing; then the owner ends the workflow as cancelled. So a caller that gets "requested" knows the end.

The owner is notified in four ways: by the hint, at once; by the answer of its next batch, before anything that the
batch made durable is delivered; with its claim, if it is the next owner; by the safety poll, if it writes nothing and
the hint was lost. No step, child or loop item begins once any of these has arrived.

What a request can meet, and the result:

- *an end in the same instant*: the row has one order. If the end was first, ``cancel`` waits for it, and answers
  "ended". If the cancel was first, the end is not written. If the cancel commits between the snapshot and the row, all
  of the statement is rolled back, and sent again.
- *a batch on the wire* is written, or not, as ever. Children whose starts are in the batch exist before the parent
  asks for their cancellation, since the parent waits until everything that the run has appended is durable.
- *a claim, a start or a reload on its way*: the worker owns the workflow and does not run it yet. Such a request is
  kept until it does; what is claimed is known between two batches, so the canceller looks again then.
- *a takeover*: the request stands in the row, and the claim hands it over. The next owner runs nothing of the body.
- *a dead owner, a queue, a parked workflow*: as a takeover; a parked workflow is queued to get an owner.
- *a drain*: the body is notified, or the next owner carries it out.
- *a body that does not end* within the grace: the run ends without it, with its children.
- *a second cancel* changes nothing, except that one with children adds the children to the first.

Children: one request, in one statement, covers all descendants, as far as no generation between has ended. Children
that begin meanwhile are cancelled by their parent, which has a request of its own. With ``children=False`` both are
left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbosflow._runtime.process.service import Service
from dbosflow._store import workflow
from dbosflow._store.notify import CANCEL_TOPIC

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.execution.runner import Runner
    from dbosflow._runtime.journal.journal import Journal
    from dbosflow._runtime.leases.worker_lease import WorkerLease
    from dbosflow._runtime.wakeups.topics import Wakeups


class Canceller(Service):
    """Looks for cancel requests for the runs of one worker."""

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        schema: str,
        *,
        lease: WorkerLease,
        journal: Journal[Run],
        runner: Runner,
        wakeups: Wakeups,
    ) -> None:
        super().__init__("canceller", interval=None)
        self._pool = pool
        self._schema = schema
        self._lease = lease
        self._journal = journal
        self._runner = runner
        self._unsubscribe = wakeups.subscribe(CANCEL_TOPIC, self.wake)

    async def close(self) -> None:
        """Stops listening."""
        self._unsubscribe()
        await super().close()

    async def work_once(self) -> bool:
        """Passes on the pending requests."""
        if not self._runner.known():
            async with self._lease.lock:  # a claim may be on its way, or a start
                pass
            if not self._runner.known():
                return False
        async with self._pool.connection() as connection:
            requested = await workflow.cancel_requests(connection, self._schema, self._lease.id)
        unknown = [one for one, request in requested.items() if not self._runner.cancel(one, request)]
        if unknown:  # claimed or started a moment ago: between two batches, all owned workflows are known
            async with self._journal.connection():
                for workflow_id in unknown:
                    self._runner.cancel(workflow_id, requested[workflow_id])
        return False
