"""Relaxed steps: fast, recorded in order, forgotten only as a suffix, and nothing that others see is made of that."""

from __future__ import annotations

import asyncio
import io
import random
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import (
    Engine,
    continue_as_new,
    run_step_async,
    sleep_async,
    step,
    transaction,
    workflow,
    write_stream_async,
)
from dbosflow.errors import ConfigurationError, WorkflowCancelledError
from dbosflow.testing import END, crash_at
from tests.behaviour import ledger
from tests.behaviour.interruption import Interruption
from tests.behaviour.tables import disorder, records, rows
from tests.support import eventually

if TYPE_CHECKING:
    from tests.behaviour.gate import Gate

chance = random.Random()


@step(relaxed=True)
async def guess(number: int) -> str:
    """Comes to something else each time."""
    ledger.note(["guess", number])
    return f"{number}: {chance.random()}"


@step(relaxed=True)
def guess_on_thread(number: int) -> str:
    """The same on a thread."""
    ledger.note(["guess", number])
    return f"{number}: {chance.random()}"


@step
async def publish(guesses: list[str]) -> list[str]:
    """Others see what it gets."""
    ledger.note(["publish", guesses])
    return guesses


@workflow
async def guessing(count: int) -> list[str]:
    """Guesses, each in a stream, and what was guessed is published."""
    guesses = []
    for number in range(count):
        guesses.append(await guess(number))
        await write_stream_async("guesses", guesses[-1])
    return await publish(guesses)


@workflow
def guessing_on_thread(count: int) -> list[str]:
    """Guesses on a thread."""
    return [guess_on_thread(number) for number in range(count)]


@pytest.mark.parametrize("flow", [guessing, guessing_on_thread])
def test_every_outcome_is_on_record_in_order(engine: Engine, database_url: str, flow: Any) -> None:
    guesses = engine.run(flow.options(workflow_id="w"), 2500)
    name = "guess" if flow is guessing else "guess_on_thread"
    expected = [(f"{name}#{number}", "step") for number in range(2500)]
    assert [one for one in records(database_url, "w") if one[0] != "publish#0"] == expected
    assert next(one for one in engine.list_steps("w") if one.key == f"{name}#7").output == guesses[7]
    assert disorder(database_url) == []


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("key", ["guess#0", "guess#300", "publish#0", END])
def test_a_crash_forgets_no_outcome_of_which_anything_was_made(
    engine: Engine, database_url: str, key: str, when: Any
) -> None:
    """All executions of an ordinary step get the same, and so do the stream and the result."""
    with crash_at(engine, "w", key, when=when) as crash:
        guesses = engine.run(guessing.options(workflow_id="w"), 400)
        assert crash.happened
    assert {tuple(what[1]) for what in ledger.noted() if what[0] == "publish"} == {tuple(guesses)}
    assert engine.read_stream("w", "guesses").read_all() == (guesses, True)
    ran = [what[1] for what in ledger.noted() if what[0] == "guess"]
    crashed = next((place for place in range(1, len(ran)) if ran[place] <= ran[place - 1]), len(ran))
    assert ran[:crashed] == [*range(crashed)]
    assert ran[crashed:] == [*range(ran[crashed], 400)] if crashed < len(ran) else crashed == 400
    assert disorder(database_url) == []


@step(relaxed=True, max_attempts=3, interval=0)
async def fragile(fails: int) -> int:
    """Fails so often."""
    ledger.note("fragile")
    if sum(what == "fragile" for what in ledger.noted()) <= fails:
        raise LookupError(fails)
    return fails


@workflow
async def daring(fails: int) -> int:
    """Relaxed steps around one that fails."""
    await guess(0)
    try:
        return await fragile(fails)
    finally:
        await guess(1)


