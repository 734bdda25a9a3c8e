"""A model run of the whole protocol: workers that die wrongly, connections cut after sending, copies that come late.

``DBOSFLOW_TEST_MODEL_SECONDS`` makes it run longer.
"""

from __future__ import annotations

import asyncio
import os
import random

import pytest

from dbosflow._store import worker
from tests.protocol.schedules import SCHEMA, Database
from tests.protocol.worker_model import Ledger, WorkerModel

SECONDS = float(os.environ.get("DBOSFLOW_TEST_MODEL_SECONDS", "8"))
SEED = int(os.environ.get("DBOSFLOW_TEST_MODEL_SEED", str(random.randrange(10**6))))
WORKERS = 4

INVARIANTS = {
    "a workflow's records have a hole": """
        SELECT workflow_id FROM dbosflow.step GROUP BY 1 HAVING count(*) <> max(seq) + 1""",
    "a block does not start at the tail": """
        SELECT workflow_id, "offset" FROM (
            SELECT *, lag("offset" + count, 1, 0::bigint) OVER (PARTITION BY workflow_id ORDER BY "offset") AS tail
            FROM dbosflow.stream_block) AS block
        WHERE "offset" <> tail""",
    "records and blocks of one batch are not both there": """
        SELECT workflow_id, key FROM dbosflow.step
        FULL JOIN (SELECT workflow_id, row_number() OVER (PARTITION BY workflow_id ORDER BY "offset") - 1 AS seq, epoch
                   FROM dbosflow.stream_block WHERE kind = 'values') AS block USING (workflow_id, seq)
        WHERE step.epoch IS DISTINCT FROM block.epoch""",
    "a row of an older epoch follows one of a newer": """
        SELECT workflow_id, seq FROM (
            SELECT *, max(epoch) OVER (PARTITION BY workflow_id ORDER BY seq) AS newest FROM dbosflow.step) AS record
        WHERE epoch < newest""",
    "an end without its terminal frame, or the reverse": """
        SELECT w.id FROM dbosflow.workflow w
        WHERE (w.status = 'succeeded') <> EXISTS (
            SELECT FROM dbosflow.stream_block b WHERE b.workflow_id = w.id AND b.kind = 'complete')""",
    "something follows a terminal frame": """
        SELECT b.workflow_id FROM dbosflow.stream_block b JOIN dbosflow.stream_block t USING (workflow_id)
        WHERE t.kind = 'complete' AND b."offset" > t."offset" """,
    "a run has no live owner": """
        SELECT w.id FROM dbosflow.workflow w LEFT JOIN dbosflow.worker k ON k.id = w.worker_id
        WHERE (w.status = 'running' AND k.state IS DISTINCT FROM 'live')
           OR (w.status <> 'running' AND k.id IS NOT NULL)""",
}


@pytest.mark.timeout(SECONDS + 60)
async def test_the_protocol_holds_under_false_deaths_and_lost_answers(db: Database) -> None:
    """No record lost or doubled, none of a stale owner, and no answer to a worker is untrue."""
    chance = random.Random(SEED)
    ledger, stop = Ledger(), asyncio.Event()
    workers = [
        asyncio.create_task(WorkerModel(db, ledger, random.Random(chance.random())).work(stop)) for _ in range(WORKERS)
    ]
    deaths = await _cause_deaths(db, chance)
    stop.set()
    await asyncio.gather(*workers)
    await db.requeue(max_recoveries=1 << 30)
    assert ledger.impossible == [], f"seed {SEED}"
    for wrong, query in INVARIANTS.items():
        assert await db.rows(query.replace("%", "%%")) == [], f"{wrong}; seed {SEED}"
    stored = set(await db.rows("SELECT workflow_id, key, epoch FROM dbosflow.step"))
    assert ledger.acknowledged == stored, f"seed {SEED}"
    assert not ledger.refused & stored, f"seed {SEED}"
    assert await db.rows("SELECT 1 FROM dbosflow.workflow WHERE error IS NOT NULL") == []
    for happened in (deaths, ledger.batches, ledger.lost, ledger.copies, ledger.started, ledger.ended):
        assert happened > SECONDS, f"{deaths} deaths, {ledger.batches} batches, {ledger.copies} copies: too few"


async def _cause_deaths(db: Database, chance: random.Random) -> int:
    """Reclaims workers that are well and busy."""
    deaths = 0
    until = asyncio.get_running_loop().time() + SECONDS
    while asyncio.get_running_loop().time() < until:
        await asyncio.sleep(chance.uniform(0.005, 0.05))
        live = await worker.survey(db.admin, SCHEMA)
        if live:
            deaths += len(await worker.mark_dead(db.admin, SCHEMA, [chance.choice(live)], "expired"))
            await db.requeue(max_recoveries=1 << 30)
    return deaths
