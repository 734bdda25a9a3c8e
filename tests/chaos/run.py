"""One chaos run: brings everybody on, lets the faults strike, drains, and has every oracle look."""

from __future__ import annotations

import asyncio
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from dbosflow import Engine
from tests.behaviour import ledger
from tests.behaviour.tables import disorder
from tests.chaos import oracles, oracles_workers, plan
from tests.chaos.burdens import Burdens
from tests.chaos.crew import Place
from tests.chaos.customers import Customers
from tests.chaos.inventory import check_inventory, inventory
from tests.chaos.oracles_workers import Span
from tests.chaos.processes import Process
from tests.chaos.report import Report
from tests.chaos.stories import Story, stories
from tests.chaos.strikes import Strikes, troubles
from tests.chaos.topology import Topology
from tests.chaos.witness import Readers, Witness, takeovers
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.chaos.plan import Fault, Job
    from tests.chaos.topology import Way

_READERS = 2
_SESSIONS_A_CLIENT = 7
_OPENING_LIMIT = 60.0
_SESSIONS_LIMIT = 15.0
_SUMMARY_EVERY = 10.0


class ChaosRun:
    """One run, on a Postgres of its own."""

    def __init__(
        self,
        seed: int,
        *,
        seconds: float,
        workflows: int,
        workers: int,
        drain_limit: float,
        say: Callable[[str], None],
        topology: Topology | None = None,
    ) -> None:
        self.topology = topology or Topology()
        self.postgres = self.topology.server
        self.directory = self.postgres.root
        self._seed = seed
        self._seconds = seconds
        self._workflows = workflows
        self._workers = workers
        self._drain_limit = drain_limit
        self._say = say
        self._random = random.Random(f"run {seed}")
        self._report = Report()
        self._readers = Readers()
        self._reading: list[Process] = []
        self._places: list[Place] = []
        self._at_work = Span(0.0, 0.0)
        os.environ[ledger.VARIABLE] = str(self.directory / "ledger")
        os.environ[ledger.CLOCK_VARIABLE] = str(time.time() - time.monotonic())

    def faults(self) -> list[Fault]:
        """The faults that will strike."""
        numbers = {"workers": self._workers, "proxies": self._workers}
        return plan.faults(self._seed, self._seconds, **numbers, kinds=self.topology.weights())

    async def run(self) -> Report:
        """Runs; what came of it."""
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))
        began = time.monotonic()
        async with AsyncExitStack() as resources:
            resources.callback(self.topology.__exit__)
            await asyncio.to_thread(self.topology.__enter__)
            proxies = [resources.enter_context(self.topology.way()) for _ in range(self._workers)]
            settings = self.topology.equipment("chaos-client", 0).settings
            client = await resources.enter_async_context(
                Engine(self.topology.url("chaos-client"), executes=False, **settings),
            )
            resources.callback(self._end_processes)
            self._hire(proxies)
            await asyncio.to_thread(eventually, self._all_ready, timeout=_OPENING_LIMIT)
            customers = Customers(client, plan.jobs(self._seed), self._read)
            burdens = Burdens(self.postgres.url("looking"), self._seed)
            strikes = Strikes(self.topology, self._places, proxies, burdens, self._seed)
            witness = Witness(self.postgres.url("looking"))
            await self._strike_and_drain(customers, strikes, witness)
            await self._stop(client, strikes)
            await asyncio.to_thread(self._judge, customers, strikes, witness, burdens)
        self._report.seconds = time.monotonic() - began
        return self._report

    # -- who takes part ----------------------------------------------------------------------------------------------

    def _hire(self, proxies: list[Way]) -> None:
        """The first worker and the first reader reach the database without a proxy."""
        topology, complain = self.topology, self._report.violations.append
        for number, url_of in enumerate((topology.url, *(proxy.url for proxy in proxies[1:]))):
            self._places.append(Place(number, url_of, topology.equipment, self.directory, complain))
        for number, url_of in zip(range(_READERS), (topology.url, proxies[0].url), strict=True):
            name = f"chaos-reader-{number}"
            equipment, log = topology.equipment(name, number), self.directory / f"{name}.log"
            options = {"url": url_of(name), "settings": equipment.settings}
            self._reading.append(Process("reader", log, self._readers.hear, equipment.environment, **options))

    def _all_ready(self) -> bool:
        return self._readers.ready == _READERS and all(place.ready for place in self._places)

    def _read(self, job: Job) -> None:
        self._readers.expect(job)
        reader = self._random.choice(self._reading)
        reader.tell(id=job.workflow_id, key=job.key, mode=job.reading)

    def _end_processes(self) -> None:
        for process in (*self._reading, *(place.process for place in self._places)):
            process.close()

    # -- its course --------------------------------------------------------------------------------------------------

    async def _strike_and_drain(self, customers: Customers, strikes: Strikes, witness: Witness) -> None:
        began = time.monotonic()
        around = [
            asyncio.create_task(witness.watch()),
            asyncio.create_task(self._look_after_workers()),
            asyncio.create_task(self._summarize(began, customers, strikes)),
        ]
        keeping = asyncio.create_task(customers.keep(self._workflows))
        since = time.time()
        try:
            await strikes.follow(self.faults())
            await asyncio.sleep(max(0.0, began + self._seconds - time.monotonic()))
            customers.finish()
            self._at_work = Span(since, time.time())
            await self._drain(keeping, customers)
        finally:
            for task in (keeping, *around):
                task.cancel()
            for result in await asyncio.gather(keeping, *around, return_exceptions=True):
                if isinstance(result, Exception):
                    self._report.violations.append(f"the run itself: {result!r}")

    async def _drain(self, keeping: asyncio.Task[None], customers: Customers) -> None:
        """With no fault any more, all work ends within the limit; so do all readers."""
        began = time.monotonic()
        deadline = began + self._drain_limit
        while not (keeping.done() and not self._readers.missing()):
            if time.monotonic() > deadline:
                stuck = sorted(customers.acknowledged.keys() - customers.seen.keys())
                self._report.violations += [f"{one} has not ended {self._drain_limit:g} s later" for one in stuck]
                self._report.violations += [f"{one}: its reader has not ended" for one in self._readers.missing()]
                return
            await asyncio.sleep(0.05)
        self._report.drain = time.monotonic() - began

    async def _look_after_workers(self) -> None:
        while True:
            for place in self._places:
                if not place.lock.locked():
                    async with place.lock:
                        await asyncio.to_thread(place.look_after)
            await asyncio.sleep(0.2)

    async def _summarize(self, began: float, customers: Customers, strikes: Strikes) -> None:
        while True:
            await asyncio.sleep(_SUMMARY_EVERY)
            faults = ", ".join(f"{count} {kind}" for kind, count in sorted(strikes.counts.items()))
            self._say(
                f"{time.monotonic() - began:6.0f} s: {len(customers.seen)} done, {customers.in_flight} in flight,"
                f" {sum(len(hit.owned) for hit in strikes.hits)} lost their owner; faults: {faults or 'none'}"
            )

    async def _stop(self, client: Engine, strikes: Strikes) -> None:
        """Checks what the living hold, stops them, and checks that nothing is left."""
        live = {place.name: oracles.SESSIONS_A_WORKER for place in self._places} | {"chaos-client": _SESSIONS_A_CLIENT}
        readers = {f"chaos-reader-{number}": _SESSIONS_A_CLIENT for number in range(_READERS)}
        await self._sessions_settle(live | readers)
        await self._look_at_leftovers(client)
        for place in self._places:
            async with place.lock:
                strikes.drains.append(await asyncio.to_thread(place.drain))
        for reader in self._reading:
            if not await asyncio.to_thread(reader.end):
                self._report.violations.append(f"a reader did not end: see {reader.log.name}")
        violations = self._report.violations
        violations += [f"a reader left behind {left}" for left in self._readers.left if any(left.values())]
        violations += [f"{place.name}: processes are left" for place in self._places if place.leftover()]
        await self._sessions_settle({"chaos-client": _SESSIONS_A_CLIENT})
        if self._report.drain is not None:
            violations += await asyncio.to_thread(oracles.check_lanes, self.postgres.url("looking"))

    async def _look_at_leftovers(self, client: Engine) -> None:
        """Nobody holds on to anything once all work is done; what was let go of last takes a moment."""
        if self._report.drain is None:
            return
        deadline = time.monotonic() + _SESSIONS_LIMIT
        while True:
            wrong = [f"the client: {what}" for what in check_inventory(inventory(client), alone=False)]
            for place in self._places:
                found = await asyncio.to_thread(place.inventory, _SESSIONS_LIMIT)
                wrong += [f"{place.name}: {what}" for what in (check_inventory(found) if found else ["it is silent"])]
            if not wrong or time.monotonic() > deadline:
                self._report.violations += wrong
                return
            await asyncio.sleep(0.2)

    async def _sessions_settle(self, live: dict[str, int]) -> None:
        """A session that was cut off is noticed by the server a little later."""
        deadline = time.monotonic() + _SESSIONS_LIMIT
        while wrong := await asyncio.to_thread(self.topology.wrong_sessions, live):
            if time.monotonic() > deadline:
                self._report.violations += wrong
                return
            await asyncio.sleep(0.1)

    # -- the judgement -----------------------------------------------------------------------------------------------

    def _judge(self, customers: Customers, strikes: Strikes, witness: Witness, burdens: Burdens) -> None:
        report = self._report
        report.acknowledged = len(customers.acknowledged)
        report.faults = strikes.counts
        report.cancels = customers.cancel_times
        report.tried_again = customers.errors
        report.worker_drains = strikes.drains
        report.failed_opens = sum(place.failed_opens for place in self._places)
        report.samples = witness.samples
        report.violations += customers.complaints + witness.compare() + disorder(self.postgres.url("looking"))
        frozen = [one for place in self._places for one in place.frozen]
        found: set[str] = set()
        readings: dict[str, list[dict[str, object]]] = {}
        for reading in self._readers:
            readings.setdefault(str(reading["id"]), []).append(reading)
        for story in stories(self.postgres.url("looking")):
            found.add(story.workflow_id)
            wrong = [*oracles.check_workflow(story, cancelled=customers.asked, frozen=frozen)]
            for reading in readings.get(story.workflow_id, []):
                report.readings[str(reading["mode"])] += 1
                wrong += oracles.check_reading(reading, story)
            wrong += oracles.check_told(story, customers.seen.get(story.workflow_id))
            report.violations += [f"{story.workflow_id} ({story.row['name']}): {what}" for what in wrong]
            self._count(story, strikes)
        report.violations += [
            f"{one} was acknowledged, and is not there" for one in customers.acknowledged.keys() - found
        ]
        self._judge_workers(strikes, witness, burdens)

    def _judge_workers(self, strikes: Strikes, witness: Witness, burdens: Burdens) -> None:
        report, url = self._report, self.postgres.url("looking")
        ended = {pid: at for place in self._places for pid, at in place.ended.items()}
        report.violations += oracles_workers.check_deaths(url, troubles(strikes, witness, self._places), ended)
        report.violations += oracles_workers.check_wakes(url, ledger.entries())
        report.pace = oracles_workers.pace(url, burdens.snapshots, self._at_work)
        report.violations += oracles_workers.check_pace(report.pace)
        report.figures = [*burdens.figures(), *self.topology.figures()]

    def _count(self, story: Story, strikes: Strikes) -> None:
        report = self._report
        report.workflows[story.row["status"]] += 1
        report.records += len(story.steps)
        report.frames += sum(block["count"] for block in story.blocks if block["kind"] == "values")
        for kind, running, written in takeovers(strikes.hits, story):
            report.running_again[kind].append(running)
            report.written_again[kind].append(written)


def run(
    seed: int,
    *,
    seconds: float,
    workflows: int,
    workers: int,
    drain_limit: float,
    say: Callable[[str], None],
    topology: Topology | None = None,
) -> tuple[Report, Path]:
    """Runs, and removes what it made unless something was wrong; the report, and where the rest is."""
    sizes = {"workflows": workflows, "workers": workers}
    chaos = ChaosRun(seed, seconds=seconds, **sizes, drain_limit=drain_limit, say=say, topology=topology)
    for fault in chaos.faults():
        say(str(fault))
    report = asyncio.run(chaos.run())
    if not report.violations:
        chaos.postgres.discard()
    return report, chaos.directory
