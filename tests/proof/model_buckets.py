"""A model of a bucket that two queues share: the generic cell rate algorithm, in a few lines, beside the real thing.

The bucket gets a unit in a thousand seconds, or more, so no time passes but by the rules, which move what is stored
against the clock: forward, as time does, and back, as a clock that is set.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from dbosflow._store import queue, used_units, workflow
from dbosflow._store.used_units import UsedUnits
from tests.proof.machine import Bench, Machine
from tests.protocol.schedules import NAME, SCHEMA

QUEUES = ("a", "b")
DRIFT = 0.1
"""In units: more than what really passes in an example."""
queues = st.sampled_from(QUEUES)
sizes = st.one_of(st.just(1), st.integers(1, 12))


@dataclass
class Rate:
    """The reference: how many units are taken, of how many, and the seconds in which one comes back."""

    burst: int
    unit: int
    base: float = 0.0
    """The level when that was set last."""
    since: float | None = None
    """The seconds since then, by a clock that may have been put back; ``None``: it was never set."""

    @property
    def level(self) -> float:
        """How many units are taken."""
        return max(self.base - max(self.since or 0.0, 0.0) / self.unit, 0.0)

    @property
    def left(self) -> int:
        """How many units may begin."""
        return max(math.floor(self.burst - self.level + DRIFT), 0)

    @property
    def is_put_back(self) -> bool:
        """Whether the clock says a time before it was set."""
        return self.since is not None and self.since < 0

    def passes(self, seconds: float) -> None:
        """The clock goes on, or is put back."""
        if self.since is not None:
            self.since += seconds

    def take(self, units: int) -> None:
        """Units are taken, or given back."""
        self.base, self.since = max(self.level + units, 0.0), 0.0

    def changes(self, burst: int, unit: int) -> None:
        """Another rate: nothing is left of its burst, and a debt stays one."""
        if (burst, unit) != (self.burst, self.unit):
            self.base, self.since = max(self.level, burst), 0.0
            self.burst, self.unit = burst, unit


@dataclass
class Job:
    """A workflow of the model."""

    name: str
    units: int
    order: tuple[int, int]
    has_begun: bool = False
    gave_back: bool = False
    calls: list[int] = field(default_factory=list)


class Buckets(Machine):
    """The machine."""

    def __init__(self, at: Bench) -> None:
        super().__init__(at)
        self.rows("TRUNCATE dbosflow.queue, dbosflow.bucket, dbosflow.used_units")
        self.waiting: dict[str, list[Job]] = {name: [] for name in QUEUES}
        self.running: dict[str, tuple[str, Job]] = {}
        self.numbers = itertools.count()

    @initialize(burst=st.integers(1, 20))
    def begin(self, burst: int) -> None:
        """Two queues get the rate, and a worker comes."""
        self.rate = Rate(burst, 1000)
        self.lease = self.run(self.db.lease())
        for name in QUEUES:
            self._apply(name)

    def _apply(self, name: str) -> None:
        rate = {"rate_count": 1, "rate_period": float(self.rate.unit), "rate_burst": self.rate.burst, "bucket": "api"}

        async def apply() -> None:
            await queue.apply(self.db.admin, SCHEMA, name, rate)
            await queue.set_settled(self.db.admin, SCHEMA, name)

        self.run(apply())

    def teardown(self) -> None:
        """The worker is an example's own."""
        if hasattr(self, "lease"):
            self.run(self.lease.connection.close())

    # -- what may happen ---------------------------------------------------------------------------------------------

    @rule(name=queues, units=sizes, priority=st.integers(-1, 1))
    def enqueue(self, name: str, units: int, priority: int) -> None:
        """Of any size."""
        number = next(self.numbers)
        job = Job(f"j{number:04}", units, (priority, number))
        self.waiting[name].append(job)
        self.rows(
            """INSERT INTO dbosflow.workflow (id, name, status, queue, priority, input, units)
               VALUES (%s, %s, 'queued', %s, %s, '{}', nullif(%s, 1))""",
            *(job.name, NAME, name, priority, units),
        )

    @rule(name=queues, limit=st.integers(1, 6))
    def claim(self, name: str, limit: int) -> None:
        """In strict order, but for what has begun before, as far as there is room."""
        waiting = sorted(self.waiting[name], key=lambda job: job.order)
        expected = self._expected(waiting[:limit]) if self._looks(waiting) else []

        async def claim() -> list[str]:
            lease = self.lease
            claimed, _ = await queue.claim(
                lease.connection, SCHEMA, worker_id=lease.id, queue=name, names=[NAME], limit=limit
            )
            return sorted(one.id for one in claimed)

        assert self.run(claim()) == sorted(job.name for job in expected)
        for job in expected:
            job.has_begun = True
            self.waiting[name].remove(job)
            self.running[job.name] = name, job

    def _looks(self, waiting: list[Job]) -> bool:
        """Whether the first one may begin: else nothing is locked."""
        rate = self.rate
        if not waiting or waiting[0].has_begun or rate.is_put_back:
            return bool(waiting)
        return rate.left >= min(waiting[0].units, rate.burst)

    def _expected(self, waiting: list[Job]) -> list[Job]:
        # What is paid in full is admitted by no more than the burst, so all is decided first, and then paid.
        rate, found, left, is_open = self.rate, [], self.rate.left, True
        if rate.is_put_back:
            rate.take(0)
        for job in waiting:
            if job.has_begun:
                found.append(job)
                continue
            is_open = is_open and min(job.units, rate.burst) <= left
            if is_open:
                left -= min(job.units, rate.burst)
                rate.take(job.units)
                found.append(job)
        return found

    @precondition(lambda self: self.running)
    @rule(data=st.data(), units=st.integers(0, 30), again=st.booleans())
    def use(self, data: st.DataObject, units: int, again: bool) -> None:  # noqa: FBT001 (drawn)
        """More or less than was thought; and a call that is repeated counts once."""
        name = data.draw(st.sampled_from(sorted(self.running)))
        of, job = self.running[name]
        is_repeated = again and bool(job.calls)
        number = 0 if is_repeated else len(job.calls)
        call = UsedUnits(name, f"use#{number}", units, of, None)

        woken = self.run(used_units.use(self.db.admin, SCHEMA, [call]))
        if is_repeated:
            assert woken == []
            return
        job.calls.append(units)
        change = units - (0 if job.gave_back else job.units)
        job.gave_back = True
        if change:
            self.rate.take(change)
        assert woken == (list(QUEUES) if change < 0 else [])

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        """A worker releases one, which has begun."""
        name = data.draw(st.sampled_from(sorted(self.running)))
        of, job = self.running.pop(name)
        self.waiting[of].append(job)
        ((epoch,),) = self.rows("SELECT epoch FROM dbosflow.workflow WHERE id = %s", name)
        self.run(workflow.release(self.lease.connection, SCHEMA, self.lease.id, [(name, epoch)]))

    @rule(name=queues, burst=st.integers(1, 20), unit=st.sampled_from([1000, 2000, 5000]))
    def change(self, name: str, burst: int, unit: int) -> None:
        """By either queue, for both."""
        self.rate.changes(burst, unit)
        self._apply(name)

    @rule(halves=st.integers(1, 30))
    def wait(self, halves: int) -> None:
        """Time passes."""
        seconds = halves * self.rate.unit / 2
        self.rate.passes(seconds)
        self._move(-seconds)

    @rule(days=st.integers(1, 1000))
    def set_the_clock_back(self, days: int) -> None:
        """No time passes by that; whoever claims, or corrects, goes on from there."""
        self.rate.passes(-days * 86400)
        self._move(days * 86400)

    def _move(self, seconds: float) -> None:
        self.rows(
            """UPDATE dbosflow.bucket SET rate_next_at = rate_next_at + %s * interval '1 second',
                   rate_moved_at = rate_moved_at + %s * interval '1 second' RETURNING name""",
            *(seconds, seconds),
        )

    # -- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def as_much_is_taken_as_the_reference_says(self) -> None:
        """Within what has really passed."""
        if not hasattr(self, "rate"):
            return
        ((level,),) = self.rows(
            """SELECT extract(epoch FROM rate_next_at - greatest(rate_moved_at, clock_timestamp()))::double precision
                   / rate_period FROM dbosflow.bucket"""
        )
        assert abs(max(level or 0.0, 0.0) - self.rate.level) < DRIFT, f"{level} are taken, and not {self.rate.level}"
