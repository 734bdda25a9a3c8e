"""The event loop of this process and of those that it starts: asyncio's own, or uvloop's where that was chosen."""

from __future__ import annotations

import asyncio
import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from benchmarks.job import Figures, Job, Scenario

T = TypeVar("T")

CHOICE = "DBOSFLOW_BENCHMARKS_LOOP"
"""The variable of the environment that names it: the other half of a measurement inherits it."""


def choose_uvloop() -> None:
    """From now on, also in processes that are started from here; where it is installed."""
    if find_spec("uvloop") is not None:
        os.environ[CHOICE] = "uvloop"


def factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the loop, for an engine that hosts one; ``None``: asyncio's own."""
    if os.environ.get(CHOICE) != "uvloop":
        return None
    import uvloop

    found: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return found


def run(main: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run`` on that loop."""
    with asyncio.Runner(loop_factory=factory()) as runner:
        return runner.run(main)


def on_uvloop(scenario: Scenario) -> Scenario:
    """The scenario, on uvloop in all its processes."""

    def run(job: Job) -> Figures:
        choose_uvloop()
        return scenario(job)

    return run