def test_failed_attempts_are_on_record_before_the_next_one(engine: Engine) -> None:
    """So a crash between them grants no further attempt."""
    with crash_at(engine, "w", "fragile#0", when="before") as crash:
        assert engine.run(daring.options(workflow_id="w"), 2) == 2
        assert crash.happened
    attempts = [one for one in engine.list_steps("w") if one.kind == "attempt"]
    assert len(attempts) == 2
    with pytest.raises(LookupError):
        engine.run(daring, 100)


def test_functions_that_are_not_decorated_can_be_relaxed_too(engine: Engine) -> None:
    ran: list[int] = []

    def double(number: int) -> int:
        ran.append(number)
        return 2 * number

    @workflow
    async def doubling_relaxed() -> list[int]:
        return [await run_step_async(double, number, relaxed=True) for number in range(3)]

    assert engine.run(doubling_relaxed) == [0, 2, 4]
    assert ran == [0, 1, 2]


def test_relaxed_is_true_or_false() -> None:
    with pytest.raises(ConfigurationError, match="must be True or False"):
        step(relaxed="yes")(len)  # type: ignore[call-overload]


# -- ends, and other beginnings ----------------------------------------------------------------------------------------


def test_an_engine_that_closes_forgets_nothing(database_url: str, gate: Gate) -> None:
    """What the program has is durable before its run is given up."""
    reached = threading.Event()

    @workflow
    async def interrupted_guessing() -> list[str]:
        guesses = [await guess(number) for number in range(500)]
        reached.set()
        await gate.passed()
        return guesses

    with Engine(database_url) as first:
        first.start(interrupted_guessing.options(workflow_id="w"))
        assert reached.wait(60)
    gate.open()
    with Engine(database_url) as second:
        second.handle("w").result(20)
    assert [what[1] for what in ledger.noted()] == [*range(500)]


def test_a_body_that_only_takes_relaxed_steps_is_cancelled_like_any(engine: Engine) -> None:
    @workflow
    async def guessing_for_ever() -> None:
        for number in range(10**9):
            await guess(number % 10)

    @workflow
    def guessing_for_ever_on_thread() -> None:
        for number in range(10**9):
            guess_on_thread(number % 10)

    for flow in (guessing_for_ever, guessing_for_ever_on_thread):
        handle = engine.start(flow)
        eventually(lambda: engine.list_steps(handle.workflow_id) or None)  # noqa: B023
        handle.cancel()
        with pytest.raises(WorkflowCancelledError):
            handle.result(20)


def test_a_workflow_that_continues_as_new_takes_its_outcomes_along(engine: Engine, database_url: str) -> None:
    """The end of an iteration goes behind all of them, in their order."""

    @workflow
    async def guessing_again(rounds: int, before: tuple[str, ...] = ()) -> list[str]:
        found = (*before, *[await guess(number) for number in range(30)])
        for one in found[-30:]:
            await write_stream_async("guesses", one)
        if rounds:
            continue_as_new(rounds - 1, found)
        return [*found]

    with crash_at(engine, "w", "~1", when="before"), crash_at(engine, "w", "~2", when="after"):
        guesses = engine.run(guessing_again.options(workflow_id="w"), 2)
    assert len(guesses) == 90
    assert engine.read_stream("w", "guesses").read_all() == (guesses, True)
    assert disorder(database_url) == []


def test_a_fork_of_a_running_workflow_has_a_prefix_of_the_outcomes(
    engine: Engine, database_url: str, gate: Gate
) -> None:
    """From each turn, as after a crash there: what is left out runs again, and the stream says what was made of it."""

    @workflow
    async def forked_guessing() -> list[str]:
        guesses = []
        for number in range(20):
            guesses.append(await guess(number))
            await write_stream_async("guesses", guesses[-1])
        await gate.passed()
        return guesses

    engine.start(forked_guessing.options(workflow_id="w"))
    eventually(lambda: len(engine.list_steps("w")) == 20)
    gate.open(10)
    recorded = [one.output for one in engine.list_steps("w")]
    for turn in (0, 1, 13, 20):
        fork_id = f"fork-{turn}"
        engine.workflows.fork("w", from_turn=turn, workflow_id=fork_id)
        guesses = engine.handle(fork_id, forked_guessing).result(20)
        assert guesses[:turn] == recorded[:turn]
        assert guesses[turn:] != recorded[turn:] or turn == 20
        assert engine.read_stream(fork_id, "guesses").read_all() == (guesses, True)
    assert disorder(database_url) == []


