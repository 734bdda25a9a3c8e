"""Ordinary asyncio programs, each with a way of its own to depend on the order in which outcomes arrive.

Each found a hole in an earlier design: keys by first use, by count, outcomes handed on one by one, or not when quiet.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

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
    """The example of asyncio's documentation: who takes which item is decided by who is done first."""
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
    """Who gets the lock when is decided by the step before it."""
    lock = asyncio.Lock()
    count = 0

    async def one(number: int) -> str:
        nonlocal count
        await run.step("prepare", str(number))
        async with lock:
            count += 1
            return await run.step("count", f"{number} is {count}")

    return await asyncio.gather(*(one(number) for number in range(4)))


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


REPLAYED = 1000
"""Seeds from here on are those of replays."""

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
    timeout_and_fallback,
    cascade_of_events,
    commits_one_loop_turn_apart,
    library_with_a_task_of_its_own,
    sleeps_that_race_with_steps,
    sibling_that_fails,
]
