"""Random programs come to what the same programs come to as plain functions, undisturbed and with crashes.

A sweep compares a crash with an undisturbed run, so it does not see what is wrong in both. This does.
"""

from __future__ import annotations

import pytest

from dbosflow import Engine
from tests.behaviour.tables import disorder
from tests.oracle.forking import attempt_forks
from tests.oracle.trial import attempt
from tests.suspending import AT_ONCE, suspend_at_once

PROGRAMS = 24
PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_random_programs_are_what_they_are_as_plain_functions(database_url: str, part: int) -> None:
    with Engine(database_url, grace=0) as engine:
        for seed in range(part, PROGRAMS, PARTS):
            assert attempt(engine, seed) == []


def test_random_programs_that_leave_memory_come_to_the_same(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever they only wait, also after crashes."""
    gone = suspend_at_once(monkeypatch)
    with Engine(database_url, grace=0, suspend_after=AT_ONCE) as engine:
        for seed in range(3, PROGRAMS, 4):
            assert attempt(engine, seed) == []
    assert gone


def test_forks_of_random_programs_come_to_the_same(database_url: str) -> None:
    """From turns at random."""
    with Engine(database_url, grace=0) as engine:
        for seed in range(0, PROGRAMS, 2):
            assert attempt_forks(engine, seed) == []
    assert disorder(database_url) == []
