"""A model of a queue with partitions: weighted round robin and limits, in a few lines, beside the real thing.

Workers claim, end, give back and die; limits and weights change meanwhile. Each claim takes what the reference says.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from dbosflow._records.pins import stored_queue
from dbosflow._store import queue, workflow
from tests.proof.machine import Bench, Machine
from tests.protocol.schedules import NAME, SCHEMA, Slice

if TYPE_CHECKING:
    from tests.protocol.schedules import WorkerLease

KEYS = ("", "a", "b", "c", "é")
"""In the order of their turns. The empty one stands for none."""
WORKERS = 2
keys = st.sampled_from(KEYS)
workers = st.integers(0, WORKERS - 1)
numbers = st.none() | st.integers(1, 4)


@dataclass(frozen=True, order=True)
class Job:
    """A workflow of the model, by its place in its partition."""

    priority: int
    number: int
    key: str = field(compare=False)

    @property
    def name(self) -> str:
        """Its id."""
        return f"j{self.number:04}"


@dataclass
class Turns:
    """The reference: whose turn it is."""

    weights: dict[str, int] = field(default_factory=dict)
    served: str | None = None
    turn: int = 0

    def weight(self, key: str) -> int:
        """How many of a partition have their turn at once."""
        return self.weights.get(key, 1)

    def ring(self) -> list[tuple[str, int]]:
        """The partitions in their turn, each with how many of it are left of its first turn."""
        last = self.served or ""
        rest = self.weight(last) - self.turn if self.served is not None else 0
        order = [key for key in KEYS if key > last] + [key for key in KEYS if key <= last]
        turns = [(key, self.weight(key)) for key in order]
        return [(last, rest), *turns[:-1]] if rest > 0 else turns

    def take(self, rooms: dict[str, int], most: int) -> list[tuple[str, int]]:
        """What a claim takes of partitions with room and work: the partition, and the how manieth of it."""
        chosen = [(key, rest) for key, rest in self.ring() if rooms.get(key, 0) > 0][:most]
        total = sum(self.weight(key) for key, _ in chosen)
        candidates = []
        for place, (key, rest) in enumerate(chosen):
            weight = self.weight(key)
            candidates += [
                (max(number - rest + weight - 1, 0) // weight, place, number, key, rest)
                for number in range(1, min(rooms[key], most, weight * -(-most // total)) + 1)
            ]
        taken = sorted(candidates)[:most]
        if taken and (self.served or any(key for *_, key, _ in taken)):
            _, _, number, key, rest = taken[-1]
            weight = self.weight(key)
            self.served = key
            self.turn = weight - rest + number if number <= rest else (number - rest - 1) % weight + 1
        return [(key, number) for _, _, number, key, _ in taken]


class Partitions(Machine):
    """The machine."""

    def __init__(self, at: Bench) -> None:
        super().__init__(at)
        self.rows("TRUNCATE dbosflow.queue")
        self.waiting: dict[str, list[Job]] = {key: [] for key in KEYS}
        self.running: dict[Job, int] = {}
        self.turns = Turns()
        self.limits: dict[str, Any] = {}
        self.leases: list[WorkerLease] = []
        self.clock = itertools.count()

    @initialize()
    def begin(self) -> None:
        """Workers come, and the queue has a row."""
        self.leases = [self.run(self.db.lease()) for _ in range(WORKERS)]
        self.change(None, None, None, weights={}, paused=False)

    def teardown(self) -> None:
        """The workers are an example's own."""
        for lease in self.leases:
            self.run(lease.connection.close())

    # -- what may happen ---------------------------------------------------------------------------------------------

    @rule(key=keys, priorities=st.lists(st.integers(-1, 1), min_size=1, max_size=5))
    def enqueue(self, key: str, priorities: list[int]) -> None:
        """Some of one partition."""
        for priority in priorities:
            job = Job(priority, next(self.clock), key)
            self.waiting[key].append(job)
            self.rows(
                "INSERT INTO dbosflow.workflow (id, name, status, queue, priority, input) "
                "VALUES (%s, %s, 'queued', %s, %s, '{}')",
                *(job.name, NAME, stored_queue("q", None, key or None), priority),
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

        expected = self._expected(worker, limit)
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
        return [sorted(self.waiting[key])[number - 1] for key, number in self.turns.take(free, min(rooms))]

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
    )
    def change(
        self,
        concurrency: int | None,
        worker_concurrency: int | None,
        partition_concurrency: int | None,
        *,
        weights: dict[str, int],
        paused: bool,
    ) -> None:
        """Other limits: what runs goes on."""
        self.limits = {
            "concurrency": concurrency,
            "worker_concurrency": worker_concurrency,
            "partition_concurrency": partition_concurrency,
            "paused": paused,
        }
        self.turns.weights = weights
        columns = {**self.limits, "weights": json.dumps(weights)}

        async def apply() -> None:
            await queue.apply(self.db.admin, SCHEMA, "q", columns)
            await queue.set_settled(self.db.admin, SCHEMA, "q")

        self.run(apply())

    # -- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def each_is_in_one_place_and_the_turn_is_known(self) -> None:
        """As the reference says."""
        found = self.rows("SELECT id, status FROM dbosflow.workflow WHERE ended_at IS NULL")
        waiting = [(job.name, "queued") for jobs in self.waiting.values() for job in jobs]
        assert sorted(found) == sorted([*waiting, *((job.name, "running") for job in self.running)])
        assert self.rows("SELECT served, turn FROM dbosflow.queue") in ([], [(self.turns.served, self.turns.turn)])
