"""A model of workflows: starts, claims, records, ends, cancels, deaths and releases, by several workers at a time.

Workers act on what they believe, also when they are dead or somebody else owns the run by now; the model knows what
must come of it. After each step the tables must be what the model says, row by row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from dbosflow._runtime.execution.quarantine import SUSPECTED
from dbosflow._store import worker, workflow
from dbosflow._store.cancel_request import CancelRequest
from tests.proof.machine import Bench, Machine
from tests.protocol.schedules import NAME, SCHEMA, Slice, WorkerLease, batch, cancel

if TYPE_CHECKING:
    from dbosflow._store.batch_rows import BatchRows

IDS = [f"w{number}" for number in range(5)]
WORKERS = range(3)
MAX_RECOVERIES = 5

ENDS = [None, None, "succeeded", "failed", "cancelled", "timed out", "blocked"]

workers = st.sampled_from(WORKERS)
ids = st.sampled_from(IDS)


@dataclass
class Row:
    """A workflow as it must be."""

    created: int
    status: str = "queued"
    owner: int | None = None
    """The name of the worker that it belongs to."""
    epoch: int = 0
    cancel: bool = False
    timed_out: bool = False
    recoveries: int = 0
    recovered_seq: int | None = None
    records: list[tuple[str, int]] = field(default_factory=list)
    """Key and epoch of each."""
    awaits: set[str] = field(default_factory=set)
    """The workflows for whose end it waits, suspended."""
    is_due: bool | None = None
    """Whether the time has come for which it waits, suspended; ``None`` if it waits for none."""

    @property
    def ended(self) -> bool:
        """Whether it can never change again."""
        return self.status in {"succeeded", "failed", "cancelled"}

    def wake(self) -> None:
        """A suspended or parked workflow goes back to its queue."""
        self.status, self.awaits, self.is_due = "queued", set(), None


@dataclass
class Session:
    """A worker, and what it believes."""

    name: int
    lease: WorkerLease
    state: str = "live"
    why: str | None = None
    suspect: str | None = None
    """The workflow that it has in quarantine."""
    beliefs: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The epoch of each run that it took once, and how many records it thinks there are."""
    last: BatchRows | None = None


