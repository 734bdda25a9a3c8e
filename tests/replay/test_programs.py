"""Programs in the styles that people write asyncio in, crashed after each commit."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.replay.crashes import DELAYS, crash_everywhere
from tests.replay.model import execute
from tests.replay.programs import PROGRAMS

if TYPE_CHECKING:
    from tests.replay.model import Program


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_replay_hands_each_outcome_to_its_operation_in_the_order_of_the_first_run(program: Program) -> None:
    """Wherever it crashed: no outcome astray, no recorded step again, the same result."""
    for seed, delay in enumerate(DELAYS):
        assert crash_everywhere(program, seed=seed, delay=delay) == []


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_programs_do_not_depend_on_luck(program: Program) -> None:
    """The model's clock is virtual, so the same seed gives the same run: a failing seed can be looked at."""
    one, other = execute(program, seed=3), execute(program, seed=3)
    assert one.result == other.result
    assert one.trace.bodies == other.trace.bodies


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_eager_tasks_replay_like_others(program: Program) -> None:
    """A loop whose tasks begin at once is chained behind the engine's own task factory."""
    make: Any = getattr(asyncio, "eager_task_factory")  # noqa: B009 (3.11 has none)
    begun: list[object] = []

    def eager(loop: asyncio.AbstractEventLoop, coroutine: object, **options: object) -> object:
        begun.append(coroutine)
        return make(loop, coroutine, **options)

    assert crash_everywhere(program, seed=1, delay=DELAYS[-1], factory=eager) == []
    assert begun
