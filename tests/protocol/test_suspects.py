"""Which runs the death of a worker counts against, and how a suspect is claimed: alone, one suspect a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dbosflow._runtime.execution.quarantine import SUSPECTED
from dbosflow._store import worker, workflow
from tests.protocol.schedules import NAME, SCHEMA, Slice

if TYPE_CHECKING:
    from tests.protocol.schedules import Database, WorkerLease


async def queue(db: Database, **recoveries: int) -> None:
    """Workflows that wait, each with so many deaths behind it; in this order of age."""
    for workflow_id, deaths in recoveries.items():
        await db.rows(
            """INSERT INTO dbosflow.workflow (id, name, status, input, epoch, recoveries, created_at)
               VALUES (%s, %s, 'queued', '{}', 1, %s, clock_timestamp())""",
            *(workflow_id, NAME, deaths),
        )


async def claimed(lease: WorkerLease, limit: int = 10) -> set[str]:
    """What the worker gets."""
    return {one.id for one in await lease.claim(limit)}


async def deaths(db: Database) -> dict[str, int]:
    """How many count against each."""
    rows = await db.rows("SELECT id, recoveries FROM dbosflow.workflow")
    return {workflow_id: count for workflow_id, count in rows}  # noqa: C416 (its rows are tuples)


async def dies(db: Database, lease: WorkerLease) -> dict[str, int]:
    """Both statements of its death."""
    assert await db.reclaim(lease) == {lease.id}
    await db.requeue()
    return await deaths(db)


async def test_a_suspect_is_claimed_alone(db: Database) -> None:
    """However much else waits, and before it; and the worker claims nothing more while it is in quarantine."""
    await queue(db, old=0, suspect=SUSPECTED, second=SUSPECTED, fresh=SUSPECTED - 1)
    lease, other, third = [await db.lease() for _ in range(3)]
    assert await claimed(lease) == {"suspect"}
    assert await claimed(lease) == set()
    assert await claimed(other) == {"second"}
    assert await claimed(third) == {"old", "fresh"}


async def test_a_worker_without_a_free_slot_claims_no_suspect(db: Database) -> None:
    await queue(db, suspect=SUSPECTED)
    assert await claimed(await db.lease(), 0) == set()


async def test_the_suspect_with_the_fewest_deaths_goes_first(db: Database) -> None:
    """So that many innocent ones share what they cannot help."""
    await queue(db, guilty=8, older=5, younger=5, least=4)
    order = [await claimed(await db.lease()) for _ in range(4)]
    assert order == [{"least"}, {"older"}, {"younger"}, {"guilty"}]


async def test_a_death_accuses_the_suspect_and_no_other_suspect(db: Database) -> None:
    """What ran there before, or began there since, becomes one at the most."""
    await queue(db, before=0, before_twice=SUSPECTED - 1)
    lease = await (await db.lease()).start("started")
    assert await claimed(lease) == {"before", "before_twice"}
    await queue(db, suspect=SUSPECTED)
    assert await claimed(lease) == {"suspect"}
    await lease.start("later", "further")
    assert (await lease.write(Slice("further").record("a"))).written
    found = await dies(db, lease)
    assert {name: found[name] for name in ("before", "started", "later")} == {"before": 1, "started": 1, "later": 1}
    assert (found["further"], found["before_twice"], found["suspect"]) == (0, SUSPECTED, SUSPECTED + 1)


async def test_a_suspect_does_not_hide_one_that_kills_beside_it(db: Database) -> None:
    """Of another queue, say, which is asked first: it runs already when the suspect is claimed, each time."""
    await queue(db, killer=0)
    await queue(db, innocent=SUSPECTED)
    await db.rows("UPDATE dbosflow.workflow SET queue = 'first' WHERE id = 'killer'")
    for number in range(1, SUSPECTED + 1):
        lease = await db.lease()
        taken = await workflow.claim(lease.connection, SCHEMA, worker_id=lease.id, queue="first", names=[NAME], limit=9)
        assert [one.id for one in taken] == ["killer"]
        assert await claimed(lease) == {"innocent"}
        assert await dies(db, lease) == {"killer": number, "innocent": SUSPECTED + number}
    lease = await db.lease()
    taken = await workflow.claim(lease.connection, SCHEMA, worker_id=lease.id, queue="first", names=[NAME], limit=9)
    assert [one.id for one in taken] == ["killer"]
    assert await claimed(lease) == set()


async def test_without_a_suspect_a_death_accuses_all_that_got_no_further(db: Database) -> None:
    lease = await (await db.lease()).start("still", "record", "value", "attempt")
    assert await dies(db, lease) == {"still": 1, "record": 1, "value": 1, "attempt": 1}
    lease = await db.lease()
    assert len(await lease.claim()) == 4
    step = Slice("attempt", 3).values(0)
    step.blocks = [row._replace(attempt="3.1") for row in step.blocks]
    assert (await lease.write(Slice("record", 3).record("a"), Slice("value", 3).values(0), step)).written
    assert await dies(db, lease) == {"still": 2, "record": 1, "value": 1, "attempt": 2}


async def test_a_value_of_an_earlier_claim_is_no_progress(db: Database) -> None:
    """A run that writes a value and then kills its worker writes none in its next pass: it is there."""
    lease = await (await db.lease()).start("w")
    await lease.write(Slice("w").values(0))
    assert await dies(db, lease) == {"w": 1}
    for number in range(2, 5):
        lease = await db.lease()
        await lease.claim()
        assert await dies(db, lease) == {"w": number}


@pytest.mark.parametrize("acquitted", [True, False])
async def test_a_worker_whose_quarantine_is_over_claims_again(db: Database, acquitted: bool) -> None:  # noqa: FBT001 (a case)
    """And its death accuses as every other: what was acquitted begins anew."""
    await queue(db, suspect=SUSPECTED, other=0)
    lease = await db.lease()
    assert await claimed(lease) == {"suspect"}
    await worker.end_quarantine(lease.connection, SCHEMA, lease.id, "suspect", acquitted=acquitted)
    assert await deaths(db) == {"suspect": 0 if acquitted else SUSPECTED, "other": 0}
    assert await claimed(lease) == {"other"}
    assert await dies(db, lease) == {"suspect": 1 if acquitted else SUSPECTED + 1, "other": 1}


async def test_a_late_word_of_an_old_owner_acquits_nobody(db: Database) -> None:
    """Another worker has it by then."""
    await queue(db, suspect=SUSPECTED)
    lease = await db.lease()
    await lease.claim()
    await dies(db, lease)
    other = await db.lease()
    assert await claimed(other) == {"suspect"}
    await worker.end_quarantine(db.admin, SCHEMA, lease.id, "suspect", acquitted=True)
    assert await deaths(db) == {"suspect": SUSPECTED + 1}
    assert await claimed(other) == set()


async def test_two_that_kill_are_both_parked_and_a_third_that_does_not_is_not(db: Database) -> None:
    """By workers that come one after the other, each of which dies as soon as it has one of the two."""
    await queue(db, one=0, innocent=0, two=0)
    parked: dict[str, str] = {}
    passes = 0
    while set(parked.values()) != {"blocked"} or len(parked) < 2:
        passes += 1
        assert passes < 30
        lease = await db.lease()
        got = await claimed(lease)
        while got and not got & {"one", "two"}:  # what is innocent waits, and is acquitted
            await worker.end_quarantine(lease.connection, SCHEMA, lease.id, "innocent", acquitted=True)
            got = await claimed(lease)
        await db.reclaim(lease)
        parked |= {one: status for one, status in (await db.requeue()).items() if status == "blocked"}
    assert parked == {"one": "blocked", "two": "blocked"}
    assert passes == SUSPECTED + 2 * (10 - SUSPECTED)
    assert (await deaths(db))["innocent"] <= SUSPECTED


async def test_a_workflows_own_limit_comes_before_that_of_the_engine_which_reclaims(db: Database) -> None:
    """Whichever process that is: the limit is in the workflow's row."""
    await queue(db, careful=0, usual=0, patient=0)
    await db.rows(
        "UPDATE dbosflow.workflow SET max_recoveries = CASE id WHEN 'careful' THEN 1 WHEN 'patient' THEN 3 END"
    )
    lease = await db.lease()
    assert await claimed(lease) == {"careful", "usual", "patient"}
    assert await db.reclaim(lease) == {lease.id}
    assert await db.requeue(max_recoveries=2) == {"careful": "blocked", "usual": "queued", "patient": "queued"}
    lease = await db.lease()
    assert await claimed(lease) == {"usual", "patient"}
    assert await db.reclaim(lease) == {lease.id}
    assert await db.requeue(max_recoveries=2) == {"usual": "blocked", "patient": "queued"}


async def test_a_worker_that_is_released_parks_nothing(db: Database) -> None:
    """The smallest limit is a death."""
    await queue(db, careful=0)
    await db.rows("UPDATE dbosflow.workflow SET max_recoveries = 1")
    lease = await db.lease()
    await lease.claim()
    await db.rows("UPDATE dbosflow.worker SET state = 'dead', ended_because = 'released' WHERE id = %s", lease.id)
    assert await db.requeue() == {"careful": "queued"}
