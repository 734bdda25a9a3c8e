"""A cancel is final, whenever it comes: beside an end, beside a batch on the wire, and if nobody gives a hint of it.

A request that is written by SQL gives none, and the safety poll is set so slow that it cannot be what helped: the
owner learns of it with the answer of its next batch.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import (
    Engine,
    WorkflowStatus,
    current,
    for_each_async,
    sleep,
    sleep_async,
    step,
    workflow,
    write_stream,
    write_stream_async,
)
from dbosflow.errors import EngineClosedError, StreamCancelledError, StreamClosedError, WorkflowCancelledError
from tests.behaviour.ledger import note, noted
from tests.behaviour.tables import disorder, records, rows
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 60.0
urls: list[str] = []
forgotten: list[asyncio.Task[Any]] = []
go_on: threading.Event


def ask_silently(workflow_id: str) -> None:
    """Writes the request, as a cancel does whose hint is lost."""
    statement = "UPDATE dbosflow.workflow SET cancel_requested_at = now() WHERE id = %s RETURNING id"
    assert rows(urls[-1], statement, workflow_id) == [(workflow_id,)]


@pytest.fixture
def quiet(database_url: str) -> Iterator[Engine]:
    """An engine that learns of cancels by hints and answers alone."""
    global go_on  # noqa: PLW0603 (it ends a workflow's body)
    go_on = threading.Event()
    urls.append(database_url)
    with Engine(database_url, safety_poll=3600, grace=1.0) as engine:
        yield engine
        go_on.set()


@contextmanager
def no_record_gets_through(url: str) -> Iterator[None]:
    """Batches with records stay on the wire during the block."""
    with psycopg.connect(url) as session:
        session.execute("LOCK TABLE dbosflow.step IN SHARE MODE")
        yield


def on_the_wire(url: str) -> bool:
    """Whether a batch waits for a lock."""
    query = (
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database())"
    )
    return rows(url, query) == [(True,)]


def standing(url: str, parent_id: str) -> list[tuple[str, str]]:
    """The children that nobody cancels."""
    query = """SELECT id, status FROM dbosflow.workflow
               WHERE parent_id = %s AND status <> 'cancelled' AND cancel_requested_at IS NULL"""
    return rows(url, query, parent_id)


def ends_cancelled(engine: Engine, workflow_id: str) -> None:
    """The workflow ends so, and leaves the tables in order."""
    with pytest.raises(WorkflowCancelledError):
        engine.handle(workflow_id).result(timeout=PATIENCE)
    assert engine.handle(workflow_id).status() is WorkflowStatus.CANCELLED
    assert disorder(urls[-1]) == []


# -- a lost hint: the next answer says so ------------------------------------------------------------------------------


@step
async def numbered(number: int) -> int:
    note(number)
    if number == 1:
        ask_silently(current().workflow_id)
    return number


@step
def numbered_on_thread(number: int) -> int:
    note(number)
    if number == 1:
        ask_silently(current().workflow_id)
    return number


@workflow
async def one_after_the_other() -> None:
    for number in range(4):
        await numbered(number)


@workflow
def one_after_the_other_on_thread() -> None:
    for number in range(4):
        numbered_on_thread(number)


@workflow
async def two_at_once() -> None:
    async def branch(first: int) -> None:
        for number in range(first, first + 30, 10):
            await numbered(number)

    await asyncio.gather(branch(1), branch(2))


@workflow
async def with_values() -> None:
    for number in range(4):
        await numbered(number)
        await write_stream_async("out", number)


@pytest.mark.parametrize("flow", [one_after_the_other, one_after_the_other_on_thread, with_values])
def test_no_step_begins_after_the_answer_that_tells_of_a_cancel(quiet: Engine, flow: Any) -> None:
    """Not even the next one: its outcome is durable, and the owner knows before it goes on."""
    quiet.start(flow.options(workflow_id="w"))
    ends_cancelled(quiet, "w")
    assert noted() == [0, 1]


def test_no_branch_of_a_cancelled_workflow_begins_another_step(quiet: Engine) -> None:
    quiet.start(two_at_once.options(workflow_id="w"))
    ends_cancelled(quiet, "w")
    assert set(noted()) <= {1, 2, 12}, "2 may have been quicker than 1, and 12 have begun with it"


@workflow(inputs=["in"])
async def item_by_item() -> None:
    await for_each_async("in", numbered)


@workflow(inputs=["in"])
async def items_at_once() -> None:
    await for_each_async("in", numbered, ordered=False, concurrency=2, name="at once")


@pytest.mark.parametrize("flow", [item_by_item, items_at_once])
def test_no_item_of_a_loop_begins_after_the_answer_that_tells_of_a_cancel(quiet: Engine, flow: Any) -> None:
    quiet.start(flow.options(workflow_id="w"))
    with suppress(StreamClosedError):  # what was written by then is enough
        for number in range(20):
            quiet.write_stream("w", "in", number)
    ends_cancelled(quiet, "w")
    assert noted()[:2] == [0, 1]
    assert len(noted()) <= 3


@step
def asks_for_parent(workflow_id: str) -> None:
    ask_silently(workflow_id)


@workflow
async def leaf_below() -> None:
    note("leaf_below")
    await sleep_async(3600)


@workflow
async def starts_afterwards() -> None:
    await asks_for_parent.run_async(current().workflow_id)
    await leaf_below.start_async()


def test_no_child_starts_after_the_answer_that_tells_of_a_cancel(quiet: Engine, database_url: str) -> None:
    quiet.start(starts_afterwards.options(workflow_id="w"))
    ends_cancelled(quiet, "w")
    assert rows(database_url, "SELECT id FROM dbosflow.workflow WHERE parent_id = 'w'") == []


# -- beside an end -----------------------------------------------------------------------------------------------------


@workflow
async def ends_well() -> str:
    await write_stream_async("open", 1)
    await leaf_below.start_async()
    ask_silently("w")
    return "a result"


@workflow
def ends_well_on_thread() -> str:
    write_stream("open", 1)
    leaf_below.start()
    ask_silently("w")
    return "a result"


@workflow
async def ends_badly() -> str:
    await write_stream_async("open", 1)
    await leaf_below.start_async()
    ask_silently("w")
    raise ValueError


@workflow
async def leaves_a_branch() -> str:
    await write_stream_async("open", 1)
    forgotten.append(asyncio.create_task(leaf_below.start_async()))
    await sleep_async(0)
    ask_silently("w")
    return "a result"


@workflow
async def ends_with_nothing_else() -> str:
    ask_silently("w")
    return "a result"


@pytest.mark.parametrize("flow", [ends_well, ends_well_on_thread, ends_badly, leaves_a_branch, ends_with_nothing_else])
def test_a_cancel_after_the_body_is_over_still_ends_it_as_cancelled(
    quiet: Engine, database_url: str, flow: Any
) -> None:
    """Its end is refused where it would be written, and the owner ends it, with its children and its streams."""
    quiet.start(flow.options(workflow_id="w"))
    ends_cancelled(quiet, "w")
    assert rows(database_url, "SELECT output::text, error::text FROM dbosflow.workflow WHERE id = 'w'") == [
        (None, None)
    ]
    assert eventually(lambda: standing(database_url, "w") == [])
    if flow is not ends_with_nothing_else:
        with pytest.raises(StreamCancelledError):
            list(quiet.read_stream("w", "open", wait_for=PATIENCE))


@step(name="other_kind")
async def other_kind() -> None: ...


@workflow
async def contradicts() -> None:
    ask_silently("w")
    await sleep_async(0)


def test_a_body_that_contradicts_its_records_is_cancelled_and_not_parked(quiet: Engine, database_url: str) -> None:
    """A workflow that is parked has no owner that would carry the request out."""
    with psycopg.connect(database_url) as session:
        session.execute(
            """INSERT INTO dbosflow.workflow (id, name, status, input, epoch)
               VALUES ('w', 'contradicts', 'queued', '{}', 1)"""
        )
        session.execute(
            """INSERT INTO dbosflow.step (workflow_id, key, kind, epoch, seq, turn, attempt, output, started_at)
               VALUES ('w', 'sleep#0', 'step', 1, 0, 0, '1.1', '1', now())"""
        )
    with Engine(database_url, safety_poll=3600):
        ends_cancelled(quiet, "w")


# -- children ----------------------------------------------------------------------------------------------------------


@workflow
async def starts_many(count: int) -> None:
    await asyncio.gather(*(leaf_below.start_async() for _ in range(count)))
    await sleep_async(3600)


@workflow
async def starts_many_queued(count: int) -> None:
    await asyncio.gather(*(leaf_below.options(queue="nobody").start_async() for _ in range(count)))
    await sleep_async(3600)


@pytest.mark.parametrize("flow", [starts_many, starts_many_queued])
def test_children_whose_starts_are_on_the_wire_are_cancelled(quiet: Engine, database_url: str, flow: Any) -> None:
    """The parent does not end before they are durable, and asked to end."""
    with no_record_gets_through(database_url):
        handle = quiet.start(flow.options(workflow_id="w"), 20)
        eventually(lambda: on_the_wire(database_url))
        assert handle.cancel().outcome == "requested"
    ends_cancelled(quiet, "w")
    assert standing(database_url, "w") == []


@workflow
async def starts_below() -> None:
    await starts_many.options(workflow_id="middle").start_async(20)
    go_on.wait()
    await sleep_async(3600)


def test_a_child_that_starts_others_just_then_is_cancelled_with_them(quiet: Engine, database_url: str) -> None:
    """The request reaches all that there is; what is on the wire is cancelled by the one that starts it."""
    handle = quiet.start(starts_below.options(workflow_id="w"))
    eventually(lambda: records(database_url, "w"))
    with no_record_gets_through(database_url):
        go_on.set()
        eventually(lambda: on_the_wire(database_url))
        handle.cancel()
    ends_cancelled(quiet, "middle")
    ends_cancelled(quiet, "w")
    assert standing(database_url, "w") == standing(database_url, "middle") == []


@step
def blocks() -> None:
    note("blocks")
    go_on.wait(PATIENCE)


@workflow
def busy_branches() -> None:
    leaf_below.start()
    blocks()


@workflow
async def deaf() -> None:
    await leaf_below.start_async()
    note("blocks")
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            note("deaf")


@pytest.mark.parametrize("flow", [busy_branches, deaf])
def test_children_of_a_body_that_outlives_the_grace_are_cancelled(quiet: Engine, database_url: str, flow: Any) -> None:
    handle = quiet.start(flow.options(workflow_id="w"))
    eventually(lambda: "blocks" in noted())
    handle.cancel(children=True)
    ends_cancelled(quiet, "w")
    assert standing(database_url, "w") == []


@workflow
async def deaf_while_it_starts() -> None:
    forgotten.append(asyncio.create_task(leaf_below.start_async()))
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            note("deaf")


def test_starts_on_the_wire_of_a_body_that_outlives_the_grace_are_cancelled(
    quiet: Engine, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The grace is over before they are durable: the end waits for them, too."""
    with no_record_gets_through(database_url):
        handle = quiet.start(deaf_while_it_starts.options(workflow_id="w"))
        eventually(lambda: on_the_wire(database_url))
        handle.cancel()
        eventually(lambda: "has not ended within the grace" in caplog.text)
    ends_cancelled(quiet, "w")
    assert rows(database_url, "SELECT count(*) FROM dbosflow.workflow WHERE parent_id = 'w'") == [(1,)]
    assert standing(database_url, "w") == []


