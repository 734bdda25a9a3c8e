"""Programs in which much happens at once: outcomes meet timers, cancellations, and each other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.replay.model import Program, Trace

REPLAYED = 1000
"""Seeds from here on are those of replays."""


async def timeout_and_fallback(run: Trace) -> Any:
    """A step that was too slow once is quick in every later run, and must lose all the same."""
    slow = None if run.seed >= REPLAYED else 0.05
    try:
        async with asyncio.timeout(0.02):
            return await run.step("slow", "answer", takes=slow or 0.001)
    except TimeoutError:
        fallback = await run.step("fallback", "answer")
        return await run.step("use", fallback)


async def cascade_of_events(run: Trace) -> Any:
    """One outcome sets off a chain of events while others arrive."""
    events = [asyncio.Event() for _ in range(3)]
    log: list[str] = []

    async def chain(number: int) -> str:
        await events[number].wait()
        if number + 1 < len(events):
            events[number + 1].set()
        log.append(f"event {number}")
        return await run.step("chain", f"{number} after {log}")

    async def setter() -> str:
        await run.step("begin", "setter")
        log.append("setter")
        events[0].set()
        return await run.step("end", f"setter after {log}")

    async def bystander(number: int) -> str:
        await run.step("begin", f"bystander {number}")
        log.append(f"bystander {number}")
        return await run.step("end", f"bystander {number} after {log}")

    return await asyncio.gather(*map(chain, range(3)), setter(), *map(bystander, range(3)))


async def commits_one_loop_turn_apart(run: Trace) -> Any:
    """The first of two commits sets off a chain of tasks; the second must wait until that is through."""
    events = [asyncio.Event() for _ in range(5)]
    log: list[str] = []

    async def chain(number: int) -> None:
        await events[number].wait()
        if number + 1 < len(events):
            events[number + 1].set()
        log.append(f"event {number}")

    links = [asyncio.create_task(chain(number)) for number in range(5)]

    async def setter() -> str:
        await run.step("begin", "setter", takes=0)
        events[0].set()
        await asyncio.gather(*links)
        return await run.step("end", f"setter after {log}")

    async def bystander(turns: int) -> str:
        for _ in range(turns):
            await asyncio.sleep(0)
        await run.step("begin", f"bystander {turns}", takes=0)
        log.append(f"bystander {turns}")
        return await run.step("end", f"bystander {turns} after {log}")

    return await asyncio.gather(setter(), *map(bystander, range(1, 6)))


async def library_with_a_task_of_its_own(run: Trace) -> Any:
    """A pool that is refilled now and then: a task nobody counted on, before or after the others."""

    async def refill() -> None:
        await asyncio.sleep(0)

    async def job(number: int) -> str:
        return await run.step("job", str(number))

    strays = []
    if run.random.random() < 0.5:
        strays.append(asyncio.create_task(refill()))
    jobs = [asyncio.create_task(job(number)) for number in range(3)]
    if run.random.random() < 0.5:
        strays.append(asyncio.create_task(refill()))
    await asyncio.gather(*strays)
    return await asyncio.gather(*jobs)


async def sleeps_that_race_with_steps(run: Trace) -> Any:
    """Whether a durable sleep or a step ends first is on record, too."""
    log: list[str] = []

    async def sleeper(number: int) -> str:
        await run.sleep(0.001 * number)
        log.append(f"sleeper {number}")
        return await run.step("awake", f"{number} after {log}")

    async def worker(number: int) -> str:
        await run.step("work", str(number))
        log.append(f"worker {number}")
        return await run.step("rest", f"{number} after {log}")

    return await asyncio.gather(*map(sleeper, range(4)), *map(worker, range(4)))


async def sibling_that_fails(run: Trace) -> Any:
    """A task group gives its other branches up, in whatever they are, and the program goes on."""
    log: list[str] = []

    async def worker(number: int) -> None:
        for position in range(number + 1):
            await run.step("work", f"{number}.{position}")
            log.append(f"{number}.{position}")
        if number == 1:
            raise RuntimeError("worker 1")

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(worker(number))
    except* RuntimeError:
        log.append("failed")
    return await run.step("sum", " ".join(log))


PROGRAMS: list[Program] = [
    timeout_and_fallback,
    cascade_of_events,
    commits_one_loop_turn_apart,
    library_with_a_task_of_its_own,
    sleeps_that_race_with_steps,
    sibling_that_fails,
]
