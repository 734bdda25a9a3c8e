"""The rig: attaches traps and observers to an open engine. Only this module of ``testing`` uses its private parts.

A simulated crash looks to other workers like a real one. The worker's runs stop where they are and write nothing more.
Another connection marks the worker's row dead and returns its workflows to their queues, with the statements that a
reclaimer uses. Then the engine continues as another worker, with a lease of a new id; it claims the workflows and
replays them. One thing differs from a real crash: the lease counts as released, so its end is not held against the
workflows. A test may crash an engine as often as it likes; other workflows on it never become suspects, which run alone
and are parked in the end.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast
from uuid import UUID

from dbosflow._store import worker, workflow
from dbosflow._store.connect import connect_async
from dbosflow._store.notify import DEATH_TOPIC, WORKERS_TOPIC, queue_topic
from dbosflow.testing.points import holds

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from dbosflow._runtime.engine.core import EngineCore
    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.journal.batch import Batch
    from dbosflow._runtime.process.clock import Clock
    from dbosflow.engine import Engine
    from dbosflow.testing.points import CrashPoint

T = TypeVar("T")

logger = logging.getLogger("dbosflow.testing")

_LAST_MOMENTS = 10.0
"""Seconds that code of a dead worker gets to notice. A thread in a step cannot be ended; its outcome is lost."""

_killed: set[UUID] = set()
"""The ids of the leases that a test has ended. Their loss needs no warning."""


def _is_news(entry: logging.LogRecord) -> bool:
    worker_id = entry.args[0] if isinstance(entry.args, tuple) and entry.args else None
    return not (isinstance(worker_id, UUID) and worker_id in _killed)


logging.getLogger("dbosflow.journal").addFilter(_is_news)


class EngineObserver(Protocol):
    """Is notified of what an engine does."""

    def launched(self, run: Run) -> None:
        """A run is about to begin."""

    def committed(self, batch: Batch[Run]) -> None:
        """A batch is durable."""


class Trap:
    """A crash point that waits for its operation."""

    def __init__(self, point: CrashPoint) -> None:
        self.point = point
        self.sprung = False
        self.name_of: Callable[[str], str] = str
        """Maps a workflow's id to its name in the crash point."""

    def springs(self, batch: Batch[Run], *, written: bool) -> bool:
        """Whether the crash happens now. It happens only once."""
        if self.sprung or written != (self.point.when == "after") or not self._is_at(batch):
            return False
        self.sprung = True
        return True

    def _is_at(self, batch: Batch[Run]) -> bool:
        return holds(batch, self.point.operation, self.name_of)


class Rig:
    """All that is attached to one engine."""

    def __init__(self, engine: Engine) -> None:
        self._core = core_of(engine)
        self._url = engine.database_url
        self._settings = engine._settings  # noqa: SLF001 (see above)
        self._traps: list[Trap] = []
        self._observers: list[EngineObserver] = []
        self.clock: Clock | None = None
        """The clock of the runs that begin from now on."""

    @contextmanager
    def trap(self, trap: Trap) -> Iterator[Trap]:
        """Sets a trap for the duration of the block."""
        self._traps.append(trap)
        try:
            yield trap
        finally:
            self._traps.remove(trap)

    @contextmanager
    def observing(self, observer: EngineObserver) -> Iterator[None]:
        """Notifies an observer of everything during the block."""
        self._observers.append(observer)
        try:
            yield
        finally:
            self._observers.remove(observer)

    def launched(self, run: Run) -> None:
        """Called by the engine's runner for each new run."""
        if self.clock is not None:
            run.environment = replace(run.environment, clock=self.clock)
        for observer in tuple(self._observers):
            observer.launched(run)

    async def __call__(self, batch: Batch[Run], *, written: bool) -> bool:
        """Called by the engine's journal, to find out whether the worker dies here."""
        if written:
            for observer in tuple(self._observers):
                observer.committed(batch)
        if not any(trap.springs(batch, written=written) for trap in tuple(self._traps)):
            return False
        await self._die()
        return True

    async def _die(self) -> None:
        """Ends the lease: first its runs, which do not outlive a real process, then its row."""
        executor = self._core.executor
        _killed.add(executor.lease.id)
        runner = executor.runner
        ending = [asyncio.ensure_future(runner.settled(workflow_id)) for workflow_id in runner.known()]
        await asyncio.sleep(0)  # the runs register what they wait for
        runner.lease_lost()
        if ending:
            _, stubborn = await asyncio.wait(ending, timeout=_LAST_MOMENTS)
            if stubborn:
                logger.warning("%d bodies of a crashed owner still run: a thread cannot be ended", len(stubborn))
            for one in stubborn:
                one.cancel()
        schema = self._settings.schema
        async with await connect_async(
            self._url, timeout=self._settings.connect_timeout, pooled=bool(self._settings.pooled)
        ) as connection:
            while leases := [one for one in await worker.survey(connection, schema) if one.id == executor.lease.id]:
                await worker.mark_dead(connection, schema, leases, "released")
            rows = await workflow.requeue(connection, schema, max_recoveries=self._settings.max_recoveries)
        self._core.announce([WORKERS_TOPIC, DEATH_TOPIC, *{queue_topic(row["queue"]) for row in rows}])


def rig_of(engine: Engine) -> Rig:
    """The rig of an open engine that executes workflows; always the same one."""
    executor = core_of(engine).executor
    rig = executor.journal.tripwire
    if not isinstance(rig, Rig):
        rig = executor.journal.tripwire = Rig(engine)
        engine._host.is_under_test = True  # noqa: SLF001 (see above)
        executor.runner.on_launched = rig.launched
    return rig


def core_of(engine: Engine) -> EngineCore:
    """The core of an engine."""
    return engine._core  # noqa: SLF001 (see above)


async def bridged(engine: Engine, work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on the engine's loop."""
    return cast("T", await engine._host.bridge(work))  # noqa: SLF001 (see above)