@pytest.mark.parametrize("flow", [starts_many, busy_branches])
def test_children_of_a_cancelled_workflow_may_be_left_alone(quiet: Engine, database_url: str, flow: Any) -> None:
    """By the request, and by the owner that carries it out: with a body that ends, and one that does not."""
    handle = quiet.start(flow.options(workflow_id="w"), *([3] if flow is starts_many else []))
    eventually(lambda: "leaf_below" in noted() and ("blocks" in noted() or noted().count("leaf_below") == 3))
    handle.cancel(children=False)
    ends_cancelled(quiet, "w")
    assert {status for _, status in standing(database_url, "w")} == {"running"}


# -- asked more than once, and at the gates of a run's life ------------------------------------------------------------


@workflow
def sleeps_on_a_thread_below() -> None:
    note("asleep")
    sleep(3600)


def test_two_cancels_are_one(quiet: Engine, database_url: str) -> None:
    handle = quiet.start(sleeps_on_a_thread_below.options(workflow_id="w"))
    eventually(lambda: "asleep" in noted())
    answers = [handle.cancel() for _ in range(2)]
    assert answers[0].outcome == "requested"
    assert answers[1].outcome in {"requested", "ended"}
    ends_cancelled(quiet, "w")
    assert handle.cancel().outcome == "ended"