class Workflows(Machine):
    """The machine."""

    def __init__(self, at: Bench) -> None:
        super().__init__(at)
        self.model: dict[str, Row] = {}
        self.named: dict[int, Session] = {}
        self.workers = [self._new_worker() for _ in WORKERS]
        self.clock = 0

    def _new_worker(self) -> Session:
        session = Session(len(self.named), self.run(self.db.lease()))
        self.named[session.name] = session
        return session

    def teardown(self) -> None:
        """Sessions of workers are an example's own."""
        for session in self.named.values():
            self.run(session.lease.connection.close())

    # -- what may happen ---------------------------------------------------------------------------------------------

    @rule(number=workers, chosen=st.sets(ids, min_size=1, max_size=3))
    def start(self, number: int, chosen: set[str]) -> None:
        """Only a living worker starts anything, and each id once."""
        session = self.workers[number]
        result = self.run(session.lease.write(starts=tuple(sorted(chosen, reverse=True))))
        new = {one for one in chosen if one not in self.model} if session.state == "live" else set()
        assert (result.leased, {*result.started}) == (session.state == "live", new)
        self.clock += 1
        for one in new:
            self.model[one] = Row(self.clock, "running", session.name, 1)
            session.beliefs[one] = 1, 0

    @rule(chosen=st.sets(ids, min_size=1, max_size=3))
    def enqueue(self, chosen: set[str]) -> None:
        """Each id once, in whichever process."""
        rows = [workflow.Enqueued(one, NAME, "", 0, "{}") for one in chosen]
        assert self.run(workflow.enqueue(self.db.admin, SCHEMA, rows)) == chosen - self.model.keys()
        self.clock += 1
        for one in chosen - self.model.keys():
            self.model[one] = Row(self.clock)

    @rule(number=workers, limit=st.integers(1, 3))
    def claim(self, number: int, limit: int) -> None:
        """The oldest first; by a living worker only. A suspect is claimed alone, by a worker that has none."""
        session = self.workers[number]
        queued = [(row, one) for one, row in self.model.items() if row.status == "queued"]
        free = sorted((row.created, one) for row, one in queued if row.recoveries < SUSPECTED)
        suspects = sorted((row.recoveries, row.created, one) for row, one in queued if row.recoveries >= SUSPECTED)
        expected = [one for _, one in free[:limit]]
        if session.state != "live" or session.suspect is not None:
            expected = []
        elif suspects:
            session.suspect = suspects[0][-1]
            expected = [session.suspect]
        claimed = {one.id: one for one in self.run(session.lease.claim(limit))}
        assert claimed.keys() == set(expected)
        for one in expected:
            row = self.model[one]
            row.status, row.owner, row.epoch = "running", session.name, row.epoch + 1
            assert (claimed[one].epoch, claimed[one].recoveries) == (row.epoch, row.recoveries)
            expected_request = CancelRequest(None, row.timed_out) if row.cancel else None
            assert claimed[one].cancel_request == expected_request
            session.beliefs[one] = row.epoch, len(row.records)

    @rule(number=workers, one=ids, end=st.sampled_from(ENDS))
    def write(self, number: int, one: str, end: str | None) -> None:
        """A record, and perhaps the end, as far as a worker believes that the run is its own.

        What is to be cancelled ends so or not at all, and each answer about a run of one's own says so.
        """
        session = self.workers[number]
        epoch, seq = session.beliefs.get(one, (1, 0))
        part = Slice(one, epoch).record(f"{session.name}.{epoch}.{seq}", seq=seq)
        if end is not None:
            part.end(end)
        session.last = batch(part)
        result = self.run(session.lease.send(session.last))
        row = self.model.get(one)
        mine = row is not None and row.owner == session.name and row.epoch == epoch
        asked = row is not None and row.cancel
        may = not (asked and end in {"succeeded", "failed", "blocked"})
        live = session.state == "live"
        assert (result.leased, result.written) == (live, live and mine and may)
        assert set(result.cancelled) == ({one} if live and mine and asked else set())
        if result.written:
            assert row is not None
            row.records.append((f"{session.name}.{epoch}.{seq}", epoch))
            session.beliefs[one] = epoch, seq + 1
            if end is not None:
                row.status, row.owner = "failed" if end == "timed out" else end, None

    @rule(number=workers, acquitted=st.booleans())
    def end_quarantine(self, number: int, *, acquitted: bool) -> None:
        """A worker has seen enough of its suspect; what it believes of one that is elsewhere changes nothing there."""
        session = self.workers[number]
        if session.suspect is None:
            return
        found = worker.end_quarantine(self.db.admin, SCHEMA, session.lease.id, session.suspect, acquitted=acquitted)
        self.run(found)
        row = self.model.get(session.suspect)
        if acquitted and row is not None and row.owner == session.name:
            row.recoveries = 0
        session.suspect = None

    @precondition(lambda self: any(session.last for session in self.workers))
    @rule(number=workers)
    def send_again(self, number: int) -> None:
        """A late copy of a batch whose fate is known changes nothing, if it was written; else it is just late."""
        session = self.workers[number]
        if session.last is None:
            return
        one, key, _, epoch = session.last.records[0][:4]
        row = self.model.get(one)
        if row is None or (key, epoch) not in row.records:
            return
        try:
            assert not self.run(session.lease.send(session.last)).written
        except psycopg.errors.UniqueViolation:
            assert session.state == "live"

    @rule(one=ids)
    def cancel(self, one: str) -> None:
        """What never ran ends, what is parked is queued, all else is a request."""
        found = self.run(cancel(self.db.admin, one))
        row = self.model.get(one)
        if row is None or row.ended:
            assert found == []
            return
        row.cancel, row.recoveries = True, 0
        if row.epoch == 0:
            row.status = "cancelled"
        elif row.status in {"blocked", "waiting"}:
            row.wake()
        assert [(one["id"], one["status"]) for one in found] == [(one, row.status)]

    @rule(chosen=st.sets(ids, min_size=1, max_size=2))
    def deadline(self, chosen: set[str]) -> None:
        """What has passed its deadline is asked to end, like a cancel, unless one came before; what never ran fails."""
        for one in chosen:
            self.rows("UPDATE dbosflow.workflow SET deadline_at = now() - interval '1 s' WHERE id = %s", one)
        found = {row["id"]: row["status"] for row in self.run(workflow.expire(self.db.admin, SCHEMA, limit=10))}
        self.rows("UPDATE dbosflow.workflow SET deadline_at = NULL")
        expected = {}
        for one in chosen & self.model.keys():
            row = self.model[one]
            if row.ended or row.cancel:
                continue
            row.cancel = row.timed_out = True
            row.recoveries = 0
            if row.epoch == 0:
                row.status = "failed"
            elif row.status in {"blocked", "waiting"}:
                row.wake()
            expected[one] = row.status
        assert found == expected

    @rule(number=workers)
    def die(self, number: int) -> None:
        """A worker is dead from one moment on; what it ran is still its own until somebody returns it."""
        session = self.workers[number]
        dead = self.run(self.db.reclaim(session.lease))
        assert dead == ({session.lease.id} if session.state == "live" else set())
        self._dead(session, "expired")

    @rule(number=workers)
    def release(self, number: int) -> None:
        """A worker gives itself up."""
        session = self.workers[number]
        self.run(worker.release(session.lease.connection, SCHEMA, session.lease.id))
        self._dead(session, "released")

    def _dead(self, session: Session, why: str) -> None:
        if session.state == "live":
            session.state, session.why = "dead", why

    @rule()
    def requeue(self) -> None:
        """The runs of dead workers go back to their queue, or are parked; those of living ones stay."""
        returned = self.run(self.db.requeue(MAX_RECOVERIES))
        expected = {}
        for one, row in self.model.items():
            if row.owner is None or self.named[row.owner].state == "live":
                continue
            seq = len(row.records) - 1 if row.records else None
            owner = self.named[row.owner]
            if owner.why == "released":
                row.recoveries = 0
            elif owner.suspect in {None, one}:
                row.recoveries = row.recoveries + 1 if row.recovered_seq == seq else 1
            elif row.recovered_seq == seq and row.recoveries < SUSPECTED:
                row.recoveries += 1
            row.recovered_seq = seq
            row.owner, row.epoch = None, row.epoch + 1
            row.status = "blocked" if row.recoveries >= MAX_RECOVERIES else "queued"
            expected[one] = row.status
        assert returned == expected

    @rule(number=workers)
    def begin_anew(self, number: int) -> None:
        """A process that lost its lease takes another, and owns nothing. Its old self may still be sending."""
        if self.workers[number].state == "dead":
            self.workers[number] = self._new_worker()

    @rule(number=workers, chosen=st.sets(ids, min_size=1))
    def hand_over(self, number: int, chosen: set[str]) -> None:
        """A worker returns runs of its own; of others it returns none."""
        session = self.workers[number]
        runs = [(one, session.beliefs.get(one, (1, 0))[0]) for one in sorted(chosen)]
        self.run(workflow.release(session.lease.connection, SCHEMA, session.lease.id, runs))
        for one, epoch in runs:
            row = self.model.get(one)
            if row is not None and row.owner == session.name and row.epoch == epoch:
                row.status, row.owner, row.epoch, row.recoveries = "queued", None, epoch + 1, 0

    @rule(number=workers, one=ids)
    def reload(self, number: int, one: str) -> None:
        """A worker begins a new pass of a run of its own."""
        session = self.workers[number]
        epoch, seq = session.beliefs.get(one, (1, 0))
        found = self.run(
            workflow.renew_epoch(
                session.lease.connection, SCHEMA, workflow_id=one, worker_id=session.lease.id, epoch=epoch
            )
        )
        row = self.model.get(one)
        mine = row is not None and row.owner == session.name and row.epoch == epoch
        assert found == (epoch + 1 if mine else None)
        if mine:
            assert row is not None
            row.epoch = epoch + 1
            session.beliefs[one] = row.epoch, seq

    # -- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def the_tables_are_what_the_model_says(self) -> None:
        """Row by row."""
        worker_of = {session.lease.id: session.name for session in self.named.values()}
        found: dict[str, tuple[Any, ...]] = {
            row[0]: row[1:]
            for row in self.rows(
                "SELECT id, status, worker_id, epoch, cancel_requested_at IS NOT NULL, recoveries, ended_at IS NOT NULL"
                " FROM dbosflow.workflow"
            )
        }
        assert {
            one: (status, None if owner is None else worker_of[owner], *rest)
            for one, (status, owner, *rest) in found.items()
        } == {
            one: (row.status, row.owner, row.epoch, row.cancel, row.recoveries, row.ended)
            for one, row in self.model.items()
        }
        records: dict[str, list[tuple[str, int]]] = {}
        for one, key, epoch in self.rows("SELECT workflow_id, key, epoch FROM dbosflow.step ORDER BY workflow_id, seq"):
            records.setdefault(one, []).append((key, epoch))
        assert records == {one: row.records for one, row in self.model.items() if row.records}
        states = dict(self.rows("SELECT id, state FROM dbosflow.worker"))
        assert states == {session.lease.id: session.state for session in self.named.values()}
