"""Ordinary asyncio programs, each with a way of its own to depend on the order in which outcomes arrive.

Each found a hole in an earlier design: keys by first use, by count, outcomes delivered one by one, or not when quiet.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tests.replay import tight_programs

if TYPE_CHECKING:
    from tests.replay.model import Program, Trace


async def plain_gather(run: Trace) -> Any:
    """Branches that know nothing of each other."""

    async def item(number: int) -> str:
        fetched = await run.step("fetch", f"item {number}")
        return await run.step("store", f"{number}: {fetched}")

    return await asyncio.gather(*(item(number) for number in range(5)))


async def tasks_that_wait_for_an_event(run: Trace) -> Any:
    """A branch that was made first has its first operation last."""
    ready = asyncio.Event()

    async def late() -> str:
        await ready.wait()
        return await run.step("work", "late")

    async def early() -> str:
        await run.step("first", "early")
        ready.set()
        return await run.step("work", "early")

    async def third() -> str:
        for _ in range(3):
            await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        return await run.step("work", "third")

    return await asyncio.gather(late(), early(), third())


async def staggered_by_plain_timers(run: Trace) -> Any:
    """A rate limiter: jitter before the first operation, another one in each run."""

    async def call(number: int) -> str:
        await asyncio.sleep(run.random.uniform(0, 0.004))
        return await run.step("call", str(number))

    return await asyncio.gather(*(call(number) for number in range(4)))


async def pool_of_workers_on_a_queue(run: Trace) -> Any:
    """The example of asyncio's documentation: which task takes which item is decided by which is done first."""
    queue: asyncio.Queue[int] = asyncio.Queue()
    results: dict[int, str] = {}
    for number in range(8):
        queue.put_nowait(number)

    async def worker() -> None:
        while not queue.empty():
            number = queue.get_nowait()
            results[number] = await run.step("process", f"item {number}")

    await asyncio.gather(*(worker() for _ in range(3)))
    return sorted(results.items())


async def producers_and_consumers(run: Trace) -> Any:
    """Which consumer gets what depends on every outcome before it."""
    queue: asyncio.Queue[str | None] = asyncio.Queue()
    used: list[str] = []

    async def produce(name: str) -> None:
        for number in range(3):
            await queue.put(await run.step("make", f"{name}.{number}"))

    async def consume() -> None:
        while (made := await queue.get()) is not None:
            used.append(await run.step("use", made))

    consumers = [asyncio.create_task(consume()) for _ in range(2)]
    await asyncio.gather(produce("a"), produce("b"))
    for _ in consumers:
        queue.put_nowait(None)
    await asyncio.gather(*consumers)
    return used


async def first_completed(run: Trace) -> Any:
    """A race: the record must make the same one win again."""
    tasks = [asyncio.create_task(run.step("ask", f"model {number}"), name=str(number)) for number in range(3)]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    winner = min(done, key=lambda task: task.get_name()).result()
    answer = await run.step("use", f"{len(done)} done, {winner} wins")
    await asyncio.gather(*pending)
    return answer


async def as_completed_over_tasks(run: Trace) -> Any:
    """Each outcome is used in the order of arrival."""
    tasks = [asyncio.create_task(run.step("ask", f"model {number}")) for number in range(4)]
    return [await run.step("use", await task) for task in asyncio.as_completed(tasks)]


async def shared_list_read_by_a_later_step(run: Trace) -> Any:
    """The order in which branches append is data."""
    answers: list[str] = []

    async def ask(number: int) -> None:
        answers.append(await run.step("ask", f"model {number}"))

    await asyncio.gather(*(ask(number) for number in range(4)))
    return await run.step("sum", "+".join(answers))


async def gather_of_task_groups(run: Trace) -> Any:
    """Branches of branches of branches."""

    async def leaf(name: str) -> str:
        return await run.step("leaf", name)

    async def node(name: str) -> list[str]:
        await run.step("prepare", name)
        leaves = await asyncio.gather(*(leaf(f"{name}.{number}") for number in range(2)))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(leaf(f"{name}.{number}")) for number in range(10, 12)]
        return leaves + [task.result() for task in tasks]

    return await asyncio.gather(*(node(name) for name in "abc"))


async def parent_that_spawns_while_children_run(run: Trace) -> Any:
    """A child's outcome may arrive before or after its next sibling is made."""

    async def child(number: int) -> str:
        if number % 2:
            await asyncio.sleep(0)
        return await run.step("child", str(number))

    tasks = []
    for number in range(4):
        tasks.append(asyncio.create_task(child(number)))
        await run.step("parent", str(number))
    return await asyncio.gather(*tasks)


async def semaphore(run: Trace) -> Any:
    """The order of entry is seen by the steps."""
    allowed = asyncio.Semaphore(2)
    entered: list[int] = []

    async def one(number: int) -> str:
        async with allowed:
            entered.append(number)
            return await run.step("work", f"{number} as number {len(entered)}")

    return await asyncio.gather(*(one(number) for number in range(6)))


async def counter_under_a_lock(run: Trace) -> Any:
    """When each task gets the lock is decided by the step before it."""
    lock = asyncio.Lock()
    count = 0

    async def one(number: int) -> str:
        nonlocal count
        await run.step("prepare", str(number))
        async with lock:
            count += 1
            return await run.step("count", f"{number} is {count}")

    return await asyncio.gather(*(one(number) for number in range(4)))


PROGRAMS: list[Program] = [
    plain_gather,
    tasks_that_wait_for_an_event,
    staggered_by_plain_timers,
    pool_of_workers_on_a_queue,
    producers_and_consumers,
    first_completed,
    as_completed_over_tasks,
    shared_list_read_by_a_later_step,
    gather_of_task_groups,
    parent_that_spawns_while_children_run,
    semaphore,
    counter_under_a_lock,
    *tight_programs.PROGRAMS,
]
