"""One chaos run: starts every process, has the nemesis inject faults, drains, and has every checker look."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import psycopg

from dbosflow import Engine
from tests.behaviour import ledger
from tests.chaos import encryption
from tests.chaos.checkers.checker import Checker
from tests.chaos.checkers.final_states import FinalStateMonitor
from tests.chaos.checkers.workers import Span, check_pace, pace
from tests.chaos.clients.pruner import Pruner
from tests.chaos.clients.trimmer import Trimmer
from tests.chaos.clients.workflow_clients import WorkflowClients
from tests.chaos.cluster import Cluster
from tests.chaos.generator import operations
from tests.chaos.nemeses import plan
from tests.chaos.nemeses.nemesis import Nemesis
from tests.chaos.nemeses.sessions import SessionNemesis
from tests.chaos.nodes.processes import Launcher
from tests.chaos.report import Report
from tests.chaos.shutdown import CLIENT, Shutdown
from tests.chaos.topologies.topology import Topology
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from tests.chaos.nemeses.plan import Fault
    from tests.chaos.topologies.topology import Route

_OPENING_LIMIT = 60.0
_CHECKED_EVERY = 2.0


class ChaosRun:
    """One run, on a Postgres of its own."""

    summary_every = 10.0
    levels_every: float | None = None

    engine: Engine
    cluster: Cluster
    clients: WorkflowClients
    session_nemesis: SessionNemesis
    nemesis: Nemesis
    final_states: FinalStateMonitor
    checker: Checker
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
        topology: Topology | None = None,
    ) -> None:
        self.topology = topology or Topology()
        self.postgres = self.topology.server
        self.directory = self.postgres.root
        self.report = Report()
        self._seed = seed
        self._seconds = seconds
        self._workflows = workflows
        self._workers = workers
        self._drain_limit = drain_limit
        self._say = say
        self._spared = spared
        self._began = 0.0
        self._at_work = Span(0.0, 0.0)
        os.environ[ledger.VARIABLE] = str(self.directory / "ledger")
        os.environ[ledger.CLOCK_VARIABLE] = str(time.time() - time.monotonic())

    def kinds(self) -> Mapping[str, int]:
        """The kinds of faults, with their weights in the plan."""
        return self.topology.weights()

    def faults(self) -> list[Fault]:
        """The faults that will be injected."""
        numbers = {"workers": self._workers, "proxies": self._workers, "spared": self._spared}
        return plan.faults(self._seed, self._seconds, **numbers, kinds=self.kinds())

    async def run(self) -> Report:
        """Runs; what came of it."""
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))
        began = time.monotonic()
        async with AsyncExitStack() as resources:
            resources.callback(self.topology.__exit__)
            await asyncio.to_thread(self.topology.__enter__)
            routes = [resources.enter_context(self.topology.route()) for _ in range(self._workers)]
            settings = self.topology.config(CLIENT, 0).settings
            self.engine = await resources.enter_async_context(
                Engine(self.topology.url(CLIENT), executes=False, **settings),
            )
            launcher = Launcher(
                self.directory, self.report.violations.append, self.topology.config, levels_every=self.levels_every
            )
            self.cluster = Cluster(self.topology, launcher, routes, self._seed)
            resources.callback(self.cluster.close)
            self.cluster.start()
            await asyncio.to_thread(eventually, self.cluster.is_ready, timeout=_OPENING_LIMIT)
            self._prepare(routes)
            await self._disturb_and_drain()
            await Shutdown(self.topology, self.cluster, self.engine, self.report).stop(self.nemesis)
            await asyncio.to_thread(self._check_last)
        self.report.seconds = time.monotonic() - began
        return self.report

    def _prepare(self, routes: Sequence[Route]) -> None:
        """Those who live in this process, and look at the database or ask it for something."""
        looking, cluster = self.postgres.url("looking"), self.cluster
        self.clients = WorkflowClients(
            self.engine, operations(self._seed), cluster.readers.read, cluster.writers, Trimmer()
        )
        self.session_nemesis = SessionNemesis(looking, self._seed)
        self.nemesis = Nemesis(
            self.topology,
            cluster.nodes,
            routes,
            writers=cluster.writers,
            session_nemesis=self.session_nemesis,
            seed=self._seed,
        )
        self.final_states = FinalStateMonitor(looking)
        self.checker = Checker(
            looking,
            self.report,
            evidence=self.directory,
            clients=self.clients,
            readers=cluster.readers,
            nemesis=self.nemesis,
            final_states=self.final_states,
            nodes=cluster.nodes,
        )
        self.pruner = Pruner(self.engine, looking, lambda: [*self.checker.checked])

    # -- its course --------------------------------------------------------------------------------------------------

    def background(self) -> list[Coroutine[Any, Any, None]]:
        """What goes on all the time."""
        return [
            self.final_states.watch(),
            self._replace_ended_workers(),
            self._summarize(),
            self._check_on(),
            self.pruner.watch(),
        ]

    async def keep_in_flight(self) -> None:
        """Keeps workflows in flight until the clients have finished."""
        await self.clients.keep_in_flight(self._workflows)

    async def _disturb_and_drain(self) -> None:
        self._began = began = time.monotonic()
        around = [asyncio.create_task(coroutine) for coroutine in self.background()]
        keeping = asyncio.create_task(self.keep_in_flight())
        since = time.time()
        try:
            await self.nemesis.run(self.faults())
            await asyncio.sleep(max(0.0, began + self._seconds - time.monotonic()))
            self.clients.finish()
            self._at_work = Span(since, time.time())
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
        clients = self.clients
        while not (keeping.done() and not self._missing()):
            if time.monotonic() > deadline:
                stuck = sorted(clients.acknowledged.keys() - clients.settled.keys())
                self.report.violations += [f"{one} has not ended {self._drain_limit:g} s later" for one in stuck]
                self.report.violations += [f"{one}: its reader has not ended" for one in self._missing()]
                return
            await asyncio.sleep(0.05)
        self.report.drain = time.monotonic() - began

    def _missing(self) -> list[str]:
        return [one for one in self.cluster.readers.pending() if one not in self.checker.slowly_read]

    async def _replace_ended_workers(self) -> None:
        while True:
            for node in self.cluster.nodes:
                if not node.lock.locked():
                    async with node.lock:
                        await asyncio.to_thread(node.replace_if_ended)
            await asyncio.sleep(0.2)

    async def _check_on(self) -> None:
        while True:
            await asyncio.sleep(_CHECKED_EVERY)
            try:
                await asyncio.to_thread(self.checker.check)
            except psycopg.OperationalError:  # the database is down: part of the plan
                continue

    async def _summarize(self) -> None:
        printed = 0
        while True:
            await asyncio.sleep(self.summary_every)
            self._say(self.summary())
            for violation in self.report.violations[printed:]:
                self._say(f"VIOLATION: {violation}")
                printed += 1

    def summary(self) -> str:
        """How it stands, in a line."""
        nemesis, clients = self.nemesis, self.clients
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(nemesis.counts.items()))
        return (
            f"{time.monotonic() - self._began:6.0f} s: {clients.done} done, {clients.in_flight} in flight,"
            f" {nemesis.lost} lost their owner, {self.report.workflows.total()} checked, {self.pruner.count} removed,"
            f" {len(self.report.violations)} violations; faults: {faults or 'none'}"
        )

    def _check_last(self) -> None:
        report, clients = self.report, self.clients
        report.acknowledged = clients.started
        report.faults = self.nemesis.counts
        report.cancels = clients.cancel_times
        report.tried_again = clients.errors
        report.written = self.cluster.writers.acknowledged
        report.trims = clients.trimmer.count
        report.pruned = self.pruner.count
        report.worker_drains = self.nemesis.drains
        report.failed_opens = sum(node.failed_opens for node in self.cluster.nodes)
        report.samples = self.final_states.samples
        self.checker.check_last()
        report.violations += clients.violations
        report.violations += encryption.in_plain_text(self.postgres.url("looking"))
        report.pace = pace(self.checker.recorded, self.session_nemesis.snapshots, self._at_work)
        report.violations += check_pace(report.pace)
        report.figures = [*self.session_nemesis.figures(), *self.topology.figures()]


def finish(chaos: ChaosRun) -> Report:
    """Runs, and removes what it made unless something was wrong."""
    report = asyncio.run(chaos.run())
    if not report.violations:
        chaos.postgres.discard()
    return report


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
    """Runs, having said which faults will be injected; the report, and where the logs are if something was wrong."""
    sizes = {"workflows": workflows, "workers": workers}
    chaos = ChaosRun(seed, seconds=seconds, **sizes, drain_limit=drain_limit, say=say, topology=topology)
    for fault in chaos.faults():
        say(str(fault))
    return finish(chaos), chaos.directory
