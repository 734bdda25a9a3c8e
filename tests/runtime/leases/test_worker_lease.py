"""What a worker's lease knows without its connection: until when it holds, and if the database is the same."""

from __future__ import annotations

import time

import pytest

from dbosflow._runtime.leases.worker_lease import WorkerLease
from dbosflow.config import Settings
from tests.runtime.sessions import no_pool

NOWHERE = "postgresql:///nowhere"


def lease(reloads: list[str] | None = None, *, lasts: float = 10.0, pooled: bool | None = None) -> WorkerLease:
    """A lease that nobody has registered."""
    calls = [] if reloads is None else reloads
    settings = Settings(lease=lasts, pooled=pooled)
    return WorkerLease(NOWHERE, settings, no_pool(NOWHERE), on_new_timeline=lambda: calls.append("reload"))


def test_a_lease_that_was_never_registered_is_not_ours() -> None:
    assert not lease().in_time


def test_a_lease_is_ours_for_its_time_from_when_the_renewal_was_sent() -> None:
    """Not from when it was answered: the database counts from some moment in between."""
    one, sent_at = lease(lasts=10.0), time.monotonic() - 4.0
    one.renewed(sent_at)
    assert one.deadline == sent_at + 10.0
    assert one.in_time


def test_a_renewal_whose_answer_came_after_the_lease_was_over_does_not_make_it_ours() -> None:
    one = lease(lasts=10.0)
    one.renewed(time.monotonic() - 10.0)
    assert not one.in_time


def test_two_leases_never_have_one_id() -> None:
    """It fences writes: after a loss the next lease must own nothing of the one before."""
    assert lease().id != lease().id


@pytest.mark.parametrize(
    ("timelines", "reloads"),
    [
        (["1"], []),
        (["1", "1", "1"], []),
        (["1", "2"], ["reload"]),
        (["1", "2", "2"], ["reload"]),
        (["1", "2", "1"], ["reload", "reload"]),
    ],
)
def test_every_run_reloads_at_each_change_of_the_timeline(timelines: list[str], reloads: list[str]) -> None:
    """A failover may have lost commits; the first timeline that is seen is none."""
    calls: list[str] = []
    one = lease(calls)
    answers = [one.is_new(timeline) for timeline in timelines]
    assert calls == reloads
    assert answers.count(True) == len(reloads)


@pytest.mark.parametrize(("pooled", "expected"), [(True, "7"), (False, None), (None, None)])
def test_a_batch_asks_for_its_timeline_only_behind_a_pooler(pooled: object, expected: str | None) -> None:
    """There the connection outlives a failover; a direct one breaks, and the next one looks."""
    one = lease(pooled=None if pooled is None else bool(pooled))
    one.is_new("7")
    assert one.hidden_timeline == expected


async def test_disconnecting_without_a_connection_does_nothing() -> None:
    await lease().disconnect()
