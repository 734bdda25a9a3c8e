"""Failover, with servers of the test's own: what it loses is lost, and what it leaves is whole."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from dbosflow._runtime.leases.worker_lease import WorkerLease
from dbosflow._store.migrate import ensure_schema
from dbosflow.config import Settings
from dbosflow.errors import DatabaseUnavailableError
from tests.behaviour import ledger
from tests.chaos import lossy
from tests.chaos.nodes.pair import Pair
from tests.chaos.nodes.postgres import PATIENCE
from tests.runtime.bench import Bench, record
from tests.runtime.sessions import no_pool
from tests.support import eventually, eventually_async

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A migrated primary, and a standby that no commit waits for."""
    pair = Pair(synchronous=False)
    with pair:
        ensure_schema(pair.url("looking"))
        eventually(pair.in_step, timeout=PATIENCE)
        yield pair
    pair.discard()


async def test_what_a_standby_has_lost_is_not_mixed_with_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers remember records and values that the promoted standby never had; every run begins anew without them."""
    monkeypatch.setenv(ledger.VARIABLE, str(tmp_path / "ledger"))
    pair = Pair(synchronous=False)
    losses = await lossy.run(pair, 1, workflows=10, lag=0.5)
    print(losses)
    assert losses.violations == []
    assert all(lost > 0 for lost in losses.lost_records)
    pair.discard()


WAITS = "SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = %s"
WITNESS_WAITS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE wait_event = 'SyncRep' AND query LIKE '%FROM lease CROSS JOIN dbosflow.step%'"""


async def test_what_a_synchronous_standby_does_not_have_is_not_acknowledged() -> None:
    """A session that is ended while it waits leaves a commit that everybody sees, and that may yet be lost."""
    with Pair() as pair:
        ensure_schema(pair.url("looking"))

        async with Bench(pair.url("bench")) as bench:
            run = await bench.run("w")
            await record(run, "before")
            backend = (await bench.lease.connection()).info.backend_pid
            await asyncio.to_thread(pair.standby.stop, "stop fast")
            durable = record(run, "after")
            await eventually_async(lambda: pair.primary.ask(WAITS, backend) == [(True,)])
            await asyncio.to_thread(pair.primary.ask, "SELECT pg_terminate_backend(%s)", backend)
            await eventually_async(lambda: durable.done() or pair.primary.ask(WITNESS_WAITS) == [(1,)])
            assert pair.primary.ask("SELECT key FROM dbosflow.step ORDER BY seq") == [("before",), ("after",)]
            assert not durable.done()
            await asyncio.to_thread(pair.standby.start)
            await asyncio.wait_for(durable, 30)
            assert len(bench.sent) == 3, "the start, and each record once"
    pair.discard()


async def test_a_worker_takes_no_standby_for_its_server(pair: Pair) -> None:
    """A session that began on a standby can write once that is promoted: then nobody would look at its timeline."""
    changes: list[None] = []
    url = pair.standby.url("worker")
    lease = WorkerLease(url, Settings(), no_pool(url), on_new_timeline=lambda: changes.append(None))
    async with lease.lock:
        with pytest.raises(DatabaseUnavailableError, match="standby"):
            await lease.connection()
        await asyncio.to_thread(pair.promote)
        await lease.open()
        await lease.disconnect()
    assert changes == [], "it has seen no other timeline before"
