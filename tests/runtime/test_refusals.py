"""What is refused for its data is refused once, to its caller, and no other waits: in all loops that try again.

Each loop is given a statement that is refused as the database, the driver or code that reads an answer would do it.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import errors
from psycopg_pool import AsyncConnectionPool

from dbosflow import Engine, WorkflowStatus, workflow
from dbosflow._runtime.execution.histories import Histories
from dbosflow._runtime.journal import committer as committer_module
from dbosflow._runtime.process.session import Session
from dbosflow._runtime.queues.enqueuer import Enqueuer
from dbosflow._runtime.repository import Repository
from dbosflow._runtime.runs.state import RunStopped
from dbosflow._runtime.streams.compactor import Compactor
from dbosflow._runtime.streams.hub import UNSEEN, Hub, Outcomes
from dbosflow._runtime.streams.input_writer import InputWriter
from dbosflow._runtime.streams.statistics import StreamStatistics
from dbosflow._runtime.wakeups.topics import Wakeups
from dbosflow._sessions import READER
from dbosflow._store import retention, step, stream
from dbosflow._store import workflow as store
from dbosflow._store.batch import write_batch
from dbosflow._store.workflow import Enqueued
from dbosflow.config import Settings
from dbosflow.errors import PermissionDeniedError, SerializationError, StreamError, WorkflowBlockedError, WorkflowError
from tests.runtime.bench import Bench, before_sending, record, sqlstate, write
from tests.runtime.sessions import no_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dbosflow._store.batch_rows import BatchRows

PATIENCE = 60.0

REFUSALS: dict[str, Exception] = {
    "out of range": sqlstate("22003"),
    "constraint": sqlstate("23514"),
    "index row": sqlstate("54000"),
    "not bound": errors.DataError("cannot be bound"),
    "encoding": UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates"),
    "packed": struct.error("'i' format requires a smaller number"),
    "type": TypeError("a number is required"),
    "answer": KeyError("kind"),
}
refusals = pytest.mark.parametrize("error", REFUSALS.values(), ids=REFUSALS)
BAD = "wrong"


def refusing(function: Callable[..., Any], error: Exception, is_bad: Callable[[Any], bool]) -> Callable[..., Any]:
    """``function``, which refuses a call that has something bad among what it asks for."""

    async def refuse(connection: Any, schema: str, *asked: Any, **more: Any) -> Any:
        if any(map(is_bad, asked)):
            raise error
        return await function(connection, schema, *asked, **more)

    return refuse


def names_bad(asked: Any) -> bool:
    return BAD in (asked if isinstance(asked, list | tuple | set) else [asked])


async def in_time(*asked: Any) -> list[Any]:
    """What each gets."""
    async with asyncio.timeout(PATIENCE):
        return await asyncio.gather(*asked, return_exceptions=True)


def pool_of(url: str) -> AsyncConnectionPool[Any]:
    return AsyncConnectionPool(url, min_size=1, kwargs={"autocommit": True}, open=False)


@refusals
async def test_readers_and_waiters_with_bad_arguments_fail_alone(
    database_url: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They share statements; the one that is refused gets the error, and the others read on."""
    monkeypatch.setattr(stream, "fetch", refusing(stream.fetch, error, lambda wants: BAD in [one[0] for one in wants]))
    monkeypatch.setattr(store, "outcomes", refusing(store.outcomes, error, names_bad))

    session, wakeups = Session(database_url, Settings(), READER, no_pool(database_url)), Wakeups()
    hub = Hub(session, "dbosflow", wakeups, StreamStatistics())
    outcomes = Outcomes(session, "dbosflow", wakeups)
    asked = [hub.read(one, "k", 0, UNSEEN) for one in ("a", BAD, "b", BAD)]
    asked += [outcomes.wait_for(one) for one in ("a", BAD, "b")]  # type: ignore[misc]
    answers = asyncio.ensure_future(in_time(*asked))
    await asyncio.sleep(0)
    for service in (hub, outcomes):
        service.open()
    found = await answers
    for service in (hub, outcomes):
        await service.close()
    await session.close()
    assert [type(one) for one in (found[1], found[3], found[5])] == [StreamError, StreamError, WorkflowError]
    assert [page.status for page in (found[0], found[2])] == [None, None]
    assert [found[4], found[6]] == [None, None]


