"""A durable loop over a stream: each item's outcome is recorded once, and a crash neither repeats nor skips any."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import (
    Engine,
    Stream,
    current,
    for_each,
    for_each_async,
    read_input,
    read_stream_async,
    step,
    transaction,
    workflow,
)
from dbosflow.errors import ConfigurationError, NotInWorkflowError, StreamInputError, StreamTimeoutError
from tests.behaviour.interruption import Interruption
from tests.behaviour.ledger import note, noted
from tests.behaviour.programs.looping import looping, looping_on_thread
from tests.behaviour.tables import disorder, records, rows
from tests.behaviour.worker_pool import QUEUE
from tests.support import eventually

if TYPE_CHECKING:
    from tests.behaviour.conftest import StartPool

PATIENCE = 60.0
PORTION = 12
"""Items between two kills."""
KILLS = int(os.environ.get("DBOSFLOW_TEST_LOOP_KILLS", "30"))


def feed(engine: Engine, workflow_id: str, values: Any, key: str = "work") -> None:
    """Writes the values to an input, and closes it."""

    async def write() -> None:
        await asyncio.gather(*(engine.write_stream_async(workflow_id, key, value) for value in values))
        await engine.close_stream_async(workflow_id, key)

    asyncio.run(write())


# -- crashes -----------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("target", "concurrency", "ordered", "kills"),
    [(looping, 4, False, KILLS), (looping, 1, True, KILLS // 6), (looping_on_thread, 3, True, KILLS // 6)],
    ids=["side by side", "in turn", "thread"],
)
def test_each_items_effect_is_recorded_once_however_often_it_is_killed(
    client: Engine,
    database_url: str,
    start_pool: StartPool,
    *,
    target: Any,
    concurrency: int,
    kills: int,
    ordered: bool,
) -> None:
    """At random points, by SIGKILL. What runs again is what was under way, and no more."""
    count = PORTION * kills
    chance = random.Random(11)
    pool = start_pool("looping", lease=2.0)
    handle = client.start(target.options(workflow_id="w", queue=QUEUE), concurrency, ordered)
    for kill in range(kills):
        for number in range(PORTION * kill, PORTION * (kill + 1)):
            client.write_stream("w", "work", number)
        begun = PORTION * kill + chance.randint(1, PORTION)
        eventually(lambda begun=begun: len(set(noted())) >= begun)  # type: ignore[misc]
        assert pool.kill_owner("w")
    client.close_stream("w", "work")
    assert handle.result(timeout=PATIENCE) == [count, 0, count - 1]
    effects = client.read_stream("w", "effects", view="committed").read_all()
    assert (sorted(effects[0]), effects[1]) == (list(range(count)), True)
    query = "SELECT count(*), count(DISTINCT loop_offset) FROM dbosflow.step WHERE kind = 'step'"
    assert rows(database_url, query) == [(count, count)]
    assert pool.done_again("w") == set()
    assert count <= len(noted()) <= count + kills * concurrency
    assert disorder(database_url) == []


half_looped = Interruption()


@step
async def held_at_seven(number: int) -> int:
    note(number)
    if number == 7:
        await half_looped.point_async()
    return number


@workflow(inputs=["work"])
async def two_pass_loop(ordered: bool) -> list[Any]:  # noqa: FBT001 (an argument in JSON)
    done = await for_each_async("work", held_at_seven, concurrency=3, ordered=ordered, collect=True)
    return [done.count, done.last, done.results]


def test_a_resumed_loop_begins_at_its_watermark(client: Engine, database_url: str) -> None:
    """Out of order, what is done behind an item that is not is not done again."""
    with Engine(database_url, grace=0.0) as engine:
        engine.start(two_pass_loop.options(workflow_id="w"), False)
        feed(client, "w", range(20))
        eventually(lambda: len([one for one in engine.list_steps("w") if one.kind == "step"]) == 19)
        assert half_looped.reached()
    half_looped.let_through()
    with Engine(database_url):
        assert client.handle("w").result(timeout=PATIENCE) == [20, 19, list(range(20))]
    assert sorted(noted()) == sorted([*range(20), 7])
    assert disorder(database_url) == []


after_the_loop = Interruption()


@workflow(inputs=["work"])
async def looped_before() -> list[Any]:
    done = await for_each_async("work", noting, collect=True)
    await after_the_loop.point_async()
    return done.results


def noting(number: int) -> int:
    note(number)
    return number * 2


def test_a_loop_that_is_over_is_one_record(client: Engine, database_url: str) -> None:
    """A replay asks for none of its items, and gives the same."""
    with Engine(database_url, grace=0.0) as engine:
        engine.start(looped_before.options(workflow_id="w"))
        feed(client, "w", range(5))
        assert after_the_loop.reached()
    after_the_loop.let_through()
    with Engine(database_url):
        assert client.handle("w").result(timeout=PATIENCE) == [0, 2, 4, 6, 8]
    assert noted() == list(range(5))
    items = [(f"noting#0/{number}", "step") for number in range(5)]
    assert records(database_url, "w") == [*items, ("noting#0", "for_each")]


# -- failures ----------------------------------------------------------------------------------------------------------


class OddError(Exception):
    """What a handler fails with."""


@step(max_attempts=2, interval=0)
async def even_only(number: int) -> int:
    note(number)
    if number % 2:
        msg = f"{number} is odd"
        raise OddError(msg)
    return number


@workflow(inputs=["work"])
async def loop_over_failures(on_error: Any) -> list[Any]:
    done = await for_each_async("work", even_only, on_error=on_error, name="evens", concurrency=3, collect=True)
    return [done.count, done.failed, done.last, done.results]


def test_a_failed_item_ends_its_loop(engine: Engine) -> None:
    """In the order of the stream the first one, after its attempts."""
    handle = engine.start(loop_over_failures.options(workflow_id="w"), "raise")
    feed(engine, "w", [0, 2, 5, 4, 7])
    with pytest.raises(OddError, match="5 is odd"):
        handle.result(timeout=PATIENCE)
    assert noted().count(5) == 2
    assert disorder(engine.database_url) == []


def test_failed_items_are_skipped_or_become_dead_letters(engine: Engine) -> None:
    """With their offset, value and error, in a stream of the workflow."""
    for on_error in ("skip", "dead_letter"):
        handle = engine.start(loop_over_failures.options(workflow_id=on_error), on_error)
        feed(engine, on_error, range(6))
        assert handle.result(timeout=PATIENCE) == [3, 3, 5, [0, 2, 4]]
    assert engine.read_stream("skip", "evens.dead").read_all() == ([], True)
    letters, closed = engine.read_stream("dead_letter", "evens.dead").read_all()
    assert closed
    assert [(one["offset"], one["value"], one["error"]["message"]) for one in letters] == [
        (number, number, f"{number} is odd") for number in (1, 3, 5)
    ]
    assert disorder(engine.database_url) == []


@workflow(inputs=["work"])
def going_on_after_failures(patience: float) -> list[Any]:
    reader = read_input("work", timeout=patience)
    found: list[Any] = []
    for _ in range(4):
        try:
            found.append(for_each(reader, even_only, name="part").count)
        except OddError:
            found.append(reader.offset)
            next(reader)
        except StreamTimeoutError:
            found.append("timeout")
    return found


def test_a_reader_goes_on_where_the_loop_ended(engine: Engine) -> None:
    """At the item that failed, or behind the last one that is done."""
    handle = engine.start(going_on_after_failures.options(workflow_id="w"), PATIENCE)
    feed(engine, "w", [0, 2, 5, 4, 7, 6, 8])
    assert handle.result(timeout=PATIENCE) == [2, 4, 2, 0]


def test_a_loop_times_out_like_its_reader(client: Engine, database_url: str) -> None:
    """What came before is done."""
    with Engine(database_url) as first:
        first.start(going_on_after_failures.options(workflow_id="w", delay=3600), 0.2)
        first.write_stream("w", "work", 0)
    assert rows(database_url, "UPDATE dbosflow.workflow SET wake_at = now() RETURNING id") == [("w",)]
    with Engine(database_url):
        assert client.handle("w").result(timeout=PATIENCE) == ["timeout"] * 4
    assert noted() == [0]


# -- how it goes -------------------------------------------------------------------------------------------------------

abreast = threading.Barrier(3)


def all_abreast(number: int) -> list[Any]:
    abreast.wait(PATIENCE)
    return [number, current().step_key]


@workflow(inputs=["work"])
def side_by_side_loop() -> list[Any]:
    return for_each("work", all_abreast, concurrency=3, collect=True, checkpoint_every=2).results


def test_handlers_of_a_loop_run_side_by_side(engine: Engine) -> None:
    """Plain functions, too, on threads of their own; each is a step with a key by its offset."""
    handle = engine.start(side_by_side_loop.options(workflow_id="w"))
    feed(engine, "w", range(6))
    assert handle.result(timeout=PATIENCE) == [[number, f"all_abreast#0/{number}"] for number in range(6)]


pairs = Stream[tuple[int, int], None]("pairs")


@workflow
async def making_pairs(count: int) -> None:
    async with pairs.writer() as writer:
        for number in range(count):
            await writer.write_async((number, number))


@workflow
async def adding_pairs(source_id: str) -> list[int]:
    async def add(pair: list[int]) -> int:
        return sum(pair)

    return (await for_each_async(read_stream_async(source_id, "pairs"), add, collect=True)).results


def test_a_loop_goes_over_another_workflows_stream(engine: Engine) -> None:
    engine.start(making_pairs.options(workflow_id="s"), 10)
    assert engine.run(adding_pairs, "s") == [2 * number for number in range(10)]


@transaction
async def noting_in_transaction(_: psycopg.AsyncConnection, value: Any) -> None:
    note(value)


@workflow(inputs=["work"])
async def mistaken(what: str) -> None:
    if what == "options":
        await for_each_async("work", noting, concurrent=3)  # type: ignore[call-overload]
    elif what == "workflow":
        await for_each_async("work", making_pairs)
    elif what == "transaction":
        await for_each_async("work", noting_in_transaction)
    elif what == "key":
        await for_each_async("other", noting)
    else:
        await for_each_async("work", noting, on_error="ignore")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("what", "error", "match"),
    [
        ("options", ConfigurationError, "no option 'concurrent'"),
        ("workflow", ConfigurationError, "making_pairs.* is none"),
        ("transaction", ConfigurationError, "transaction 'noting_in_transaction'.* plain loop"),
        ("key", StreamInputError, "'other' is no input"),
        ("on_error", ConfigurationError, "on_error='ignore'"),
    ],
)
def test_wrong_arguments_of_for_each_are_named(engine: Engine, what: str, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        engine.run(mistaken, what)


def test_a_loop_needs_a_workflow() -> None:
    with pytest.raises(NotInWorkflowError):
        for_each("work", noting)
