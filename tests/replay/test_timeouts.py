"""Durable timeouts: whether one or what it limits was faster is on record, and every replay takes that way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import timeout, wait
from dbosflow.errors import ConfigurationError
from tests.replay.crashes import crash_everywhere, crash_twice
from tests.replay.model import execute
from tests.replay.tight_programs import REPLAYED

if TYPE_CHECKING:
    from tests.replay.model import Program, Trace

DELAY = 0.0007


async def racing(run: Trace) -> Any:
    """A step and its timeout, which of them first by chance of this run."""
    log: list[str] = []
    for number in range(3):
        try:
            async with timeout(run.random.choice([0, 0.001, 0.002, 0.004])):
                log.append(await run.step("work", f"{number} after {log}"))
        except TimeoutError:
            log.append(await run.step("fallback", f"{number} after {log}"))
    return log


async def racing_beside_others(run: Trace) -> Any:
    """The same in several branches, with a lock between them."""
    lock = asyncio.Lock()
    log: list[str] = []

    async def one(number: int) -> None:
        try:
            async with timeout(run.random.choice([0.001, 0.002, 0.004])), lock:
                log.append(await run.step("locked", f"{number} after {log}"))
        except TimeoutError:
            log.append(f"{number} too slow")
        await run.step("behind", f"{number} after {log}")

    await asyncio.gather(*(one(number) for number in range(4)))
    return log


async def waiting(run: Trace) -> Any:
    """``wait`` with a limit, over tasks that go on."""
    log: list[str] = []

    async def one(number: int) -> str:
        return await run.step("work", str(number))

    pending = {asyncio.create_task(one(number)) for number in range(4)}
    while pending:
        done, pending = await wait(pending, timeout=run.random.choice([0, 0.001, 0.002]))
        log.append(f"{len(done)} done")
        await run.step("looked", str(log))
    return log


async def shielded(run: Trace) -> Any:
    """What a plain timeout leaves no record of: the shielded step goes on."""

    async def work() -> str:
        return await run.step("work", "")

    task = asyncio.create_task(work())
    try:
        async with timeout(run.random.choice([0.001, 0.002])):
            first = await asyncio.shield(task)
    except TimeoutError:
        first = await run.step("fallback", "")
    return [first, await task]


async def nested(run: Trace) -> Any:
    """The inner one, the outer one, or none."""
    log = []
    try:
        async with timeout(run.random.choice([0.001, 0.003, 1])):
            try:
                async with timeout(run.random.choice([0.001, 0.003, 1])):
                    log.append(await run.step("work", "", takes=0.002))
            except TimeoutError:
                log.append("inner")
            log.append(await run.step("between", str(log), takes=0.002))
    except TimeoutError:
        log.append("outer")
    return [*log, await run.step("end", str(log))]


async def around_what_leaves_no_record(run: Trace) -> Any:
    """Plain waits, a durable sleep, and the timeouts of siblings."""
    log = []

    async def plain() -> None:
        try:
            async with timeout(0.002):
                await asyncio.Event().wait()
        except TimeoutError:
            log.append("plain")

    async def sleeping() -> None:
        try:
            async with timeout(run.random.choice([0.001, 0.003])):
                await run.sleep(0.002)
                log.append("slept")
        except TimeoutError:
            log.append("woken")
        await run.step("behind", str(log))

    await asyncio.gather(plain(), sleeping(), sleeping())
    return [log, await run.step("end", str(log))]


PROGRAMS = [racing, racing_beside_others, waiting, shielded, nested, around_what_leaves_no_record]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_who_was_faster_stays_faster(program: Program) -> None:
    """Whatever a replay draws for its own timers and steps, and wherever it crashes."""
    for seed in range(6):
        for delay in (0, DELAY):
            assert crash_everywhere(program, seed=seed, delay=delay) == [], (seed, delay)
    for seed in range(20):
        assert crash_twice(program, seed=seed) == [], seed


def test_a_timeout_that_has_run_out_ends_the_block_as_that_of_asyncio_does() -> None:
    """It raises ``TimeoutError`` and takes its cancellation back; one of somebody else stays one."""

    async def program(run: Trace) -> Any:
        task = asyncio.current_task()
        assert task is not None
        limit = timeout(0.001)
        with pytest.raises(TimeoutError):
            async with limit:
                await run.step("slow", "", takes=1)
        assert limit.expired()
        assert task.cancelling() == 0

        async def cancelled() -> None:
            inner = asyncio.current_task()
            assert inner is not None
            async with timeout(0.001):
                try:
                    await run.step("slow", "", takes=1)
                finally:
                    inner.cancel()

        other = asyncio.create_task(cancelled())
        await asyncio.wait([other])
        assert other.cancelled()
        in_time = timeout(1)
        async with in_time:
            await run.step("quick", "", takes=0)
        assert not in_time.expired()
        with pytest.raises(RuntimeError, match="entered once"):
            await in_time.__aenter__()
        with pytest.raises(ZeroDivisionError):
            async with timeout(1):
                1 / 0  # noqa: B018
        return await run.step("end", "")

    assert execute(program, seed=0).result == 'succeeded: "end()"'
    assert crash_everywhere(program, seed=0, delay=DELAY) == []


def test_a_restart_does_not_begin_a_timeout_anew() -> None:
    """It has what is left of it: nothing, here."""

    async def program(run: Trace) -> Any:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with timeout(0.05):
                await run.step("first", "", takes=0)
                await run.step("slow", "", takes=1)
        except TimeoutError:
            return clock() - began

    live = execute(program, seed=0)
    before = live.commits[:1]
    assert [record.key for record in before[0].records] == ["timeout#0", "first#0"], "it costs no commit of its own"
    spent = before[0].records[0]
    before[0].records[0] = spent._replace(remaining=-0.01)
    run = execute(program, seed=REPLAYED, commits=before)
    assert float(run.result.removeprefix("succeeded: ")) < 0.01


def test_an_expiry_that_came_too_late_is_nothing() -> None:
    """It is on record, and the block was over by its turn: a replay is not disturbed by it."""

    async def program(run: Trace) -> Any:
        try:
            async with timeout(0.001):
                outcome = await run.step("work", "", takes=0.001)
        except TimeoutError:
            outcome = "too slow"
        return [outcome, await run.step("behind", "", takes=0.01)]

    late = 0
    for delay in (0.0001, 0.0005, 0.002, 0.01):
        live = execute(program, seed=0, delay=delay)
        late += "too slow" not in live.result and "timeout#0/expired" in {one.key for one in live.records}
        for crash in range(1, len(live.commits)):
            again = execute(program, seed=REPLAYED, commits=live.commits[:crash], delay=delay)
            whole = execute(program, seed=REPLAYED, commits=again.commits[:-1], delay=delay)
            assert whole.result == again.result
            assert whole.trace.bodies == []
    assert late, "none of the live runs was as meant"


def test_a_changed_timeout_is_a_contradiction_where_it_is_asked_for_in_another_place() -> None:
    """It is an operation of its branch as a step is. Its length may change."""

    async def program(run: Trace) -> Any:
        if run.seed < REPLAYED:
            async with timeout(1):
                first = await run.step("first", "", takes=0)
        else:
            first = await run.step("first", "", takes=0)
            async with timeout(1):
                pass
        return [first, await run.step("end", "")]

    live = execute(program, seed=0)
    run = execute(program, seed=REPLAYED, commits=live.commits[:-1])
    assert run.result.startswith("blocked")
    assert "asks for 'first#0', where its records hold 'timeout#0' next" in run.result


async def test_outside_of_a_workflow_they_are_those_of_asyncio() -> None:
    """Plain calls need no engine."""
    with pytest.raises(TimeoutError):
        async with timeout(0):
            await asyncio.Event().wait()
    forever = asyncio.create_task(asyncio.Event().wait())
    done, pending = await wait([forever], timeout=0)
    assert (done, pending) == (set(), {forever})
    forever.cancel()
    done, _ = await wait({forever})
    assert done == {forever}
    with pytest.raises(ValueError, match=r"[Ee]mpty"):
        await wait([])


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_a_limit_is_a_number_of_seconds(seconds: float) -> None:
    """Refused where it is made."""
    with pytest.raises(ConfigurationError, match="a timeout"):
        timeout(seconds)