async def test_readers_without_rights_are_told_and_not_tried_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trying again would change nothing: they get the error, too."""
    error = PermissionDeniedError("no rights")
    monkeypatch.setattr(stream, "fetch", refusing(stream.fetch, error, bool))

    session = Session(database_url, Settings(), READER, no_pool(database_url))
    hub = Hub(session, "dbosflow", Wakeups(), StreamStatistics())
    hub.open()
    assert await in_time(hub.read("a", "k", 0, UNSEEN), hub.read("b", "k", 0, UNSEEN)) == [error, error]
    await hub.close()
    await session.close()


@refusals
async def test_enqueues_and_inputs_with_bad_data_fail_alone(
    database_url: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many in one statement, and each by itself once that is refused."""
    is_bad: Any = lambda rows: any(BAD in str(row) for row in rows)  # noqa: E731 (of rows of both)
    monkeypatch.setattr(store, "enqueue", refusing(store.enqueue, error, is_bad))
    monkeypatch.setattr(stream, "append", refusing(stream.append, error, is_bad))

    async with pool_of(database_url) as pool:
        enqueuer = Enqueuer(database_url, Settings(), pool, announce=lambda *_, **__: None, on_enqueued=lambda _: None)
        input_writer = InputWriter(pool, Settings(), lambda _: None)
        asked = [enqueuer.enqueue(Enqueued(one, "flow", "q", 0, "{}", ("i",)), []) for one in ("a", BAD, "b")]
        answers = asyncio.ensure_future(in_time(*asked))
        await asyncio.sleep(0)
        enqueuer.open()
        first, second, third = await answers
        assert (first, third) == (True, True)
        assert isinstance(second, SerializationError)
        values = [input_writer.append("a", "i", f'"{value}"', None) for value in ("x", BAD, "y")]
        answers = asyncio.ensure_future(in_time(*values))
        await asyncio.sleep(0)
        input_writer.open()
        first, second, third = await answers
        assert (first, third) == (0, 1)
        assert isinstance(second, SerializationError)
        for service in (enqueuer, input_writer):
            await service.close()


@refusals
async def test_a_refused_question_to_the_tables_is_not_asked_again(database_url: str, error: Exception) -> None:
    """Also those that are asked until there is an answer: no answer will come."""

    async def refuse(*_: Any) -> None:
        raise error

    async with pool_of(database_url) as pool:
        for patient in (False, True):
            repository = Repository(pool, Settings(connect_timeout=600.0), patient=patient)
            assert await in_time(repository.ask(refuse)) == [error]


