"""A model of a queue with partitions: weighted round robin, limits and rates, beside the real thing.

Workers claim, end, give back and die; limits, weights and rates change meanwhile, and workflows say what they have
really used. Each claim takes what the reference says, which is in `turns.py`. No time passes but by the rules, as with
buckets.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from dbosflow._records.pins import stored_queue
from dbosflow._store import queue, used_units, workflow
from dbosflow._store.used_units import UsedUnits
from tests.proof.machine import Bench, Machine
from tests.proof.model_buckets import DRIFT
from tests.proof.turns import KEYS, Job, Turns
from tests.protocol.schedules import NAME, SCHEMA, Slice

if TYPE_CHECKING:
    from tests.protocol.schedules import WorkerLease

WORKERS = 2
keys = st.sampled_from(KEYS)
workers = st.integers(0, WORKERS - 1)
numbers = st.none() | st.integers(1, 4)
rates = st.none() | st.tuples(st.integers(1, 8), st.sampled_from([1000, 2000]))
"""A burst, and the seconds in which a unit comes back."""


class Partitions(Machine):
    """The machine."""

    def __init__(self, at: Bench) -> None:
        super().__init__(at)
        self.rows("TRUNCATE dbosflow.queue, dbosflow.partition_rate, dbosflow.used_units")
        self.waiting: dict[str, list[Job]] = {key: [] for key in KEYS}
        self.running: dict[Job, int] = {}
        self.turns = Turns()
        self.rates = self.turns.rates
        self.charged: dict[Job, tuple[bool, bool]] = {}
        """Which rates a job has taken its units from: the queue's, and its partition's."""
        self.calls: Counter[Job] = Counter()
        self.limits: dict[str, Any] = {}
        self.leases: list[WorkerLease] = []
        self.clock = itertools.count()

    @initialize()
    def begin(self) -> None:
        """Workers come, and the queue has a row."""
        self.leases = [self.run(self.db.lease()) for _ in range(WORKERS)]
        self.change(None, None, None, None, None, weights={}, paused=False)

    def teardown(self) -> None:
        """The workers are an example's own."""
        for lease in self.leases:
            self.run(lease.connection.close())

    # -- what may happen ---------------------------------------------------------------------------------------------

    @rule(key=keys, jobs=st.lists(st.tuples(st.integers(-1, 1), st.integers(1, 10)), min_size=1, max_size=5))
    def enqueue(self, key: str, jobs: list[tuple[int, int]]) -> None:
        """Some of one partition, each with its priority and its units."""
        for priority, units in jobs:
            job = Job(priority, next(self.clock), key, units)
            self.waiting[key].append(job)
            self.rows(
                "INSERT INTO dbosflow.workflow (id, name, status, queue, priority, input, units) "
                "VALUES (%s, %s, 'queued', %s, %s, '{}', nullif(%s, 1))",
                *(job.name, NAME, stored_queue("q", None, key or None), priority, units),
            )

    @rule(worker=workers, limit=st.integers(1, 7))
    def claim(self, worker: int, limit: int) -> None:
        """Exactly what the reference says."""
        lease = self.leases[worker]

        async def claim() -> list[str]:
            claimed, _ = await queue.claim(
                lease.connection, SCHEMA, worker_id=lease.id, queue="q", names=[NAME], limit=limit
            )
            return sorted(one.id for one in claimed)

        begun = {*self.rates.begun}
        expected = self._expected(worker, limit)
        for job in {*expected} - begun:
            self.charged[job] = self.rates.queue is not None, self.rates.of_each is not None
        assert self.run(claim()) == sorted(job.name for job in expected)
        for job in expected:
            self.waiting[job.key].remove(job)
            self.running[job] = worker

    def _expected(self, worker: int, limit: int) -> list[Job]:
        own = sum(owner == worker for owner in self.running.values())
        rooms = [limit]
        rooms += [self.limits["concurrency"] - len(self.running)] if self.limits["concurrency"] else []
        rooms += [self.limits["worker_concurrency"] - own] if self.limits["worker_concurrency"] else []
        if self.limits["paused"] or min(rooms) <= 0:
            return []
        run = Counter(job.key for job in self.running)
        most = self.limits["partition_concurrency"] or limit + len(self.running)
        free = {key: min(len(jobs), most - run[key]) for key, jobs in self.waiting.items()}
        return self.turns.take(self.waiting, free, min(rooms))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), units=st.integers(0, 20), again=st.booleans())
    def use(self, data: st.DataObject, units: int, again: bool) -> None:  # noqa: FBT001 (drawn)
        """More or less than was thought, of both rates; and a call that is repeated counts once."""
        job = data.draw(st.sampled_from(sorted(self.running)))
        is_repeated = again and self.calls[job] > 0
        call = UsedUnits(job.name, f"use#{0 if is_repeated else self.calls[job]}", units, "q", None)
        woken = self.run(used_units.use(self.db.admin, SCHEMA, [call]))
        if is_repeated or (self.rates.queue is None and self.rates.of_each is None):
            assert woken == []
            return
        self.calls[job] += 1
        taken = [job.units if was and self.calls[job] == 1 else 0 for was in self.charged[job]]
        if self.rates.queue is not None and units != taken[0]:
            self.rates.queue.take(units - taken[0])
        if self.rates.of_each is not None and units != taken[1]:
            self.rates.take(job.key, units - taken[1])
        given_back = self.rates.queue is not None and units < taken[0]
        assert woken == (["q"] if given_back or (self.rates.of_each is not None and units < taken[1]) else [])

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """One ends."""
        job, worker = self._some(data)
        ((epoch,),) = self.rows("SELECT epoch FROM dbosflow.workflow WHERE id = %s", job.name)
        self.run(self.leases[worker].write(Slice(job.name, epoch).end()))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        """One goes back to its partition."""
        job, worker = self._some(data)
        self.waiting[job.key].append(job)
        ((epoch,),) = self.rows("SELECT epoch FROM dbosflow.workflow WHERE id = %s", job.name)
        lease = self.leases[worker]
        self.run(workflow.release(lease.connection, SCHEMA, lease.id, [(job.name, epoch)]))

    def _some(self, data: st.DataObject) -> tuple[Job, int]:
        job = data.draw(st.sampled_from(sorted(self.running)))
        return job, self.running.pop(job)

    @rule(worker=workers)
    def die(self, worker: int) -> None:
        """What a worker ran goes back, and another one comes."""

        async def die() -> None:
            await self.db.reclaim(self.leases[worker])
            await self.db.requeue(max_recoveries=1000)
            await self.leases[worker].connection.close()
            await self.db.rows("UPDATE dbosflow.workflow SET recoveries = 0")  # nobody is a suspect here
            self.leases[worker] = await self.db.lease()

        self.run(die())
        for job in [job for job, owner in self.running.items() if owner == worker]:
            del self.running[job]
            self.waiting[job.key].append(job)

    @rule(
        concurrency=numbers,
        worker_concurrency=numbers,
        partition_concurrency=numbers,
        weights=st.dictionaries(st.sampled_from(KEYS[1:]), st.integers(2, 4), max_size=2),
        paused=st.sampled_from([False, False, False, True]),
        rate=rates,
        partition_rate=rates,
    )
    def change(
        self,
        concurrency: int | None,
        worker_concurrency: int | None,
        partition_concurrency: int | None,
        rate: tuple[int, int] | None,
        partition_rate: tuple[int, int] | None,
        *,
        weights: dict[str, int],
        paused: bool,
    ) -> None:
        """Other limits and rates: what runs goes on."""
        self.limits = {
            "concurrency": concurrency,
            "worker_concurrency": worker_concurrency,
            "partition_concurrency": partition_concurrency,
            "paused": paused,
        }
        self.turns.weights = weights
        self.rates.change(rate, partition_rate)
        columns = {**self.limits, "weights": json.dumps(weights)}
        for prefix, one in (("", rate), ("partition_", partition_rate)):
            burst, unit = one or (None, None)
            columns[f"{prefix}rate_count"] = one and 1
            columns[f"{prefix}rate_period"], columns[f"{prefix}rate_burst"] = unit, burst

        async def apply() -> None:
            await queue.apply(self.db.admin, SCHEMA, "q", columns)
            await queue.set_settled(self.db.admin, SCHEMA, "q")

        self.run(apply())

    @rule(halves=st.integers(1, 20))
    def wait(self, halves: int) -> None:
        """Time passes."""
        self._move(halves * 500)

    @rule(days=st.integers(1, 1000))
    def set_the_clock_back(self, days: int) -> None:
        """No time passes by that; whoever claims, or corrects, goes on from there."""
        self._move(-days * 86400)

    def _move(self, seconds: int) -> None:
        self.rates.passes(seconds)
        for table, columns in (
            ("queue", ("rate_next_at", "rate_moved_at")),
            ("partition_rate", ("next_at", "moved_at")),
        ):
            changes = ", ".join(f"{column} = {column} - {seconds} * interval '1 second'" for column in columns)
            self.rows(f"UPDATE dbosflow.{table} SET {changes} RETURNING 1")

    @rule()
    def tidy(self) -> None:
        """Partitions of which nothing is taken lose their rows, and nothing else changes."""
        assert self.run(queue.delete_even(self.db.admin, SCHEMA, ("", ""))) is None
        self.rates.tidy()

    # -- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def the_tables_are_what_the_reference_says(self) -> None:
        """Each workflow is in one place, the turn is known, and as much is taken of each rate."""
        found = self.rows("SELECT id, status FROM dbosflow.workflow WHERE ended_at IS NULL")
        waiting = [(job.name, "queued") for jobs in self.waiting.values() for job in jobs]
        assert sorted(found) == sorted([*waiting, *((job.name, "running") for job in self.running)])
        assert self.rows("SELECT served, turn FROM dbosflow.queue") in ([], [(self.turns.served, self.turns.turn)])
        self._levels()

    def _levels(self) -> None:
        level = (
            "extract(epoch FROM {0}next_at - greatest({0}moved_at, clock_timestamp()))::double precision / {1}_period"
        )
        found = dict(
            self.rows(
                f"""SELECT p.key, {level.format("p.", "q.partition_rate")}
                    FROM dbosflow.partition_rate p JOIN dbosflow.queue q ON q.name = p.queue"""
            )
        )
        expected = {key: rate.level for key, rate in self.rates.partitions.items()}
        if self.rates.queue is not None:
            ((found["the queue"],),) = self.rows(f"SELECT {level.format('rate_', 'rate')} FROM dbosflow.queue")
            expected["the queue"] = self.rates.queue.level
        levels = {key: max(one or 0.0, 0.0) for key, one in found.items()}
        assert levels.keys() == expected.keys()
        assert all(abs(levels[key] - one) < DRIFT for key, one in expected.items()), f"{levels}, and not {expected}"
