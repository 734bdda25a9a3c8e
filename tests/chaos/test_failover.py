"""Failover, with servers of the test's own: what it loses is lost, and what it leaves is whole."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.behaviour import ledger
from tests.chaos import lossy
from tests.chaos.pair import Pair

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


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
