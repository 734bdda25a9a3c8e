"""One chaos run: brings everybody on, lets the faults strike, drains, and has every oracle look."""

from __future__ import annotations

import asyncio
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import psycopg

from dbosflow import Engine
from tests.behaviour import ledger
from tests.chaos import oracles, plan
from tests.chaos.crew import Place
from tests.chaos.customers import Customers
from tests.chaos.jobs import jobs
from tests.chaos.judge import Judge
from tests.chaos.outsiders import Outsiders
from tests.chaos.postgres import Postgres
from tests.chaos.processes import Process
from tests.chaos.proxy import Proxy
from tests.chaos.pruning import Pruner
from tests.chaos.report import Report
from tests.chaos.strikes import Strikes
from tests.chaos.trimming import Trimmer
from tests.chaos.witness import Readers, Witness
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path
    from typing import Any

    from tests.chaos.crew import Frozen
    from tests.chaos.jobs import Job
    from tests.chaos.plan import Fault

_READERS = 2
_SESSIONS_A_CLIENT = 7
_OPENING_LIMIT = 60.0
_SESSIONS_LIMIT = 15.0
_JUDGED_EVERY = 2.0
_FROZEN_KEPT = 100


class ChaosRun:
    """One run, on a Postgres of its own."""

    summary_every = 10.0
    levels_every: float | None = None

    client: Engine
    proxies: list[Proxy]
    customers: Customers
    outsiders: Outsiders
    strikes: Strikes
    witness: Witness
    judge: Judge
    pruner: Pruner

    def __init__(
        self,
        seed: int,
        *,
        seconds: float,
        workflows: int,
        workers: int,
        drain_limit: float,
        say: Callable[[str], None],
        spared: int = 0,
    ) -> None:
        self.postgres = Postgres()
        self.directory = self.postgres.root
        self.places: list[Place] = []
        self.readers = Readers()
        self.reading: list[Process] = []
        self.report = Report()
        self._seed = seed
        self._seconds = seconds
        self._workflows = workflows
        self._workers = workers
        self._drain_limit = drain_limit
        self._say = say
        self._spared = spared
        self._random = random.Random(f"run {seed}")
        self._began = 0.0
        os.environ[ledger.VARIABLE] = str(self.directory / "ledger")

    def faults(self) -> list[Fault]:
        """The faults that will strike."""
        return plan.faults(self._seed, self._seconds, workers=self._workers, proxies=self._workers, spared=self._spared)

    async def run(self) -> Report:
        """Runs; what came of it."""
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))
        began = time.monotonic()
        async with AsyncExitStack() as resources:
            resources.callback(self.postgres.__exit__)
            await asyncio.to_thread(self.postgres.__enter__)
            self.proxies = [resources.enter_context(Proxy(self.postgres.socket)) for _ in range(self._workers)]
            self.client = await resources.enter_async_context(
                Engine(self.postgres.url("chaos-client"), executes=False),
            )
            resources.callback(self._end_processes)
            self._hire()
            await asyncio.to_thread(eventually, self._all_ready, timeout=_OPENING_LIMIT)
            self._prepare()
            await self._strike_and_drain()
            await self._stop()
            await asyncio.to_thread(self._judge_last)
        self.report.seconds = time.monotonic() - began
        return self.report

    # -- who takes part ----------------------------------------------------------------------------------------------

    def _hire(self) -> None:
        """The first worker and the first reader reach the server without a proxy."""
        complain = self.report.violations.append
        for number, url_of in enumerate((self.postgres.url, *(proxy.url for proxy in self.proxies[1:]))):
            self.places.append(Place(number, url_of, self.directory, complain, self.levels_every))
        for number, url_of in zip(range(_READERS), (self.postgres.url, self.proxies[0].url), strict=True):
            url = url_of(f"chaos-reader-{number}")
            log = self.directory / f"chaos-reader-{number}.log"
            hear = partial(self.readers.hear, number)
            self.reading.append(Process("reader", log, hear, url=url, levels_every=self.levels_every))
        through = (self.proxies[0].url, self.proxies[-1].url)
        self.outsiders = Outsiders(through, self.directory, complain, self.levels_every)

    def _prepare(self) -> None:
        """Those who live in this process."""
        looking = self.postgres.url("looking")
        self.customers = Customers(self.client, jobs(self._seed), self._read, self.outsiders, Trimmer())
        self.strikes = Strikes(self.postgres, self.places, self.proxies, self.outsiders, self._seed)
        self.witness = Witness(looking)
        self.judge = Judge(
            looking,
            self.report,
            customers=self.customers,
            readers=self.readers,
            strikes=self.strikes,
            witness=self.witness,
            frozen=self._frozen,
            read_slowly=self._read_slowly(),
        )
        self.pruner = Pruner(self.client, looking, lambda: [*self.judge.judged])

    def _all_ready(self) -> bool:
        return self.readers.ready == _READERS and self.outsiders.ready and all(place.ready for place in self.places)

    def _read(self, job: Job) -> None:
        self.readers.expect(job.workflow_id)
        reader = self._random.choice(self.reading)
        reader.tell(id=job.workflow_id, key=job.key, mode=job.reading)

    def _read_slowly(self) -> Callable[[str, str], None]:
        """How the judge, on its thread, has a stream read."""
        loop = asyncio.get_running_loop()

        def read(workflow_id: str, key: str) -> None:
            self.readers.expect(workflow_id)
            loop.call_soon_threadsafe(lambda: self.reading[0].tell(id=workflow_id, key=key, mode="slow"))

        return read

    def _frozen(self) -> list[Frozen]:
        for place in self.places:
            del place.frozen[:-_FROZEN_KEPT]
        return [one for place in self.places for one in place.frozen]

    def _end_processes(self) -> None:
        for process in (*self.reading, *(place.process for place in self.places)):
            process.close()
        self.outsiders.close()

    # -- its course --------------------------------------------------------------------------------------------------

    def background(self) -> list[Coroutine[Any, Any, None]]:
        """What goes on all the time."""
        return [
            self.witness.watch(),
            self._look_after_workers(),
            self._summarize(),
            self._judge_on(),
            self.pruner.watch(),
        ]

    async def keep(self) -> None:
        """Keeps workflows in flight until the customers have finished."""
        await self.customers.keep(self._workflows)

    async def _strike_and_drain(self) -> None:
        self._began = began = time.monotonic()
        around = [asyncio.create_task(coroutine) for coroutine in self.background()]
        keeping = asyncio.create_task(self.keep())
        try:
            await self.strikes.follow(self.faults())
            await asyncio.sleep(max(0.0, began + self._seconds - time.monotonic()))
            self.customers.finish()
            await self._drain(keeping)
        finally:
            for task in (keeping, *around):
                task.cancel()
            for result in await asyncio.gather(keeping, *around, return_exceptions=True):
                if isinstance(result, Exception):
                    self.report.violations.append(f"the run itself: {result!r}")

    async def _drain(self, keeping: asyncio.Task[None]) -> None:
        """With no fault any more, all work ends within the limit; so do all readers."""
        began = time.monotonic()
        deadline = began + self._drain_limit
        customers = self.customers
        while not (keeping.done() and not self._missing()):
            if time.monotonic() > deadline:
                stuck = sorted(customers.acknowledged.keys() - customers.settled.keys())
                self.report.violations += [f"{one} has not ended {self._drain_limit:g} s later" for one in stuck]
                self.report.violations += [f"{one}: its reader has not ended" for one in self._missing()]
                return
            await asyncio.sleep(0.05)
        self.report.drain = time.monotonic() - began

    def _missing(self) -> list[str]:
        return [one for one in self.readers.missing() if one not in self.judge.slowly_read]

    async def _look_after_workers(self) -> None:
        while True:
            for place in self.places:
                if not place.lock.locked():
                    async with place.lock:
                        await asyncio.to_thread(place.look_after)
            await asyncio.sleep(0.2)

    async def _judge_on(self) -> None:
        while True:
            await asyncio.sleep(_JUDGED_EVERY)
            try:
                await asyncio.to_thread(self.judge.sit)
            except psycopg.OperationalError:  # the database is down: part of the plan
                continue

    async def _summarize(self) -> None:
        while True:
            await asyncio.sleep(self.summary_every)
            self._say(self.summary())

    def summary(self) -> str:
        """How it stands, in a line."""
        strikes, customers = self.strikes, self.customers
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(strikes.counts.items()))
        return (
            f"{time.monotonic() - self._began:6.0f} s: {customers.done} done, {customers.in_flight} in flight,"
            f" {strikes.lost} lost their owner, {self.report.workflows.total()} judged, {self.pruner.count} removed,"
            f" {len(self.report.violations)} violations; faults: {faults or 'none'}"
        )

    async def _stop(self) -> None:
        """Checks what the living hold, stops them, and checks that nothing is left."""
        live = {place.name: oracles.SESSIONS_A_WORKER for place in self.places} | {"chaos-client": _SESSIONS_A_CLIENT}
        outside = [*(f"chaos-reader-{number}" for number in range(_READERS)), *self.outsiders.names]
        await self._sessions_settle(live | dict.fromkeys(outside, _SESSIONS_A_CLIENT))
        for place in self.places:
            async with place.lock:
                self.strikes.drains.add(await asyncio.to_thread(place.drain))
        violations = self.report.violations
        for reader in self.reading:
            if not await asyncio.to_thread(reader.end):
                violations.append(f"a reader did not end: see {reader.log.name}")
        await asyncio.to_thread(self.outsiders.end)
        violations += [f"a reader left behind {left}" for left in self.readers.left if left["tasks"]]
        violations += [f"a writer left behind {left}" for left in self.outsiders.left if left["tasks"]]
        violations += [f"{place.name}: processes are left" for place in self.places if place.leftover()]
        await self._sessions_settle({"chaos-client": _SESSIONS_A_CLIENT})
        if self.report.drain is not None:
            violations += await asyncio.to_thread(oracles.check_lanes, self.postgres.url("looking"))

    async def _sessions_settle(self, live: dict[str, int]) -> None:
        """A session that was cut off is noticed by the server a little later."""
        deadline = time.monotonic() + _SESSIONS_LIMIT
        while wrong := await asyncio.to_thread(oracles.check_sessions, self.postgres.url("looking"), live):
            if time.monotonic() > deadline:
                self.report.violations += wrong
                return
            await asyncio.sleep(0.1)

    def _judge_last(self) -> None:
        report, customers = self.report, self.customers
        report.acknowledged = customers.started
        report.faults = self.strikes.counts
        report.cancels = customers.cancel_times
        report.tried_again = customers.errors
        report.written = self.outsiders.acknowledged
        report.trims = customers.trimmer.count
        report.pruned = self.pruner.count
        report.worker_drains = self.strikes.drains
        report.failed_opens = sum(place.failed_opens for place in self.places)
        report.samples = self.witness.samples
        self.judge.sit_last()
        report.violations += customers.complaints


def finish(chaos: ChaosRun) -> Report:
    """Runs, and removes what it made unless something was wrong."""
    report = asyncio.run(chaos.run())
    if not report.violations:
        chaos.postgres.discard()
    return report


def run(
    seed: int, *, seconds: float, workflows: int, workers: int, drain_limit: float, say: Callable[[str], None]
) -> tuple[Report, Path]:
    """Runs, having said which faults will strike; the report, and where the logs are if something was wrong."""
    chaos = ChaosRun(seed, seconds=seconds, workflows=workflows, workers=workers, drain_limit=drain_limit, say=say)
    for fault in chaos.faults():
        say(str(fault))
    return finish(chaos), chaos.directory
