"""The model of workflows, with suspensions: what a worker suspends is woken by what it waits for, and by nothing else.

Whoever brings something may lose the hint: the rule of the sweep is one that finds it. The waiters' rows must be those
of the suspended workflows at any time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from dbosflow._store import waiter
from dbosflow._store.notify import workflow_topic
from dbosflow._store.waiter import Target
from tests.proof.model_workflows import IDS, Workflows, ids, workers
from tests.protocol.schedules import SCHEMA, Slice

if TYPE_CHECKING:
    from collections.abc import Iterable

targets = st.sets(st.sampled_from([*IDS, "nobody"]), max_size=2)


class Suspensions(Workflows):
    """The machine."""

    @rule(number=workers, one=ids, awaited=targets, is_due=st.sampled_from([None, True, False]))
    def suspend(self, number: int, one: str, awaited: set[str], *, is_due: bool | None) -> None:
        """As far as a worker believes that the run is its own; what is to be cancelled is queued instead."""
        session = self.workers[number]
        epoch, _ = session.beliefs.get(one, (1, 0))
        delay = None if is_due is None else 0.0 if is_due else 3600.0
        part = Slice(one, epoch).suspended(*(Target(other) for other in sorted(awaited)), delay=delay)
        result = self.run(session.lease.write(part))
        row = self.model.get(one)
        mine = row is not None and row.owner == session.name and row.epoch == epoch
        live = session.state == "live"
        assert (result.leased, result.written) == (live, live and mine)
        if result.written:
            assert row is not None
            row.owner, row.recoveries = None, 0
            row.status = "queued" if row.cancel else "waiting"
            row.awaits, row.is_due = (set(), None) if row.cancel else (awaited, is_due)

    @rule(chosen=st.sets(st.sampled_from([*IDS, "nobody"]), min_size=1, max_size=2))
    def hint(self, chosen: set[str]) -> None:
        """A process that has brought the ends of these, or believes so, wakes who waits for them."""
        expected = [one for one, row in self.model.items() if row.awaits & chosen]
        woken, _ = self.run(
            waiter.wake_by_topic(self.db.admin, SCHEMA, [workflow_topic(one) for one in sorted(chosen)])
        )
        assert len(woken) == len(expected)
        self._wake(expected)

    @rule()
    def alarm(self) -> None:
        """What is due is woken, and the alarm knows whether anything else will be."""
        expected = [one for one, row in self.model.items() if row.status == "waiting" and row.is_due]
        assert len(self.run(waiter.wake_due(self.db.admin, SCHEMA))) == len(expected)
        self._wake(expected)
        later = any(row.status == "waiting" and row.is_due is False for row in self.model.values())
        assert (self.run(waiter.next_due(self.db.admin, SCHEMA)) is not None) == later

    @rule()
    def sweep(self) -> None:
        """Who waits for what has ended, or was never there, is woken, whatever became of the hint."""
        waiting, stale, following = self.run(waiter.page(self.db.admin, SCHEMA, ("", "")))
        assert (stale, following) == ([], None)
        over = {one for one, row in self.model.items() if row.ended} | ({*IDS, "nobody"} - self.model.keys())
        expected = {one for one, row in self.model.items() if row.awaits & over}
        assert self.run(waiter.with_news(self.db.admin, SCHEMA, waiting)) == expected
        assert len(self.run(waiter.wake(self.db.admin, SCHEMA, sorted(expected)))) == len(expected)
        self._wake(expected)

    def _wake(self, chosen: Iterable[str]) -> None:
        for one in chosen:
            self.model[one].wake()

    @invariant()
    def only_suspended_workflows_have_waiters(self) -> None:
        """A row for each thing that they wait for."""
        found = {(one, topic) for one, topic in self.rows("SELECT workflow_id, topic FROM dbosflow.waiter")}
        assert found == {(one, workflow_topic(other)) for one, row in self.model.items() for other in row.awaits}
