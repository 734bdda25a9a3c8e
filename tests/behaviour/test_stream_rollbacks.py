"""What a step writes is live at once; what an attempt wrote that did not succeed is rolled back, never deleted."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import (
    Engine,
    Stream,
    close_stream_async,
    current,
    read_stream_async,
    step,
    workflow,
    write_stream,
    write_stream_async,
)
from dbosflow.errors import ConfigurationError, StreamClosedError, StreamFailedError, StreamRolledBackError
from tests.behaviour.interruption import Interruption
from tests.behaviour.tables import disorder, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbosflow import StreamValue
    from tests.behaviour.gate import Gate

PATIENCE = 60.0


class FlakyError(Exception):
    """What a step fails with."""


attempts: dict[str, int] = {}


def nth_attempt() -> int:
    """Which attempt of its step this is, counted over all epochs."""
    here = current()
    key = f"{here.workflow_id} {here.step_key}"
    attempts[key] = attempts.get(key, 0) + 1
    return attempts[key]


@pytest.fixture(autouse=True)
def _forget_attempts() -> Iterator[None]:
    yield
    attempts.clear()


def shown(item: StreamValue[Any]) -> Any:
    """An item as the tests write it down."""
    if item.rollback is not None:
        return f"rollback {item.rollback.ranges}"
    return "closed" if item.closed else item.value


def seen(engine: Engine, key: str = "k", **options: Any) -> list[Any]:
    """What a reader sees of a stream of workflow ``w``."""
    return [shown(item) for item in engine.read_stream("w", key, timeout=PATIENCE, **options).items()]


@step(max_attempts=2, interval=0)
async def five_then_eight() -> None:
    first = nth_attempt() == 1
    for number in range(5 if first else 8):
        await write_stream_async("k", number)
    if first:
        raise FlakyError


@step(max_attempts=2, interval=0)
def five_then_eight_on_thread() -> None:
    first = nth_attempt() == 1
    for number in range(5 if first else 8):
        write_stream("k", number)
    if first:
        raise FlakyError


@workflow
async def retried() -> None:
    await five_then_eight()


@workflow
def retried_on_thread() -> None:
    five_then_eight_on_thread.run()


BOTH = pytest.mark.parametrize("flow", [retried, retried_on_thread], ids=["async", "sync"])


@BOTH
def test_a_failed_attempt_is_rolled_back(engine: Engine, database_url: str, flow: Any) -> None:
    """Five values, a failure, eight values: late and committed readers see eight, and raw all of it."""
    engine.start(flow.options(workflow_id="w")).result(PATIENCE)
    eight = list(range(8))
    assert seen(engine) == [*eight, "closed"]
    assert seen(engine, view="committed") == [*eight, "closed"]
    assert seen(engine, view="raw") == [*range(5), "rollback ((0, 5),)", *eight, "closed"]
    assert engine.read_stream("w", "k").read_all() == (eight, True)
    assert engine.read_stream("w", "k", view="raw").read_all() == ([*range(5), *eight], True)
    assert disorder(database_url) == []


@step(max_attempts=2, interval=0)
async def five_then_eight_when_let(gate: str) -> None:
    first = nth_attempt() == 1
    for number in range(5 if first else 8):
        await write_stream_async("k", number)
    await gates[gate].passed()
    if first:
        raise FlakyError


gates: dict[str, Gate] = {}


@workflow
async def retried_when_let() -> None:
    await five_then_eight_when_let("gate")


def test_a_reader_that_has_seen_a_value_hears_of_its_rollback(engine: Engine, gate: Gate) -> None:
    """Live it sees five values, the rollback of them, and eight; committed nothing before the step has succeeded."""
    gates["gate"] = gate
    engine.start(retried_when_let.options(workflow_id="w"))
    live, committed = engine.read_stream("w", "k"), engine.read_stream("w", "k", view="committed", timeout=PATIENCE)
    items = live.items()
    assert [shown(next(items)) for _ in range(5)] == [0, 1, 2, 3, 4]
    gate.open()
    rollback = next(items)
    assert rollback.rollback is not None
    assert rollback.rollback.ranges == ((0, 5),)
    assert (rollback.rollback.step_key, rollback.rollback.attempt) == ("five_then_eight_when_let#0", "1.1")
    assert (rollback.offset, 4 in rollback.rollback, 5 in rollback.rollback) == (5, True, False)
    assert [next(items).value for _ in range(8)] == list(range(8))
    with engine.read_stream("w", "k", view="committed", timeout=0.2) as ahead, pytest.raises(TimeoutError):
        next(ahead)
    gate.open()
    assert next(committed) == 0
    assert [*committed] == [1, 2, 3, 4, 5, 6, 7]
    assert next(items).closed


def test_a_plain_iterator_raises_at_a_rollback_and_goes_on(engine: Engine, gate: Gate) -> None:
    """By default; a function is called instead, and nothing happens when it is to be ignored."""
    gates["gate"] = gate
    engine.start(retried_when_let.options(workflow_id="w"))
    rollbacks: list[Any] = []
    readers = [engine.read_stream("w", "k", on_rollback=choice) for choice in ("raise", "ignore", rollbacks.append)]
    for reader in readers:
        assert [next(reader) for _ in range(5)] == [0, 1, 2, 3, 4]
    gate.open()
    gate.open()
    with pytest.raises(StreamRolledBackError, match=r"attempt 1\.1 of step 'five_then_eight_when_let#0'") as raised:
        next(readers[0])
    assert raised.value.rollback.ranges == ((0, 5),)
    assert [list(reader) for reader in readers] == [list(range(8))] * 3
    assert [one.ranges for one in rollbacks] == [((0, 5),)]
    assert engine.read_stream("w", "k").read_all()[0] == list(range(8))


@pytest.mark.parametrize(
    ("start", "items"),
    [
        (0, [*range(8), "closed"]),
        (1, ["rollback ((0, 5),)", *range(8), "closed"]),
        (4, ["rollback ((0, 5),)", *range(8), "closed"]),
        (6, [*range(8), "closed"]),
        (-3, [5, 6, 7, "closed"]),
        (-100, [*range(8), "closed"]),
        ("tail", ["closed"]),
    ],
)
def test_a_reader_that_resumes_hears_of_rollbacks_of_what_it_had_seen(
    engine: Engine, start: Any, items: list[Any]
) -> None:
    """What he had not seen he never sees; counting from the end counts what is visible."""
    engine.start(retried.options(workflow_id="w")).result(PATIENCE)
    assert seen(engine, start=start) == items


def test_a_range_of_a_stream_is_read_without_what_is_around_it(engine: Engine) -> None:
    """``until`` ends before its offset, and is no end of the stream."""
    engine.start(retried.options(workflow_id="w")).result(PATIENCE)
    assert seen(engine, start=6, until=9) == [0, 1, 2]
    assert seen(engine, until=6) == []
    assert seen(engine, view="raw", start=3, until=7) == [3, 4, "rollback ((0, 5),)", 0]
    reader = engine.read_stream("w", "k", start=6, until=9)
    assert reader.read_all() == ([0, 1, 2], False)
    assert (reader.offset, reader.closed, reader.read().closed) == (9, False, False)


# -- attempts whose owner died in them ---------------------------------------------------------------------------------

interruptions: dict[str, Interruption] = {}


@step
async def interrupted_after(count: int) -> None:
    for number in range(count):
        await write_stream_async("k", number)
    await interruptions["here"].point_async()
    await write_stream_async("k", "last")


@workflow
async def interrupted(count: int) -> str:
    await write_stream_async("k", "first")
    await interrupted_after(count)
    await write_stream_async("k", "after")
    return "done"


def test_the_next_owner_rolls_back_what_the_last_one_left(database_url: str) -> None:
    """A crashed attempt is not retried, it is interrupted: its values go all the same, and the body's stay."""
    interruptions["here"] = Interruption()
    with Engine(database_url, grace=0.0) as engine:
        engine.start(interrupted.options(workflow_id="w"), 3)
        reader = engine.read_stream("w", "k")
        assert [next(reader) for _ in range(4)] == ["first", 0, 1, 2]
        interruptions["here"].reached()
    interruptions["here"].let_through()
    with Engine(database_url) as engine:
        assert engine.handle("w").result(PATIENCE) == "done"
        content = ["first", 0, 1, 2, "last", "after"]
        assert seen(engine) == [*content, "closed"]
        assert seen(engine, view="committed") == [*content, "closed"]
        assert seen(engine, start=3) == ["rollback ((1, 4),)", 0, 1, 2, "last", "after", "closed"]
    assert disorder(database_url) == []


