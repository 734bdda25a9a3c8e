"""No random asyncio program tells a replay from its first run, wherever it crashed.

``DBOSFLOW_TEST_PROGRAMS`` says how many are tried, ``DBOSFLOW_TEST_FIRST_PROGRAM`` where to begin: a seed is a program.
"""

from __future__ import annotations

import os

import pytest

from tests.replay.crashes import change_after_a_crash, crash_twice
from tests.replay.random_programs import program

PROGRAMS = int(os.environ.get("DBOSFLOW_TEST_PROGRAMS", "240"))
FIRST = int(os.environ.get("DBOSFLOW_TEST_FIRST_PROGRAM", "0"))
PARTS = 8


@pytest.mark.timeout(60 + PROGRAMS)
@pytest.mark.parametrize("part", range(PARTS))
def test_replays_of_random_programs_differ_in_nothing(part: int) -> None:
    """Same outcomes to the same operations in the same order, nothing run twice, the stream as it was written."""
    for seed in range(FIRST + part, FIRST + PROGRAMS, PARTS):
        assert crash_twice(program(seed), seed=seed) == [], f"program {seed}"


@pytest.mark.timeout(60 + PROGRAMS)
@pytest.mark.parametrize("part", range(PARTS))
def test_patched_programs_go_on_from_records_of_the_old_code(part: int) -> None:
    """Wherever they were, new steps behind ``patched`` begin where the records end, and are there in each replay."""
    for seed in range(FIRST + part, FIRST + PROGRAMS // 2, PARTS):
        before, after = program(seed), program(seed, changed=True)
        assert change_after_a_crash(before, after, seed=seed) == [], f"program {seed}"
