"""Recovery, replay and memory, measured in the same way for every system."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

from benchmarks.memory import resident, threads

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.job import Figures, Job, Scenario

    Recovered = Callable[[str, int, int], float]
    """Seconds from the launch of a new process until the workflows of a killed one have ended: database URL, how many
    workflows, and how many steps each has on record."""

_WARM_UP = 50
_REPLAYED = 10


def recovery(recovered: Recovered) -> Scenario:
    """From the launch of a new process until 1,000 workflows, each with a step on record, have ended."""

    def measure(job: Job) -> Figures:
        return {"seconds": recovered(job.url, job.size, 1)}

    return measure


def replay(recovered: Recovered) -> Scenario:
    """What a recorded step takes of the time from launch to end, in ten workflows; as many without steps are subtracted."""

    def measure(job: Job) -> Figures:
        baseline = min(recovered(job.url, _REPLAYED, 0) for _ in range(2))
        with_steps = min(recovered(job.url, _REPLAYED, job.size // _REPLAYED) for _ in range(2))
        return {"step_us": max(with_steps - baseline, 1e-6) / job.size * 1e6, "baseline_ms": baseline * 1e3}

    return measure


async def sleeping(start: Callable[[], Awaitable[object]], size: int) -> Figures:
    """What a sleeping workflow takes of memory and threads; ``start`` starts one."""
    await asyncio.gather(*(start() for _ in range(_WARM_UP)))
    await asyncio.sleep(1)
    gc.collect()
    bytes_before, threads_before = resident(), threads()
    await asyncio.gather(*(start() for _ in range(size)))
    await asyncio.sleep(2)
    gc.collect()
    return {
        "kilobytes": (resident() - bytes_before) / size / 1024,
        "threads": float(threads() - threads_before),
    }
