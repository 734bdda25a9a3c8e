"""Failover, with servers of the test's own: what it loses is lost, and what it leaves is whole."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from dbosflow._runtime.lane import Lane
from dbosflow._store.migrate import ensure_schema
from dbosflow.config import Settings
from dbosflow.errors import DatabaseUnavailableError
from tests.behaviour import ledger
from tests.chaos import lossy
from tests.chaos.pair import Pair

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A migrated primary, and a standby that no commit waits for."""
    pair = Pair(synchronous=False)
    with pair:
        ensure_schema(pair.url("looking"))
        yield pair
    pair.discard()


def test_what_a_standby_has_lost_is_not_mixed_with_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers remember records and values that the promoted standby never had; every run begins anew without them."""
    monkeypatch.setenv(ledger.VARIABLE, str(tmp_path / "ledger"))
    pair = Pair(synchronous=False)
    losses = asyncio.run(lossy.run(pair, 1, workflows=20, lag=0.5))
    print(losses)
    assert losses.violations == []
    assert all(lost > 0 for lost in losses.lost_records)
    pair.discard()


def test_a_lane_takes_no_standby_for_its_server(pair: Pair) -> None:
    """A session that began on a standby can write once that is promoted: then nobody would look at its timeline."""

    async def main() -> None:
        changes: list[None] = []
        lane = Lane(pair.standby.url("lane"), Settings(), on_new_timeline=lambda: changes.append(None))
        async with lane.lock:
            with pytest.raises(DatabaseUnavailableError, match="standby"):
                await lane.connection()
            await asyncio.to_thread(pair.promote)
            await lane.open()
            await lane.disconnect()
        assert changes == [], "it has seen no other timeline before"

    asyncio.run(main())
