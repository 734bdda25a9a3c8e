"""The books of a bank whose workers are killed around their COMMITs; the long run is ``python -m tests.bank``."""

from __future__ import annotations

import random

import pytest

from tests.bank.run import LEVELS, Run

WORKFLOWS = 24
TRANSFERS = 2


@pytest.mark.parametrize("isolation", LEVELS)
def test_the_books_are_right_whenever_a_worker_dies(database_url: str, isolation: str) -> None:
    """Before, on, between and behind the last statement and COMMIT; the sum stays, and each transfer is made once."""
    report = Run(database_url, "bank", isolation, random.Random(16), deadly=0.06).run(WORKFLOWS, TRANSFERS)
    assert report.wrong == []
    assert report.hows.total() > 0
