"""A journal on a bench: a real worker lease on a real database, runs made by hand, and faults between the two."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self

import psycopg

from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.execution.drivers import LoopDriver
from dbosflow._runtime.execution.environment import RunEnvironment
from dbosflow._runtime.execution.launch import Launch
from dbosflow._runtime.execution.run import Run
from dbosflow._runtime.execution.thread_driver import ThreadDriver
from dbosflow._runtime.journal.journal import Journal
from dbosflow._runtime.leases.worker_lease import WorkerLease
from dbosflow._runtime.process.thread_pool import ThreadPool
from dbosflow._runtime.replay.branch import RunningCode
from dbosflow._runtime.runs.entries import Continuation, Ending, Record, Start
from dbosflow._runtime.streams.statistics import StreamStatistics
from dbosflow._store.batch import BatchResult, write_batch
from dbosflow.config import Settings
from dbosflow.definitions import WorkflowDef
from dbosflow.types import WorkflowStatus
from tests.ports import NoEngine
from tests.runtime.sessions import no_pool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from types import TracebackType

    from dbosflow._runtime.journal.owner import Write
    from dbosflow._store.batch_rows import BatchRows
    from dbosflow._store.cancel_request import CancelRequest
    from dbosflow._store.carried import Carried

    Send = Callable[[], Awaitable[BatchResult]]
    Fault = Callable[[Send], Awaitable[BatchResult]]


def before_sending(error: Exception) -> Fault:
    """The statement never reaches the server, or is rolled back there."""

    async def fault(send: Send) -> BatchResult:
        raise error

    return fault


def after_the_commit(error: Exception) -> Fault:
    """The statement is committed, its answer lost."""

    async def fault(send: Send) -> BatchResult:
        await send()
        raise error

    return fault


def sqlstate(code: str) -> psycopg.Error:
    """The error that psycopg raises for that code."""
    return psycopg.errors.lookup(code)(f"injected {code}")


class Bench:
    """Owns what a journal works with, and notes the events of its runs."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.settings = Settings(**settings)
        self.url = url
        self.lease = WorkerLease(
            url, self.settings, no_pool(url), on_new_timeline=lambda: self.events.append("new timeline")
        )
        self.faults: deque[Fault | None] = deque()
        """What happens to the next statements, one each; ``None``: nothing. Then nothing any more."""
        self.write: Write = write_batch
        """What sends a statement to which nothing happens."""
        self.sent: list[BatchRows] = []
        self.events: list[Any] = []
        self.topics: list[str] = []
        self.notified: list[bool] = []
        """For each announcement whether other processes know."""
        self.runs: list[Run] = []
        self._resources = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as resources:
            resources.push_async_callback(self.lease.disconnect)
            async with self.lease.lock:
                await self.lease.open()
            self.journal = Journal(
                self.lease, self.settings, self, self._announce, StreamStatistics(), write=self._write_batch
            )
            self.journal.open()
            resources.push_async_callback(self.journal.close)
            self.database = await resources.enter_async_context(
                await psycopg.AsyncConnection.connect(self.url, autocommit=True)
            )
            self._resources = resources.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._resources.aclose()

    async def _write_batch(self, connection: psycopg.AsyncConnection[Any], rows: BatchRows, *rest: Any) -> BatchResult:
        self.sent.append(rows)
        fault = self.faults.popleft() if self.faults else None

        async def send() -> BatchResult:
            return await self.write(connection, rows, *rest)

        return await (send() if fault is None else fault(send))

    def _announce(self, topics: Iterable[str], *, at_once: bool = True, notified: bool = False) -> None:
        self.topics.extend(topics)
        self.notified.append(notified)

    # -- what the journal calls ---------------------------------------------------------------------------------------

    def ended(self, run: Run, ending: Ending) -> None:
        """The end of ``run`` is durable."""
        self.events.append(("ended", run.workflow_id, str(ending.status)))

    def continued(self, run: Run, continuation: Continuation, carried: Carried) -> None:
        """The end of an iteration is durable."""
        self.events.append(("continued", run.workflow_id, continuation.iteration, carried))

    def lost(self, run: Run) -> None:
        """``run`` is owned elsewhere."""
        self.events.append(("lost", run.workflow_id))
        run.stop("lost")

    def moved(self, run: Run) -> None:
        """The tables are not what ``run`` remembers."""
        self.events.append(("moved", run.workflow_id))
        run.stop("moved")

    def cancel_requested(self, run: Run, request: CancelRequest) -> None:
        """Somebody has asked to cancel it."""
        if run.cancel(request):
            self.events.append(("cancel", run.workflow_id))

    def overtaken(self, run: Run) -> None:
        """A cancel came before its end."""
        self.events.append(("overtaken", run.workflow_id))
        self.journal.finish(run, Ending(WorkflowStatus.CANCELLED))

    def unwritable(self, run: Run) -> None:
        """The database takes nothing of ``run``."""
        self.events.append(("unwritable", run.workflow_id))

    def lease_lost(self) -> None:
        """Every run is owned elsewhere."""
        self.events.append("lease lost")
        for run in self.runs:
            run.stop("lease lost")

    # -- what a test does --------------------------------------------------------------------------------------------

    def start(self, workflow_id: str, arguments_text: str = "{}") -> asyncio.Future[Any]:
        """Appends a start; what was decided."""
        decided: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.journal.start(Start(workflow_id, "flow", arguments_text, "", 0, decided.set_result))
        return decided

    async def run(self, workflow_id: str) -> Run:
        """A run of a workflow that was started here."""
        assert await self.start(workflow_id) is True
        threads = ThreadPool(1, "test")  # which no body asks for any
        drivers = LoopDriver(threads), ThreadDriver(asyncio.get_running_loop(), threads)
        environment = RunEnvironment(
            self.lease, self.settings, self.journal.submit, *drivers, engine=NoEngine(), running_code=RunningCode()
        )
        definition = WorkflowDef(lambda: None, "flow")
        run = Run(environment, Launch(workflow_id, definition, "{}", ()))
        self.runs.append(run)
        return run

    async def forget(self) -> None:
        """Lets the journal come to rest, and forgets statements, events and topics so far."""
        await self.journal.flush()
        self.sent.clear()
        self.events.clear()
        self.topics.clear()

    async def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """What the database holds."""
        cursor = await self.database.execute(query.encode(), values)
        return await cursor.fetchall() if cursor.description else []

    async def records(self) -> list[str]:
        """The records of all workflows, as ``workflow:key``."""
        rows = await self.rows("SELECT workflow_id || ':' || key FROM dbosflow.step ORDER BY workflow_id, seq")
        return [row for (row,) in rows]


def record(run: Run, key: str, output: str = "1") -> asyncio.Future[None]:
    """Appends a record; done when it is durable."""
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    run.append(Record(key, RecordKind.STEP, output=output, waiter=waiter))
    return waiter


def write(run: Run, *values: str, key: str = "out") -> None:
    """Appends stream values."""
    for value in values:
        run.streams.write(key, value, run.root.producer)


def end(run: Run, output: str = '"done"') -> None:
    """Appends the end."""
    run.end(Ending(WorkflowStatus.SUCCEEDED, output=output))