def test_what_a_workflow_has_recorded_replays_in_memory_and_elsewhere(
    engine: Engine, client: Engine, database_url: str
) -> None:
    """``dbosflow replay`` finds every operation on record; an export has every record."""
    engine.run(guessing.options(workflow_id="w"), 50)
    result = client._host.call("replay", client._core.replay, "w", 30.0)
    assert (result.unknown, result.missing, result.added, result.records) == ([], {}, {}, 51)
    file = io.StringIO()
    engine.workflows.export("w", file)
    assert file.getvalue().count('"guess#') == 50


async def test_a_workflow_with_relaxed_steps_leaves_memory_when_it_only_waits(database_url: str) -> None:
    """By then its outcomes are durable: none runs again."""

    @workflow
    async def guessing_then_waiting() -> list[str]:
        guesses = [await guess(number) for number in range(100)]
        await sleep_async(0.5)
        return guesses

    async with Engine(database_url, suspend_after=0.02) as engine:
        handle = await engine.start_async(guessing_then_waiting.options(workflow_id="w"))
        await handle.result_async()
        assert (await handle.info_async()).epoch > 1
    assert [what[1] for what in ledger.noted()] == [*range(100)]


def test_relaxed_steps_beside_others_are_replayed_in_the_order_of_the_first_run(database_url: str) -> None:
    """Of several branches: an order that depends on luck is the recorded one in the next pass."""
    begun = Interruption()
    orders: list[list[str]] = []

    @step(relaxed=True)
    async def quick(number: int) -> int:
        await asyncio.sleep(chance.choice([0, 0, 0.002]))
        return number

    @step
    async def careful(number: int) -> int:
        await asyncio.sleep(chance.choice([0, 0.002]))
        return number

    @workflow
    async def mixing() -> list[str]:
        order: list[str] = []

        async def branch(name: int) -> None:
            for number in range(8):
                act = quick if (name + number) % 3 else careful
                order.append(f"{name}.{await act(number)}")

        await asyncio.gather(*map(branch, range(4)))
        await careful(0)
        orders.append(order)
        await begun.point_async()
        return order

    workflow_id = begun.first_pass(database_url, mixing)
    with Engine(database_url) as engine:
        assert engine.handle(workflow_id).result(20) == orders[0] == orders[1]
    assert rows(database_url, "SELECT count(*), count(DISTINCT key) FROM dbosflow.step WHERE kind = 'step'") == [
        (33, 33)
    ]


@transaction
async def booked(connection: psycopg.AsyncConnection[Any], number: int) -> int:
    """A transaction that others see."""
    await connection.execute("SELECT pg_sleep(0.001)")
    return number


def test_a_transaction_does_not_overtake_outcomes_that_the_program_has(database_url: str) -> None:
    """It is committed on another connection: its place among the records is still the one in which it was delivered."""
    begun = Interruption()
    orders: list[list[str]] = []

    @workflow
    async def booking_beside_guesses() -> list[str]:
        order: list[str] = []

        async def guesses() -> None:
            for number in range(300):
                await guess(number)
                order.append(f"guess {number}")

        async def bookings() -> None:
            for number in range(20):
                await booked(number)
                order.append(f"booking {number}")

        await asyncio.gather(guesses(), bookings())
        await booked(-1)
        orders.append(order)
        await begun.point_async()
        return order

    workflow_id = begun.first_pass(database_url, booking_beside_guesses)
    with Engine(database_url) as engine:
        assert engine.handle(workflow_id).result(20) == orders[0] == orders[1]
    assert disorder(database_url) == []