@step(max_attempts=3, interval=0)
async def failing() -> None:
    await write_stream_async("k", nth_attempt())
    raise FlakyError


@workflow
async def fails() -> None:
    await write_stream_async("k", "body")
    await failing()


def test_a_step_that_fails_for_good_leaves_nothing_visible(engine: Engine, database_url: str) -> None:
    """Every attempt has its rollback; the stream ends with the error."""
    with pytest.raises(FlakyError):
        engine.start(fails.options(workflow_id="w")).result(PATIENCE)
    assert seen(engine) == ["body", "closed"]
    assert seen(engine, view="raw") == [
        *["body", 1, "rollback ((1, 2),)", 2, "rollback ((3, 4),)", 3, "rollback ((5, 6),)", "closed"]
    ]
    with pytest.raises(StreamFailedError):
        list(engine.read_stream("w", "k"))
    assert disorder(database_url) == []


@step
async def writing_for_ever(gate: str) -> None:
    await write_stream_async("k", "mine")
    await gates[gate].passed()
    await asyncio.get_running_loop().create_future()


@workflow
async def cancels() -> None:
    task = asyncio.create_task(writing_for_ever("gate"))
    await gates["failing"].passed()
    task.cancel()
    await asyncio.wait([task])
    await write_stream_async("k", "cancelled")