@refusals
async def test_a_history_that_is_refused_stops_no_other_workflow(
    database_url: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim takes many workflows: one whose records cannot be read holds up no other."""
    monkeypatch.setattr(step, "histories", refusing(step.histories, error, names_bad))

    async with pool_of(database_url) as pool:
        (found,) = await in_time(Histories(pool, "dbosflow").read(["a", BAD, "b"]))
        assert found[BAD] is error
        assert [found[one].records for one in ("a", "b")] == [{}, {}]


@workflow
async def going_on() -> int:
    return 1


def test_a_workflow_whose_records_cannot_be_read_is_parked(
    database_url: str, execute: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never begins anew without them; the workflows that were claimed with it go on."""
    monkeypatch.setattr(step, "histories", refusing(step.histories, sqlstate("22P02"), names_bad))
    for workflow_id in (BAD, "good"):
        execute(
            "INSERT INTO dbosflow.workflow (id, name, status, queue, epoch, input) "
            "VALUES (%s, 'going_on', 'queued', '', 1, '{}')",
            workflow_id,
        )
    with Engine(database_url) as engine:
        assert engine.handle("good").result(timeout=PATIENCE) == 1
        with pytest.raises(WorkflowBlockedError, match="its records cannot be read"):
            engine.handle(BAD).result(timeout=PATIENCE)
        assert engine.list_steps(BAD) == []
        assert engine.handle(BAD).status() is WorkflowStatus.BLOCKED


@refusals
async def test_a_stream_that_cannot_be_compacted_stops_no_other(
    database_url: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that cannot be compacted stays as it is; the walk goes on behind it."""
    looked: list[str] = []

    async def scattered(_: Any, __: str, workflow_id: str, *___: Any) -> list[str]:
        looked.append(workflow_id)
        if workflow_id == BAD:
            raise error
        return []

    async def ended_after(*_: Any) -> Sequence[Any]:
        return [(None, one) for one in ("c", BAD, "d")]

    monkeypatch.setattr(retention, "scattered", scattered)
    monkeypatch.setattr(retention, "ended_after", ended_after)

    async with pool_of(database_url) as pool:
        compactor = Compactor(pool, "dbosflow", 60.0)
        for workflow_id in ("a", BAD, "b"):
            compactor.ended(workflow_id)
        assert await compactor.work_once() is False
    assert looked == ["a", BAD, "b", "c", BAD, "d"]


@refusals
@pytest.mark.parametrize("times", [1, 2, 3, 4])
async def test_a_run_that_is_refused_again_and_again_ends_with_less_and_less(
    database_url: str, error: Exception, times: int
) -> None:
    """Its end is tried with less each time, and at last it is let go of; others of its worker go on meanwhile."""
    async with Bench(database_url) as bench:
        run, other = await bench.run("w"), await bench.run("other")
        write(run, "1", key="durable")
        await bench.forget()
        bench.faults += [before_sending(error)] * times
        waiter = record(run, "a")
        write(run, "1", key="refused")
        (answer,) = await in_time(waiter)
        assert isinstance(answer, RunStopped)
        await in_time(record(other, "b"))
        assert await bench.records() == ["other:b"]
        ends = await bench.rows("SELECT status, error ->> 'type' FROM dbosflow.workflow WHERE id = 'w'")
        blocks = await bench.rows('SELECT key, kind FROM dbosflow.stream_block ORDER BY key, "offset"')
        if times > 3:
            assert bench.events == [("unwritable", "w")]
        else:
            assert bench.events == [("ended", "w", "failed")]
            assert ends == [("failed", "SerializationError")]
        ended = [("durable", "error"), ("refused", "error")][: max(3 - times, 0)]
        assert blocks == sorted([("durable", "values"), *ended], key=lambda row: row[0])


@refusals
async def test_a_batch_whose_witness_query_is_refused_is_sent_again(
    database_url: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing of the batch, which is sent again: no worker stands still for a question."""
    asked = 0

    async def refuse(*_: Any) -> bool:
        nonlocal asked
        asked += 1
        raise error

    monkeypatch.setattr(committer_module, "is_durable", refuse)

    async with Bench(database_url) as bench:
        run = await bench.run("w")
        await bench.forget()
        bench.faults.append(before_sending(sqlstate("08006")))
        assert await in_time(record(run, "a")) == [None]
        assert asked == 1
        assert len(bench.sent) == 2


@refusals
async def test_a_bad_row_in_a_batch_of_many_stops_nobody_else(database_url: str, error: Exception) -> None:
    """Only the run whose data is refused ends; starts get the error, too."""
    async with Bench(database_url) as bench:
        runs = [await bench.run(one) for one in ("a", BAD, "c")]
        await bench.forget()

        async def refuse(connection: Any, rows: BatchRows, *rest: Any) -> Any:
            if any(BAD in str(row) for row in (*rows.records, *rows.starts)):
                raise error
            return await write_batch(connection, rows, *rest)

        bench.write = refuse
        found = await in_time(*(record(run, "k") for run in runs), bench.start("d"), bench.start(f"{BAD} too"))
        assert [found[0], found[2], found[3]] == [None, None, True]
        assert isinstance(found[1], RunStopped)
        assert isinstance(found[4], SerializationError)
        assert await bench.records() == ["a:k", "c:k"]