def test_a_parked_workflow_is_ended_by_the_next_owner(quiet: Engine, database_url: str) -> None:
    with psycopg.connect(database_url) as session:
        session.execute(
            """INSERT INTO dbosflow.workflow (id, name, status, input, epoch, recoveries)
               VALUES ('w', 'leaf_below', 'blocked', '{}', 4, 10)"""
        )
    assert quiet.handle("w").cancel().outcome == "requested"
    ends_cancelled(quiet, "w")
    assert noted() == []


@workflow
async def waits_in_a_step() -> None:
    await leaf_below.start_async()
    await held_step()


@step
async def held_step() -> None:
    note("held")
    await asyncio.to_thread(go_on.wait, PATIENCE)


def closes(engine: Engine) -> bool:
    """Whether it begins nothing any more."""
    try:
        engine.handle("w")
    except EngineClosedError:
        return True
    return False


def test_a_cancel_during_a_drain_is_carried_out(quiet: Engine, database_url: str) -> None:
    """Here or by the next worker, with the children."""
    with Engine(database_url, safety_poll=3600, grace=PATIENCE) as worker:
        worker.start(waits_in_a_step.options(workflow_id="w"))
        eventually(lambda: "held" in noted())
        closing = threading.Thread(target=worker.close)
        closing.start()
        eventually(lambda: closes(worker))
        assert quiet.handle("w").cancel().outcome == "requested"
        go_on.set()
        closing.join(PATIENCE)
    ends_cancelled(quiet, "w")
    assert eventually(lambda: standing(database_url, "w") == [])