def test_a_step_that_is_cancelled_is_rolled_back(engine: Engine, gate: Gate, database_url: str) -> None:
    """With the record that says so."""
    gates["gate"], gates["failing"] = gate, type(gate)()
    engine.start(cancels.options(workflow_id="w"))
    reader = engine.read_stream("w", "k")
    assert next(reader) == "mine"
    gates["failing"].open()
    engine.handle("w").result(PATIENCE)
    assert seen(engine) == ["cancelled", "closed"]
    assert seen(engine, view="raw") == ["mine", "rollback ((0, 1),)", "cancelled", "closed"]
    assert disorder(database_url) == []


def test_the_end_of_the_workflow_rolls_back_what_is_uncommitted(engine: Engine, gate: Gate, database_url: str) -> None:
    """A cancelled workflow's step has no outcome: its values go before the terminal frame."""
    gates["gate"], gates["failing"] = gate, type(gate)()
    engine.start(cancels.options(workflow_id="w"))
    reader = engine.read_stream("w", "k")
    assert next(reader) == "mine"
    engine.handle("w").cancel()
    assert [shown(item) for item in reader.items()] == ["rollback ((0, 1),)", "closed"]
    assert seen(engine, view="committed") == ["closed"]
    assert disorder(database_url) == []


# -- several writers ---------------------------------------------------------------------------------------------------


@step(max_attempts=2, interval=0)
async def half(name: str) -> None:
    first = nth_attempt() == 1
    for number in range(3):
        await write_stream_async("k", f"{name}{number}")
        await asyncio.sleep(0)
    if first and name == "a":
        raise FlakyError


@workflow
async def two_halves() -> None:
    await asyncio.gather(half("a"), half("b"))


