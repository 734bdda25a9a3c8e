"""Circles of waits: found through whatever leads back, and through no wait that is over."""

from __future__ import annotations

import pytest

from dbosflow._runtime.execution.waits import Waiting, Waits
from dbosflow.errors import DeadlockError


def waits_of(*pairs: tuple[str, str]) -> Waits:
    """Which workflow waits for which."""
    waits = Waits()
    for waiter, awaited in pairs:
        waits.begin(waiter, awaited)
    return waits


@pytest.mark.parametrize(
    ("pairs", "way"),
    [
        ([("a", "b")], "'a' waits for 'b'"),
        ([("a", "x"), ("a", "b")], "'a' waits for 'b'"),  # branches of one wait for several
        ([("a", "b"), ("a", "x")], "'a' waits for 'b'"),
        ([("c", "b"), ("a", "x"), ("a", "c"), ("x", "y")], "'a' waits for 'c' waits for 'b'"),
        ([("a", "x"), ("x", "y"), ("y", "b"), ("a", "z"), ("z", "b")], "'a' waits for 'z' waits for 'b'"),
    ],
)
def test_a_circle_of_waits_is_found_whichever_way_it_goes(pairs: list[tuple[str, str]], way: str) -> None:
    """The shortest of several is reported."""
    waits = waits_of(*pairs)
    with pytest.raises(DeadlockError, match=f"'b' would wait for 'a' for ever, since {way}: "):
        waits.begin("b", "a")
    waits.begin("b", "elsewhere")


def test_a_wait_that_is_over_leads_nowhere() -> None:
    """One of two for the same is still one."""
    waits = waits_of(("a", "b"), ("a", "b"))
    waits.end("a", "b")
    with pytest.raises(DeadlockError):
        waits.begin("b", "a")
    waits.end("a", "b")
    assert len(waits) == 0
    with pytest.raises(ZeroDivisionError), Waiting(waits, "a", "b"):
        raise ZeroDivisionError
    with Waiting(waits, "b", "a"):
        assert len(waits) == 1
    assert len(waits) == 0


def test_a_workflow_that_waits_for_itself_is_a_circle() -> None:
    with pytest.raises(DeadlockError, match="'a' waits for its own result"):
        Waits().begin("a", "a")
