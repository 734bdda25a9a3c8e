"""A model of leases: renewed, frozen, reclaimed, released, with batches under way while all of that happens.

Time is the database's and moves only when a rule says so: every live lease is dated back by as much.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from dbosflow._store import worker
from tests.proof.machine import Bench, Machine
from tests.protocol.schedules import SCHEMA, Slice, WorkerLease

if TYPE_CHECKING:
    from uuid import UUID

LEASE = 10.0
WORKERS = 3
workers = st.integers(0, WORKERS - 1)


@dataclass
class Holder:
    """A worker as it must be."""

    lease: WorkerLease
    run: str
    live: bool = True
    silent: float = 0.0
    committed: list[str] = field(default_factory=list)
    """Keys of the records that it has made durable, with its run at epoch 1."""
    under_way: str | None = None
    """A record that is written and not committed: the worker's row is held by it."""
    returned: bool = False
    """Whether its run is back in its queue."""


class Leases(Machine):
    """The machine."""

    def __init__(self, at: Bench) -> None:
        super().__init__(at)
        self.all: list[Holder] = []
        self.holders = [self._new() for _ in range(WORKERS)]
        self.count = 0

    def _new(self) -> Holder:
        holder = Holder(self.run(self.db.lease()), f"run{len(self.all)}")
        self.run(holder.lease.start(holder.run))
        self.all.append(holder)
        return holder

    def teardown(self) -> None:
        """Sessions of workers are an example's own."""
        for holder in self.all:
            self.run(holder.lease.connection.close())

    @rule(seconds=st.sampled_from([3.0, 7.5, 11.0]))
    def time_passes(self, seconds: float) -> None:
        """Time passes for all: a worker that does not renew is frozen, or cut off. No sum comes near to the lease."""
        self.rows(
            "UPDATE dbosflow.worker SET renewed_at = renewed_at - %s * interval '1 second' WHERE state = 'live'",
            seconds,
        )
        for holder in self.all:
            holder.silent += seconds

    @rule(chosen=st.sets(workers, min_size=1))
    def renew(self, chosen: set[int]) -> None:
        """Only the living are renewed, whatever batch is under way; the others learn that they are not."""
        assert self._renew(chosen) == {self.holders[number].lease.id for number in chosen if self.holders[number].live}

    def _renew(self, chosen: set[int]) -> set[UUID]:
        ids = [self.holders[number].lease.id for number in chosen]

        def renew() -> set[UUID]:
            with psycopg.connect(self.db.url, autocommit=True, options="-c lock_timeout=5s") as connection:
                return worker.renew(connection, SCHEMA, ids)

        for number in chosen:
            if self.holders[number].live:
                self.holders[number].silent = 0.0
        return self.run(asyncio.to_thread(renew))

    @rule(renewed_meanwhile=st.sets(workers))
    def reclaim(self, renewed_meanwhile: set[int]) -> None:
        """A worker that was silent too long is dead, unless it renewed since the survey, or has a batch under way."""
        surveyed = self.run(worker.survey(self.db.admin, SCHEMA))
        assert {lease.id for lease in surveyed} == {holder.lease.id for holder in self.all if holder.live}
        expired = [lease for lease in surveyed if lease.silent > lease.lease]
        assert {lease.id for lease in expired} == {
            holder.lease.id for holder in self.all if holder.live and holder.silent > LEASE
        }
        dying = [holder for holder in self.all if holder.live and holder.silent > LEASE]
        renewed = {self.holders[number].lease.id for number in renewed_meanwhile}
        if renewed_meanwhile:
            self._renew(renewed_meanwhile)
        dying = [one for one in dying if one.under_way is None and one.lease.id not in renewed]
        dead = self.run(worker.mark_dead(self.db.admin, SCHEMA, expired, "expired"))
        assert dead == {holder.lease.id for holder in dying}
        for holder in dying:
            holder.live = False

    @rule()
    def requeue(self) -> None:
        """The runs of the dead, each once, and with all that they have made durable."""
        returned = self.run(self.db.requeue())
        orphans = [holder for holder in self.all if not holder.live and not holder.returned]
        assert returned.keys() == {holder.run for holder in orphans}
        for holder in orphans:
            holder.returned = True
            assert {*self.run(self.db.history(holder.run)).records} == {*holder.committed}

    @rule(number=workers)
    def release(self, number: int) -> None:
        """It ends by itself; once."""
        holder = self.holders[number]
        if holder.under_way is None:
            self.run(worker.release(holder.lease.connection, SCHEMA, holder.lease.id))
            holder.live = False

    @rule(number=workers)
    def begin_anew(self, number: int) -> None:
        """Another worker takes the place of a dead one, whose session stays: a thawed process would still have it."""
        if not self.holders[number].live:
            self.holders[number] = self._new()

    @rule(number=workers, old=st.booleans())
    def write(self, number: int, old: bool) -> None:  # noqa: FBT001 (a drawn value)
        """Only workers with a live lease write: a thawed process learns that it has no lease."""
        holder = self.all[number % len(self.all)] if old else self.holders[number]
        if holder.under_way is not None:
            return
        key = self._next_key()
        result = self.run(holder.lease.write(Slice(holder.run).record(key, seq=self.count)))
        assert (result.leased, result.written) == (holder.live, holder.live)
        if result.written:
            holder.committed.append(key)

    @rule(number=workers)
    def begin_a_batch(self, number: int) -> None:
        """Its session stands still with the batch written and not committed."""
        holder = self.holders[number]
        if holder.under_way is None:
            key = self._next_key()
            self.run(holder.lease.connection.execute("BEGIN"))
            result = self.run(holder.lease.write(Slice(holder.run).record(key, seq=self.count)))
            assert result.written == holder.live
            if result.written:
                holder.under_way = key
            else:
                self.run(holder.lease.connection.execute("ROLLBACK"))

    @rule(number=workers, commits=st.booleans())
    def end_a_batch(self, number: int, commits: bool) -> None:  # noqa: FBT001 (a drawn value)
        """Nobody has taken its run meanwhile, however long it stood still."""
        holder = self.holders[number]
        if holder.under_way is not None:
            self.run(holder.lease.connection.execute("COMMIT" if commits else "ROLLBACK"))
            holder.committed += [holder.under_way] if commits else []
            holder.under_way = None

    def _next_key(self) -> str:
        self.count += 1
        return f"s{self.count}"

    @invariant()
    def the_tables_are_what_the_model_says(self) -> None:
        """Which workers are live, which owns what, and what is on record."""
        found = dict(self.rows("SELECT id, state = 'live' FROM dbosflow.worker"))
        assert found == {holder.lease.id: holder.live for holder in self.all}
        owners = {one: rest for one, *rest in self.rows("SELECT id, worker_id, epoch, status FROM dbosflow.workflow")}
        assert owners == {
            holder.run: [None, 2, "queued"] if holder.returned else [holder.lease.id, 1, "running"]
            for holder in self.all
        }
        records = {(one, key) for one, key in self.rows("SELECT workflow_id, key FROM dbosflow.step")}
        assert records == {(holder.run, key) for holder in self.all for key in holder.committed}