def test_only_the_attempt_that_failed_is_rolled_back(engine: Engine, database_url: str) -> None:
    """Two steps write one stream in turns: the rollback names several ranges, and the other step's values stay."""
    engine.start(two_halves.options(workflow_id="w")).result(PATIENCE)
    values, _ = engine.read_stream("w", "k").read_all()
    for name in "ab":
        assert [value for value in values if value.startswith(name)] == [f"{name}{number}" for number in range(3)]
    assert len(values) == 6
    assert disorder(database_url) == []


@step(max_attempts=2, interval=0)
async def closing() -> None:
    first = nth_attempt() == 1
    await write_stream_async("k", 1)
    await close_stream_async("k")
    with pytest.raises(StreamClosedError):
        await write_stream_async("k", 2)
    if first:
        raise FlakyError


@workflow
async def closes_in_step() -> str:
    await closing()
    try:
        await write_stream_async("k", 3)
    except StreamClosedError:
        return "closed"
    return "open"


def test_a_close_in_a_step_comes_with_its_success(engine: Engine, database_url: str) -> None:
    """The first attempt's close goes with its values; the second's comes with the step's record."""
    assert engine.start(closes_in_step.options(workflow_id="w")).result(PATIENCE) == "closed"
    assert seen(engine, view="raw") == [1, "rollback ((0, 1),)", 1, "closed"]
    assert disorder(database_url) == []


@workflow
async def closes_meanwhile() -> None:
    task = asyncio.create_task(writing_once("gate"))
    await gates["failing"].passed()
    await close_stream_async("k")
    gates["gate"].open()
    await task


@step(max_attempts=2, interval=0)
async def writing_once(gate: str) -> None:
    if nth_attempt() == 1:
        await write_stream_async("k", 1)
        await gates[gate].passed()
        raise FlakyError


def test_a_close_waits_until_what_is_before_it_is_settled(engine: Engine, gate: Gate, database_url: str) -> None:
    """Nothing can follow a terminal frame, and a rollback may have to."""
    gates["gate"], gates["failing"] = gate, type(gate)()
    engine.start(closes_meanwhile.options(workflow_id="w"))
    assert next(engine.read_stream("w", "k")) == 1
    gates["failing"].open()
    engine.handle("w").result(PATIENCE)
    assert seen(engine, view="raw") == [1, "rollback ((0, 1),)", "closed"]
    assert disorder(database_url) == []


# -- on_retry ----------------------------------------------------------------------------------------------------------

numbers = Stream[int, None]("k")


@step(max_attempts=3, interval=0)
async def counting(on_retry: Any) -> list[int]:
    attempt = nth_attempt()
    writer = numbers.writer(on_retry=on_retry)
    before = await writer.emitted_async()
    for number in range(len(before) if on_retry == "resume" else 0, 3 * attempt):
        await writer.write_async(number)
    assert writer.position == 3 * attempt
    if attempt < 3:
        raise FlakyError
    return before


@workflow
async def counts(on_retry: str) -> list[int]:
    return await counting(on_retry)


def test_values_that_are_kept_on_retry_are_committed_at_once(engine: Engine, database_url: str) -> None:
    """``keep``: every attempt's values stay, and are never ahead of anything."""
    engine.start(counts.options(workflow_id="w"), "keep").result(PATIENCE)
    content = [*range(3), *range(6), *range(9)]
    assert seen(engine) == seen(engine, view="committed") == [*content, "closed"]
    assert disorder(database_url) == []


def test_an_attempt_resumes_where_the_last_one_stopped(engine: Engine, database_url: str) -> None:
    """``resume``: it learns what there is, and goes on behind it; nothing is written twice."""
    assert engine.start(counts.options(workflow_id="w"), "resume").result(PATIENCE) == list(range(6))
    assert seen(engine, view="raw") == [*range(9), "closed"]
    assert seen(engine, view="committed") == [*range(9), "closed"]
    assert disorder(database_url) == []


