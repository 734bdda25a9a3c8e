"""A soak: a chaos run for as long as asked, whose levels are measured and judged."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg

from tests.chaos.run import ChaosRun, finish
from tests.chaos.shutdown import CLIENT
from tests.soak import chart, judging
from tests.soak.probe import PERCENTILES, Probe
from tests.soak.sampling import Member, Sampler, own_levels
from tests.soak.series import Levels

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping
    from pathlib import Path

    from tests.chaos.report import Report

_SAMPLED_EVERY = 2.0
_PACED_OVER = 10
"""The pace is how many workflows have ended over so many samples: about as long as they are kept."""
_AGED_EVERY = 5.0
_AGE: LiteralString = """
    UPDATE dbosflow.worker SET ended_at = ended_at - interval '2 days'
    WHERE ended_at BETWEEN now() - interval '1 day' AND now() - interval '30 seconds' AND id::text = ANY(%s)"""
"""What was long ago is forgotten after a day: here after half a minute, so that its rows are level, too."""


class Soak(ChaosRun):
    """The last worker is never made to end: what it loses in hours is seen."""

    levels_every = 1.0

    def __init__(self, seed: int, *, every: float, **options: Any) -> None:
        super().__init__(seed, spared=1, **options)
        self.levels = Levels()
        self.summary_every = every

    def kinds(self) -> Mapping[str, int]:
        """No snapshot is held: nothing stays level with one, however long ago it was let go of."""
        return {**super().kinds(), "hold xmin": 0}

    def background(self) -> list[Coroutine[Any, Any, None]]:
        """Besides what goes on in every run: samples, and the passing of days."""
        looking = self.postgres.url("looking")
        sampler = Sampler(self.levels, looking, self._members)
        return [*super().background(), self._sample(sampler), self._age_workers(looking)]

    async def keep_in_flight(self) -> None:
        """Keeps workflows in flight, and probes."""
        async with asyncio.TaskGroup() as group:
            group.create_task(super().keep_in_flight())
            group.create_task(Probe(self.engine, self.clients, self.levels).watch())

    def summary(self) -> str:
        """How it stands, and how high the levels of the worker that is never killed are."""
        clients, last, steady = self.clients, self.levels.last, f"worker {self._workers - 1}"

        def milliseconds(what: str) -> str:
            return "/".join(f"{last(what + suffix, 'probes') * 1000:.0f}" for suffix in PERCENTILES)

        return (
            f"{time.monotonic() - self._began:6.0f} s: {clients.done} done, {clients.in_flight} in flight,"
            f" {self.nemesis.counts.total()} faults, {self.report.workflows.total()} checked,"
            f" {self.pruner.count} removed, {len(self.report.violations)} violations; {steady}:"
            f" {last('memory', steady) / 1e6:.0f} MB, {last('threads', steady):.0f} threads,"
            f" {last('descriptors', steady):.0f} descriptors, {last('tasks', steady):.0f} tasks,"
            f" {last('connections', steady):.0f} connections;"
            f" {sum(series.last for series in self.levels.of('rows').values()):.0f} rows; p50/p99 in ms: start to end"
            f" {milliseconds('start to end')}, stream {milliseconds('stream latency')}"
        )

    async def run(self) -> Report:
        """Runs; what came of it, and of its levels."""
        report = await super().run()
        report.violations += judging.judge(self.levels, self._seconds)
        return report

    def _members(self) -> Iterator[Member]:
        for number, node in enumerate(self.cluster.nodes):
            if node.ready:
                yield Member(f"worker {number}", node.name, node.process.pid, node.level)
        for processes, role in ((self.cluster.readers, "reader"), (self.cluster.writers, "writer")):
            for number, process in enumerate(processes.processes):
                yield Member(f"{role} {number}", processes.names[number], process.pid, processes.levels.get(number, {}))
        yield Member("client", CLIENT, os.getpid(), own_levels(self._loop))

    async def _sample(self, sampler: Sampler) -> None:
        self._loop = asyncio.get_running_loop()
        done: deque[int] = deque(maxlen=_PACED_OVER)
        while True:
            at = time.monotonic() - self._began
            await asyncio.to_thread(sampler.sample, at)
            done.append(self.clients.done)
            if len(done) == _PACED_OVER:
                self.levels.add(judging.PACE, "clients", at, done[-1] - done[0])
            await asyncio.sleep(_SAMPLED_EVERY)

    async def _age_workers(self, url: str) -> None:
        def age() -> None:
            with psycopg.connect(url, autocommit=True, application_name="looking", connect_timeout=2) as connection:
                connection.execute(_AGE, ([*self.checker.deaths.checked],))

        while True:
            await asyncio.sleep(_AGED_EVERY)
            try:
                await asyncio.to_thread(age)
            except psycopg.OperationalError:  # the database is down: part of the plan
                continue


def run(
    seed: int,
    *,
    seconds: float,
    workflows: int,
    workers: int,
    drain_limit: float,
    every: float,
    png: str,
    say: Callable[[str], None],
) -> tuple[Report, Path]:
    """Runs, and draws a picture; the report, and where the logs are if something was wrong."""
    soak = Soak(
        seed, seconds=seconds, workflows=workflows, workers=workers, drain_limit=drain_limit, every=every, say=say
    )
    faults = soak.faults()
    (soak.directory / "plan").write_text("\n".join(map(str, faults)))
    say(f"{len(faults)} faults will be injected; all of them are in {soak.directory / 'plan'} while this runs")
    if not judging.can_judge(seconds):
        say("it is too short to judge levels by")
    report = finish(soak)
    title = f"soak, seed {seed}, {seconds:.0f} s, {len(report.violations)} violations"
    if chart.draw(png, soak.levels, faults, seconds, title):
        say(f"the levels are drawn in {png}")
    else:
        say('the levels are not drawn: that needs matplotlib, which comes with pip install -e ".[bench]"')
    return report, soak.directory
