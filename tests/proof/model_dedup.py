"""A model of deduplicated starts: who has a key, what has become of the arguments, and when it is due.

The statements are the real ones, the clock is the model's: time passes by a shift of all times in the tables.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from dbosflow._runtime.queues.deduplicator import answer_of
from dbosflow._store import dedup, retention, waiter, workflow
from dbosflow._store.start_options import Dedup, StartOptions
from dbosflow._store.workflow import Enqueued
from tests.proof.machine import Bench, Machine
from tests.protocol.schedules import NAME, SCHEMA, Slice, WorkerLease, cancel

if TYPE_CHECKING:
    from dbosflow.types import OnDuplicate

KEYS = ("a", "b")
TOLERANCE = 500.0
"""Seconds that an example may take: less than a tenth of what is told apart."""
ENDED = frozenset({"succeeded", "failed", "cancelled"})


@dataclass
class Work:
    """A workflow."""

    created: float
    by: str
    """The start whose arguments it has."""
    status: str
    due: float | None = None
    has_begun: bool = False
    is_asked: bool = False
    waits_for: str | None = None


@dataclass(frozen=True)
class Asked:
    """A start."""

    id: str
    key: str
    policy: OnDuplicate
    delay: float | None
    within: float | None


class Dedups(Machine):
    """The machine."""

    def __init__(self, at: Bench) -> None:
        super().__init__(at)
        self.lease: WorkerLease = self.run(self.db.lease())
        self.now = 0.0
        self.works: dict[str, Work] = {}
        self.held: dict[str, tuple[str, str]] = {}
        """Of each key the workflow, and the start that was applied last."""
        self.asked: list[Asked] = []
        self.numbers = itertools.count()

    def teardown(self) -> None:
        """The session is an example's own."""
        self.run(self.lease.connection.close())

    # -- starts --------------------------------------------------------------------------------------------------------

    @rule(
        key=st.sampled_from(KEYS),
        policy=st.sampled_from(("existing", "raise", "replace", "cancel_running")),
        delay=st.sampled_from((None, 10_000.0, 50_000.0)),
        within=st.sampled_from((None, 30_000.0)),
    )
    def start(self, key: str, policy: OnDuplicate, delay: float | None, within: float | None) -> None:
        """With a new id."""
        delay = None if policy == "cancel_running" else delay
        one = Asked(f"s{next(self.numbers)}", key, policy, delay, within if policy == "replace" and delay else None)
        self.asked.append(one)
        self._start(one)

    @precondition(lambda self: self.asked)
    @rule(number=st.integers(0, 30))
    def start_again(self, number: int) -> None:
        """As after a lost answer, or by a caller who repeats what was done."""
        self._start(self.asked[number % len(self.asked)])

    def _start(self, one: Asked) -> None:
        expected = self._expected(one)
        assert self.run(self._led_to(one)) == expected, one

    async def _led_to(self, one: Asked) -> str:
        row = Enqueued(
            *(one.id, NAME, "", 0, f'{{"by": "{one.id}"}}'),
            options=None if one.delay is None else StartOptions(delay=one.delay),
            dedup=Dedup(one.key, one.policy, one.within),
        )
        for _ in range(3):
            found = (await dedup.look(self.db.admin, SCHEMA, [row]))[one.id]
            try:
                answer = answer_of(row, found)
            except Exception as error:  # noqa: BLE001 (its type is what is compared)
                return type(error).__name__
            if answer is not None:
                return answer
            decided = await dedup.start(self.db.admin, SCHEMA, [row], "r")
            if decided:
                return decided[one.id].workflow_id
        return "nothing, though no row is locked"

    def _expected(self, one: Asked) -> str:
        """What the reference does."""
        if one.id in self.works:
            return one.id
        holder, last = self.held.get(one.key, ("", ""))
        if last == one.id:
            return holder
        work = self.works.get(holder)
        if work is None or work.status in ENDED or (one.policy == "replace" and work.has_begun):
            return self._made(one)
        match one.policy:
            case "raise":
                return "DuplicateWorkflowError"
            case "replace" | "cancel_running" if not work.has_begun:
                self._replace(one, work)
                self.held[one.key] = holder, one.id
            case "cancel_running":
                return self._succeed(one, holder, work)
        return holder

    def _succeed(self, one: Asked, holder: str, work: Work) -> str:
        work.is_asked = True
        if work.status in {"blocked", "waiting"}:
            work.status = "queued"
        self._made(one)
        self.works[one.id].status, self.works[one.id].waits_for = "waiting", holder
        return one.id

    def _replace(self, one: Asked, work: Work) -> None:
        work.by = one.id
        if work.waits_for is None:
            due = None if one.delay is None else self.now + one.delay
            if due is not None and one.within is not None:
                due = min(due, work.created + one.within)
            self._put_off(work, due)

    def _made(self, one: Asked) -> str:
        self.works[one.id] = work = Work(self.now, one.id, "queued")
        self._put_off(work, None if one.delay is None else self.now + one.delay)
        self.held[one.key] = one.id, one.id
        return one.id

    def _put_off(self, work: Work, due: float | None) -> None:
        is_later = due is not None and due > self.now
        work.status, work.due = ("scheduled", due) if is_later else ("queued", None)

    # -- what becomes of them ------------------------------------------------------------------------------------------

    def _some(self, *statuses: str) -> list[str]:
        return sorted(one for one, work in self.works.items() if work.status in statuses)

    @rule(limit=st.integers(1, 3))
    def claim(self, limit: int) -> None:
        """In the order of their creation."""
        first = [one for one, work in self.works.items() if work.status == "queued"][:limit]
        assert [one.id for one in self.run(self.lease.claim(limit))] == first
        for one in first:
            self.works[one].status, self.works[one].has_begun = "running", True

    @precondition(lambda self: self._some("running"))
    @rule(data=st.data(), status=st.sampled_from(("succeeded", "failed", "blocked", "suspended", "released")))
    def leave(self, data: st.DataObject, status: str) -> None:
        """What runs ends, is parked, is suspended, or loses its worker."""
        one = data.draw(st.sampled_from(self._some("running")))
        work = self.works[one]
        ((epoch,),) = self.rows("SELECT epoch FROM dbosflow.workflow WHERE id = %s", one)
        part = Slice(one, epoch=epoch)
        if status == "released":
            self.run(workflow.release(self.lease.connection, SCHEMA, self.lease.id, [(one, epoch)]))
            work.status = "queued"
        elif status == "suspended":
            assert self.run(self.lease.write(part.suspended(delay=1e9))).written
            work.status, work.due = ("queued" if work.is_asked else "waiting"), self.now + 1e9
        else:
            status = "cancelled" if work.is_asked else status
            assert self.run(self.lease.write(part.end(status))).written
            work.status = status

    @precondition(lambda self: self.works)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """What never ran ends at once."""
        one = data.draw(st.sampled_from(sorted(self.works)))
        self.run(cancel(self.db.admin, one))
        work = self.works[one]
        if work.status in ENDED:
            return
        work.is_asked, work.waits_for = True, None
        if not work.has_begun:
            work.status = "cancelled"
        elif work.status in {"blocked", "waiting"}:
            work.status = "queued"

    @precondition(lambda self: self._some("blocked"))
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        """What was parked goes on."""
        one = data.draw(st.sampled_from(self._some("blocked")))
        self.run(workflow.resume(self.db.admin, SCHEMA, [one]))
        self.works[one].status = "queued"

    @rule(hinted=st.booleans())
    def wake(self, hinted: bool) -> None:  # noqa: FBT001 (drawn)
        """Hints about all that there is, or a sweep: what waits for an end begins if that has come."""
        if hinted:
            topics = [f"w{one}" for one in self.works]
            self.run(waiter.wake_by_topic(self.db.admin, SCHEMA, topics))
        else:
            page = self.run(waiter.page(self.db.admin, SCHEMA, ("", "")))
            news = self.run(waiter.with_news(self.db.admin, SCHEMA, page.waiting))
            self.run(waiter.wake(self.db.admin, SCHEMA, sorted(news)))
        for work in self.works.values():
            if work.waits_for is not None and work.status == "waiting":
                before = self.works.get(work.waits_for)
                if before is None or before.status in ENDED:
                    work.status, work.waits_for = "queued", None

    @rule(seconds=st.sampled_from((5_000.0, 20_000.0, 60_000.0)))
    def time_passes(self, seconds: float) -> None:
        """And the alarm rings."""
        self.now += seconds
        query = """UPDATE dbosflow.workflow SET created_at = created_at - %s * interval '1 s',
                   wake_at = wake_at - %s * interval '1 s' RETURNING 1"""
        self.rows(query, seconds, seconds)
        self.run(waiter.wake_due(self.db.admin, SCHEMA))
        for work in self.works.values():
            if work.status == "scheduled" and work.due is not None and work.due <= self.now:
                work.status = "queued"

    @precondition(lambda self: self._some(*ENDED))
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """An ended workflow, and its key's row: its id is free."""
        one = data.draw(st.sampled_from(self._some(*ENDED)))
        found = self.run(retention.delete(self.db.admin, SCHEMA, [one], children=False))
        if found[one][0] == "deleted":
            del self.works[one]
            self.held = {key: held for key, held in self.held.items() if held[0] != one}

    # -- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def the_tables_are_what_the_model_says(self) -> None:
        """Statuses, arguments, times, and who has each key."""
        query = """SELECT id, status, input->>'by', extract(epoch FROM wake_at - now())::float,
                          cancel_requested_at IS NOT NULL FROM dbosflow.workflow"""
        found = {row[0]: row[1:] for row in self.rows(query)}
        assert {one: row[:2] for one, row in found.items()} == {
            one: (work.status, work.by) for one, work in self.works.items()
        }
        for one, work in self.works.items():
            if work.status == "scheduled":
                assert work.due is not None
                assert abs(found[one][2] - (work.due - self.now)) < TOLERANCE, (one, found[one], work)
            if work.status not in ENDED:
                assert found[one][3] == work.is_asked, one
        held = dict(self.rows("SELECT key, workflow_id FROM dbosflow.dedup WHERE workflow_id <> ''"))
        assert held == {key: one for key, (one, _) in self.held.items()}

    @invariant()
    def one_runs_and_one_waits(self) -> None:
        """Of workflows that were started to take another's place, none has begun before that was over."""
        waiting = self.rows("SELECT workflow_id, target_id FROM dbosflow.waiter")
        assert dict(waiting) == {
            one: work.waits_for for one, work in self.works.items() if work.status == "waiting" and work.waits_for
        }