@step
async def resumed_after_a_crash() -> list[int]:
    writer = numbers.writer(on_retry="resume")
    before = await writer.emitted_async()
    for number in range(len(before), 4):
        await writer.write_async(number)
        if number == 1:
            await writer.flush_async()
            await interruptions["here"].point_async()
    return before


@workflow
async def resumes_after_a_crash() -> list[int]:
    return await resumed_after_a_crash()


def test_an_attempt_of_the_next_owner_resumes_where_the_last_one_stopped(database_url: str) -> None:
    """What the dead one had durable is there; the workflow's stream has each value once."""
    interruptions["here"] = Interruption()
    workflow_id = resumes_after_a_crash.options(workflow_id="w")
    assert interruptions["here"].two_passes(database_url, workflow_id) == [0, 1]
    with Engine(database_url, executes=False) as engine:
        assert seen(engine, view="raw") == [0, 1, 2, 3, "closed"]
    assert disorder(database_url) == []


@step(max_attempts=2, interval=0)
async def resuming_in_vain() -> None:
    await numbers.writer(on_retry="resume").write_async(nth_attempt())
    raise FlakyError


@workflow
async def resumes_in_vain() -> None:
    await resuming_in_vain()


def test_values_of_a_resumed_step_that_fails_are_rolled_back_once(engine: Engine, database_url: str) -> None:
    """When the step fails for good."""
    with pytest.raises(FlakyError):
        engine.start(resumes_in_vain.options(workflow_id="w")).result(PATIENCE)
    assert seen(engine, view="raw") == [1, 2, "rollback ((0, 2),)", "closed"]
    assert disorder(database_url) == []


def test_one_attempt_writes_a_stream_in_one_way(engine: Engine) -> None:
    """And a body's values are never rolled back, so there is nothing to say of them."""

    @step
    async def changing() -> None:
        numbers.writer(on_retry="keep")
        numbers.writer(on_retry="resume")

    @workflow
    async def changes() -> None:
        await changing()

    @workflow
    async def keeps() -> None:
        numbers.writer(on_retry="keep")

    with pytest.raises(ConfigurationError, match="cannot be changed"):
        engine.run(changes)
    with pytest.raises(ConfigurationError, match="is for steps"):
        engine.run(keeps)


# -- reading inside a workflow -----------------------------------------------------------------------------------------


five_read = threading.Event()
"""The five values have been read in the workflow: one that came later would see neither them nor the rollback."""


@workflow
async def reads_what_is_retried() -> list[str]:
    found = []
    async for item in read_stream_async("w", "k"):
        found.append(str(shown(item)))
        if item.value == 4:
            five_read.set()
        if item.rollback is not None:
            await interruptions["here"].point_async()
    return found


def test_a_replay_reads_again_what_was_rolled_back_meanwhile(database_url: str, gate: Gate) -> None:
    """It saw the values before they were rolled back, so it sees them again, though a late reader does not."""
    gates["gate"], interruptions["here"] = gate, Interruption()
    five_read.clear()
    with Engine(database_url) as writing:
        writing.start(retried_when_let.options(workflow_id="w"))
        reader = writing.read_stream("w", "k")
        with Engine(database_url, grace=0.0) as engine:
            engine.start(reads_what_is_retried.options(workflow_id="reading"))
            assert [next(reader) for _ in range(5)] == [0, 1, 2, 3, 4]
            assert five_read.wait(PATIENCE)
            gate.open()
            gate.open()
            assert interruptions["here"].reached()
            interruptions["here"].let_through()  # the next pass, which may begin before this engine has closed
        found = writing.handle("reading").result(PATIENCE)
    assert found == ["0", "1", "2", "3", "4", "rollback ((0, 5),)", *map(str, range(8)), "closed"]
    assert rows(database_url, "SELECT epoch > 1 FROM dbosflow.workflow WHERE id = 'reading'") == [(True,)]
