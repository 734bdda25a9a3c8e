"""Whom the death of a lane counts against, and how who is suspected of it is claimed: alone, one suspect a lane."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dbosflow._runtime.quarantine import SUSPECTED
from dbosflow._store import worker
from tests.protocol.schedules import NAME, SCHEMA, Slice

if TYPE_CHECKING:
    from tests.protocol.schedules import Database, Lane


async def queue(db: Database, **recoveries: int) -> None:
    """Workflows that wait, each with so many deaths behind it; in this order of age."""
    for workflow_id, deaths in recoveries.items():
        await db.rows(
            """INSERT INTO dbosflow.workflow (id, name, status, input, epoch, recoveries, created_at)
               VALUES (%s, %s, 'queued', '{}', 1, %s, clock_timestamp())""",
            *(workflow_id, NAME, deaths),
        )


async def claimed(lane: Lane, limit: int = 10) -> set[str]:
    """What the lane gets."""
    return {one.id for one in await lane.claim(limit)}


async def deaths(db: Database) -> dict[str, int]:
    """How many count against each."""
    rows = await db.rows("SELECT id, recoveries FROM dbosflow.workflow")
    return {workflow_id: count for workflow_id, count in rows}  # noqa: C416 (its rows are tuples)


async def dies(db: Database, lane: Lane) -> dict[str, int]:
    """Both statements of its death."""
    assert await db.reclaim(lane) == {lane.id}
    await db.requeue()
    return await deaths(db)


async def test_a_suspect_is_claimed_alone(db: Database) -> None:
    """However much else waits, and before it; and the lane claims nothing more while it is in quarantine."""
    await queue(db, old=0, suspect=SUSPECTED, second=SUSPECTED, fresh=SUSPECTED - 1)
    lane, other, third = [await db.lane() for _ in range(3)]
    assert await claimed(lane) == {"suspect"}
    assert await claimed(lane) == set()
    assert await claimed(other) == {"second"}
    assert await claimed(third) == {"old", "fresh"}


async def test_a_lane_without_a_free_slot_claims_no_suspect(db: Database) -> None:
    await queue(db, suspect=SUSPECTED)
    assert await claimed(await db.lane(), 0) == set()


async def test_the_suspect_with_the_fewest_deaths_goes_first(db: Database) -> None:
    """So that many innocent ones share what they cannot help."""
    await queue(db, guilty=8, older=5, younger=5, least=4)
    order = [await claimed(await db.lane()) for _ in range(4)]
    assert order == [{"least"}, {"older"}, {"younger"}, {"guilty"}]


async def test_a_death_accuses_the_suspect_and_no_other(db: Database) -> None:
    """Neither what ran there before, nor what began there since."""
    await queue(db, before=0)
    lane = await (await db.lane()).start("started")
    assert await claimed(lane) == {"before"}
    await queue(db, suspect=SUSPECTED)
    assert await claimed(lane) == {"suspect"}
    await lane.start("later")
    assert await dies(db, lane) == {"before": 0, "started": 0, "later": 0, "suspect": SUSPECTED + 1}


async def test_without_a_suspect_a_death_accuses_all_that_got_no_further(db: Database) -> None:
    lane = await (await db.lane()).start("still", "record", "value", "attempt")
    assert await dies(db, lane) == {"still": 1, "record": 1, "value": 1, "attempt": 1}
    lane = await db.lane()
    assert len(await lane.claim()) == 4
    step = Slice("attempt", 3).values(0)
    step.blocks = [(*row[:9], "3.1", *row[10:]) for row in step.blocks]
    assert (await lane.write(Slice("record", 3).record("a"), Slice("value", 3).values(0), step)).written
    assert await dies(db, lane) == {"still": 2, "record": 1, "value": 1, "attempt": 2}


async def test_a_value_of_an_earlier_claim_is_no_progress(db: Database) -> None:
    """A run that writes a value and then kills its worker writes none in its next pass: it is there."""
    lane = await (await db.lane()).start("w")
    await lane.write(Slice("w").values(0))
    assert await dies(db, lane) == {"w": 1}
    for number in range(2, 5):
        lane = await db.lane()
        await lane.claim()
        assert await dies(db, lane) == {"w": number}


@pytest.mark.parametrize("acquitted", [True, False])
async def test_a_lane_whose_quarantine_is_over_claims_again(db: Database, acquitted: bool) -> None:  # noqa: FBT001 (a case)
    """And its death accuses as every other: what was acquitted begins anew."""
    await queue(db, suspect=SUSPECTED, other=0)
    lane = await db.lane()
    assert await claimed(lane) == {"suspect"}
    await worker.end_quarantine(lane.connection, SCHEMA, lane.id, "suspect", acquitted=acquitted)
    assert await deaths(db) == {"suspect": 0 if acquitted else SUSPECTED, "other": 0}
    assert await claimed(lane) == {"other"}
    assert await dies(db, lane) == {"suspect": 1 if acquitted else SUSPECTED + 1, "other": 1}


async def test_a_late_word_of_an_old_owner_acquits_nobody(db: Database) -> None:
    """Another lane has it by then."""
    await queue(db, suspect=SUSPECTED)
    lane = await db.lane()
    await lane.claim()
    await dies(db, lane)
    other = await db.lane()
    assert await claimed(other) == {"suspect"}
    await worker.end_quarantine(db.admin, SCHEMA, lane.id, "suspect", acquitted=True)
    assert await deaths(db) == {"suspect": SUSPECTED + 1}
    assert await claimed(other) == set()


async def test_two_that_kill_are_both_parked_and_a_third_that_does_not_is_not(db: Database) -> None:
    """By lanes that come one after the other, each of which dies as soon as it has one of the two."""
    await queue(db, one=0, innocent=0, two=0)
    parked: dict[str, str] = {}
    lives = 0
    while set(parked.values()) != {"blocked"} or len(parked) < 2:
        lives += 1
        assert lives < 30
        lane = await db.lane()
        got = await claimed(lane)
        while got and not got & {"one", "two"}:  # what is innocent waits, and is acquitted
            await worker.end_quarantine(lane.connection, SCHEMA, lane.id, "innocent", acquitted=True)
            got = await claimed(lane)
        await db.reclaim(lane)
        parked |= {one: status for one, status in (await db.requeue()).items() if status == "blocked"}
    assert parked == {"one": "blocked", "two": "blocked"}
    assert lives == SUSPECTED + 2 * (10 - SUSPECTED)
    assert (await deaths(db))["innocent"] == 0
