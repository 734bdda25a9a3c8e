"""A model of a queue: workers that come, go and lose their leases; the order of what waits; limits.

The workers are engines of this process, each with a lease, a claimer and a limit of its own. A job ends
when the model says so. Jobs have one of two names; before all of them wait some that no worker knows.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from dbosflow import Engine, workflow
from tests.proof.machine import Bench, Machine, lose_the_lease
from tests.protocol.schedules import PATIENCE

QUEUE = "model"
LOOK = 0.005
MOST_WORKERS = 3
limits = st.integers(1, 3)

GATES: dict[str, asyncio.Event] = {}
"""What each job waits for."""
RUNNING: list[str] = []
"""The jobs whose bodies run at this moment."""


async def work(name: str) -> str:
    """Runs until the model ends it."""
    RUNNING.append(name)
    try:
        await GATES[name].wait()
    finally:
        RUNNING.remove(name)
    return name


@workflow
async def queued_job(name: str) -> str:
    """A job."""
    return await work(name)


@workflow
async def a_job_of_another_name(name: str) -> str:
    """The same."""
    return await work(name)


@dataclass
class Worker:
    """An engine that serves the queue."""

    engine: Engine
    limit: int
    working: asyncio.Task[None] = field(repr=False)


class Queue(Machine):
    """The machine."""

    def __init__(self, at: Bench) -> None:
        super().__init__(at)
        RUNNING.clear()
        GATES.clear()
        self.client = Engine(self.db.url, executes=False)
        self.run(self.client.open_async())
        self.workers: list[Worker] = []
        self.order: dict[str, tuple[int, int, str]] = {}
        """Of what has not ended: by what it is claimed."""
        self.waiting: set[str] = set()
        self.ended: set[str] = set()
        self.clock = itertools.count()
        for name in ("a", "queued", "z"):
            self.rows(
                """INSERT INTO dbosflow.workflow (id, name, status, queue, input, priority)
                   VALUES (%s, %s, 'queued', %s, '{}', -99)""",
                *(f"foreign {name}", name, QUEUE),
            )

    def teardown(self) -> None:
        """The engines are an example's own."""
        for worker in self.workers:
            self.run(self._leave(worker))
        self.run(self.client.close_async())

    # -- what may happen ---------------------------------------------------------------------------------------------

    @rule(priorities=st.lists(st.integers(-1, 1), min_size=1, max_size=3))
    def enqueue(self, priorities: list[int]) -> None:
        """In one statement, some before others."""
        number = next(self.clock)
        specs = []
        for place, priority in enumerate(priorities):
            name = f"j{number}.{place}"
            GATES[name] = asyncio.Event()
            self.order[name] = priority, number, name
            specs.append((self._job(name).options(workflow_id=name, queue=QUEUE, priority=priority), name))
            self.waiting.add(name)

        async def start() -> None:
            await asyncio.gather(*(self.client.start_async(spec, name) for spec, name in specs))

        self.run(start())
        self._settle()

    @staticmethod
    def _job(name: str) -> Any:
        return a_job_of_another_name if name.endswith("1") else queued_job

    @precondition(lambda self: self.order)
    @rule(data=st.data())
    def enqueue_again(self, data: st.DataObject) -> None:
        """The same id is the same job, wherever it stands."""
        name = data.draw(st.sampled_from(sorted({*self.order, *self.ended})))
        self.run(self.client.start_async(self._job(name).options(workflow_id=name, queue=QUEUE, priority=-9), name))
        self._settle()

    @precondition(lambda self: self.order.keys() - self.waiting)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """One that runs; its slot is free for the next."""
        name = data.draw(st.sampled_from(sorted(self.order.keys() - self.waiting)))
        GATES[name].set()
        assert self.run(self.client.handle(name).result_async(timeout=PATIENCE)) == name
        del self.order[name]
        self.ended.add(name)
        self._settle()

    @precondition(lambda self: len(self.workers) < MOST_WORKERS)
    @rule(limit=limits)
    def add_worker(self, limit: int) -> None:
        """One more worker, with a limit of its own."""

        async def open_worker() -> Worker:
            engine = Engine(self.db.url, compact_every=None, grace=0.0)
            await engine.open_async()
            working = asyncio.get_running_loop().create_task(engine.run_worker_async(QUEUE, concurrency=limit))
            return Worker(engine, limit, working)

        self.workers.append(self.run(open_worker()))
        self._settle()

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def dismiss(self, data: st.DataObject) -> None:
        """A worker closes; what it ran goes back to its place in the queue."""
        worker = self.workers.pop(data.draw(st.integers(0, len(self.workers) - 1)))
        self._returned(worker)
        self.run(self._leave(worker))
        self._settle()

    async def _leave(self, worker: Worker) -> None:
        worker.working.cancel()
        await asyncio.gather(worker.working, return_exceptions=True)
        await worker.engine.close_async()

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """A worker loses its lease while its process runs: it begins anew, and what it ran goes back."""
        worker = data.draw(st.sampled_from(self.workers))
        self._returned(worker)
        self.rows("UPDATE dbosflow.workflow SET recoveries = 0 WHERE recoveries > 1")  # a third one runs alone for long
        self.run(lose_the_lease(self.db, worker.engine))
        self._settle()

    def _returned(self, worker: Worker) -> None:
        core: Any = worker.engine._core
        worker_id = core._executor.lease.id
        self.waiting |= {
            name for (name,) in self.rows("SELECT id FROM dbosflow.workflow WHERE worker_id = %s", worker_id)
        }

    # -- what must hold ----------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Waits until every slot that can be is taken; the limits hold at each look on the way."""
        slots = sum(worker.limit for worker in self.workers)
        wanted = min(slots, len(self.order))

        async def settled() -> None:
            async with asyncio.timeout(PATIENCE):
                while not (len(RUNNING) == wanted and await self._owned() == {*RUNNING}):  # noqa: ASYNC110 (nothing signals it)
                    await asyncio.sleep(LOOK)

        self.run(settled())
        taken = self.waiting - (self.order.keys() - {*RUNNING})
        self.waiting -= taken
        if taken and self.waiting:
            last, first = max(self.order[name] for name in taken), min(self.order[name] for name in self.waiting)
            assert last < first, f"{last} went before {first}"

    async def _owned(self) -> set[str]:
        """What belongs to a worker now; none has more than its limit."""
        rows = await self.db.rows("SELECT id, worker_id FROM dbosflow.workflow WHERE status = 'running'")
        for worker in self.workers:
            core: Any = worker.engine._core
            own = [name for name, owner in rows if owner == core._executor.lease.id]
            assert len(own) <= worker.limit, f"{own} run on a worker of {worker.limit}"
        return {name for name, _ in rows}

    @invariant()
    def nothing_runs_twice_and_nothing_is_lost(self) -> None:
        """Each job is in one place: waiting, running once, or ended."""
        assert len(RUNNING) == len({*RUNNING})
        found = dict(self.rows("SELECT id, status FROM dbosflow.workflow WHERE priority > -99"))
        assert found == {
            **dict.fromkeys(self.waiting, "queued"),
            **dict.fromkeys(self.order.keys() - self.waiting, "running"),
            **dict.fromkeys(self.ended, "succeeded"),
        }
