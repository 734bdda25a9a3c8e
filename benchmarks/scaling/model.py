"""Workers and one Postgres as queues: what they wait for is each other, cores, and the flush of the log.

A worker has one core for its event loop. Its journal has one batch under way; what its workflows record meanwhile is
the next one. The backends share the server's cores (processor sharing, in slices), and all commits that wait when a
flush begins are done when it ends (group commit). So the size of a batch is not a parameter: it follows from the load.

Times are in seconds. Closed: each workflow goes on when its record is durable, as fast as it goes. Open: steps arrive
at a rate, each in a workflow of its own.
"""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

import simpy

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

_SLICE = 100e-6
"""Seconds for which a backend has a core before another one that waits gets it."""
_MOST_IN_A_BATCH = 200
_MANY = 32
"""Records that make a batch large enough to go on with half of it while the other half is being written."""
_RANDOM = 7


@dataclass(frozen=True)
class Costs:
    """What a batch takes, and each record in it: CPU of the worker and of the server, and the flush."""

    client_batch: float
    client_record: float
    server_batch: float
    server_record: float
    flush: float


@dataclass(frozen=True)
class Found:
    """What came of a simulation."""

    rate: float
    """Records a second, of all workers together."""
    latency: float
    """The median of the seconds from a record to its being durable and handed on."""
    batch: float
    """Records in a batch, on average."""
    client_load: float
    """How busy a worker's core was, from 0 to 1, on average."""
    server_cores: float
    """How many of the server's cores were busy, on average."""
    flushes: float
    """Flushes a second."""


class _Server:
    """Cores, and a log that is flushed for all that wait at once."""

    def __init__(self, environment: simpy.Environment, cores: int, flush: float) -> None:
        self._environment = environment
        self._cores = simpy.Resource(environment, cores)
        self._flush = flush
        self._waiting: list[simpy.Event] = []
        self._flushing = False
        self.busy = 0.0
        self.flushes = 0

    def execute(self, seconds: float) -> Generator[Any, Any, None]:
        """Uses a core for so long in all."""
        left = seconds
        while left > 0:
            with self._cores.request() as core:
                yield core
                used = min(left, _SLICE) if self._cores.queue else left
                yield self._environment.timeout(used)
            self.busy += used
            left -= used

    def commit(self) -> simpy.Event:
        """An event: what was written before is flushed."""
        flushed = self._environment.event()
        self._waiting.append(flushed)
        if not self._flushing:
            self._environment.process(self._flushes())
        return flushed

    def _flushes(self) -> Generator[Any, Any, None]:
        self._flushing = True
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            yield self._environment.timeout(self._flush)
            self.flushes += 1
            for flushed in waiting:
                flushed.succeed()
        self._flushing = False


class _Worker:
    """An event loop on a core of its own, with its journal."""

    def __init__(self, environment: simpy.Environment, server: _Server, costs: Costs, *, closed: bool) -> None:
        self._environment = environment
        self._server = server
        self._costs = costs
        self._closed = closed
        self._core = simpy.Resource(environment, 1)
        self._pending: list[float] = []
        self._durable: list[float] = []
        self._news = environment.event()
        self.latencies: list[float] = []
        self.batches = 0
        self.busy = 0.0
        environment.process(self._journal())

    def record(self) -> None:
        """A workflow appends a record."""
        self._pending.append(self._environment.now)
        if not self._news.triggered:
            self._news.succeed()

    def _compute(self, seconds: float) -> Generator[Any, Any, None]:
        with self._core.request() as core:
            yield core
            yield self._environment.timeout(seconds)
        self.busy += seconds

    def _journal(self) -> Generator[Any, Any, None]:
        costs = self._costs
        while True:
            if not self._pending:
                yield from self._hand_on(len(self._durable))
            if not self._pending:
                self._news = self._environment.event()
                yield self._news
            batch, self._pending = self._pending[:_MOST_IN_A_BATCH], self._pending[_MOST_IN_A_BATCH:]
            self.batches += 1
            handing_on = self._environment.process(self._hand_on(len(self._durable)))
            yield from self._compute(costs.client_batch + len(batch) * costs.client_record / 2)
            yield from self._server.execute(costs.server_batch + len(batch) * costs.server_record)
            yield self._server.commit()
            yield handing_on
            self._durable += batch
            if len(self._durable) < _MANY:
                yield from self._hand_on(len(self._durable))
            elif not self._pending:
                yield from self._hand_on(len(self._durable) // 2)

    def _hand_on(self, count: int) -> Generator[Any, Any, None]:
        """The workflows of so many durable records go on: in a closed system with the next one."""
        handed, self._durable = self._durable[:count], self._durable[count:]
        yield from self._compute(count * self._costs.client_record / 2)
        for began in handed:
            self.latencies.append(self._environment.now - began)
            if self._closed:
                self.record()


def closed(costs: Costs, *, workflows: int, workers: int = 1, cores: int = 1, seconds: float = 2.0) -> Found:
    """So many concurrent workflows on each worker, one step after the other."""
    environment = simpy.Environment()
    server = _Server(environment, cores, costs.flush)
    all_workers = [_Worker(environment, server, costs, closed=True) for _ in range(workers)]
    for worker in all_workers:
        for _ in range(workflows):
            worker.record()
    return _run(environment, server, all_workers, seconds)


def opened(costs: Costs, *, rate: float, workers: int, cores: int, seconds: float = 2.0) -> Found:
    """So many steps a second in all, at random times."""
    environment = simpy.Environment()
    server = _Server(environment, cores, costs.flush)
    all_workers = [_Worker(environment, server, costs, closed=False) for _ in range(workers)]
    chance = random.Random(_RANDOM)  # noqa: S311 (the same in each simulation, and no secret)

    def arrivals() -> Generator[Any, Any, None]:
        while True:
            yield environment.timeout(chance.expovariate(rate))
            chance.choice(all_workers).record()

    environment.process(arrivals())
    return _run(environment, server, all_workers, seconds)


def _run(environment: simpy.Environment, server: _Server, workers: list[_Worker], seconds: float) -> Found:
    environment.run(until=seconds)
    latencies = [one for worker in workers for one in worker.latencies]
    batches = sum(worker.batches for worker in workers)
    return Found(
        rate=len(latencies) / seconds,
        latency=statistics.median(latencies) if latencies else math.inf,
        batch=len(latencies) / batches if batches else 0.0,
        client_load=sum(worker.busy for worker in workers) / len(workers) / seconds,
        server_cores=server.busy / seconds,
        flushes=server.flushes / seconds,
    )
