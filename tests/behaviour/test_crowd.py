"""A sample of the crowd: ``python -m tests.behaviour.crowd`` is the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.behaviour.crowd import Crowd

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.timeout(300)
def test_workflows_that_wait_outlive_all_workers_and_get_their_answers(database_url: str, tmp_path: Path) -> None:
    """Messages, times and tokens, with every worker killed while all wait; each answer counts once, in its order."""
    assert Crowd(database_url, tmp_path, workflows=60).run(rounds=2) == []
