"""What becomes of a batch when something goes wrong: nothing is guessed, nothing lost, nobody pays for others' data."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, workflow
from dbosflow._runtime.journal import committer
from dbosflow._runtime.leases.worker_lease import WorkerLease
from dbosflow._runtime.runs.state import RunStopped
from dbosflow._store.batch import write_batch
from dbosflow.errors import DatabaseUnavailableError, SerializationError
from dbosflow.types import FrameKind
from tests.runtime.bench import Bench, after_the_commit, before_sending, end, record, sqlstate, write
from tests.support import eventually_async

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbosflow._runtime.execution.run import Run
    from dbosflow._store.batch_rows import BatchRows

PASSING = {
    "connection lost": psycopg.OperationalError("the connection is lost"),
    "connection failure": sqlstate("08006"),
    "serialization": sqlstate("40001"),
    "deadlock": sqlstate("40P01"),
    "disk full": sqlstate("53100"),
    "out of memory": sqlstate("53200"),
    "too many connections": sqlstate("53300"),
    "admin shutdown": sqlstate("57P01"),
    "crash shutdown": sqlstate("57P02"),
    "query cancelled": sqlstate("57014"),
    "read only": sqlstate("25006"),
    "socket": OSError("broken pipe"),
}


def write_all(run: Run) -> None:
    """Something of everything."""
    record(run, "a")
    write(run, "1", "2")
    end(run)


CONTENTS: dict[str, Callable[[Run], object]] = {
    "a record": lambda run: record(run, "a"),
    "values": lambda run: write(run, "1", "2"),
    "a close": lambda run: run.streams.close("out", run.root.producer, FrameKind.COMPLETE, None),
    "an end": end,
    "all": write_all,
}


@pytest.mark.parametrize("error", PASSING.values(), ids=PASSING)
async def test_the_same_batch_is_sent_again_when_the_trouble_passes(database_url: str, error: Exception) -> None:
    """As it was, with nothing added: a copy of it that still comes must find its own rows. New entries wait."""
    async with Bench(database_url) as bench:
        runs = [await bench.run(f"w{number}") for number in range(3)]
        await bench.forget()
        bench.faults += [before_sending(error)] * 3
        waiters = [record(run, "a") for run in runs]
        for run in runs:
            write(run, "1")
        await eventually_async(lambda: bench.sent)
        waiters += [record(run, "b") for run in runs]
        write(runs[0], "2")
        await asyncio.gather(*waiters)
        await bench.journal.flush()
        assert bench.sent[:4] == [bench.sent[0]] * 4
        assert len(bench.sent) == 5
        assert bench.events == []
        assert await bench.records() == [f"w{number}:{key}" for number in range(3) for key in "ab"]
        query = 'SELECT "offset", values::text FROM dbosflow.stream_block WHERE workflow_id = %s ORDER BY 1'
        assert await bench.rows(query, "w0") == [(0, "[1]"), (1, "[2]")]


@pytest.mark.parametrize("contents", CONTENTS)
async def test_a_batch_whose_answer_was_lost_is_not_written_twice(database_url: str, contents: str) -> None:
    """A witness says that it is there; everybody goes on as if it had been answered."""
    async with Bench(database_url) as bench:
        run, other = await bench.run("w"), await bench.run("other")
        await bench.forget()
        bench.faults.append(after_the_commit(psycopg.OperationalError("lost")))
        CONTENTS[contents](run)
        await bench.journal.flush()
        assert len(bench.sent) == 1
        assert bench.events == ([("ended", "w", "succeeded")] if contents in ("an end", "all") else [])
        assert len(bench.topics) == {"a record": 0, "all": 2}.get(contents, 1)
        await record(other, "next")
        if contents in ("a record", "values", "a close"):
            await record(run, "next")
        assert len(await bench.rows("SELECT 1 FROM dbosflow.step WHERE key = 'next'")) == len(
            {"w", "other"} if run.ending is False else {"other"}
        )


@pytest.mark.parametrize("contents", CONTENTS)
async def test_a_batch_that_arrives_after_the_witness_was_asked_is_found_at_the_second_sending(
    database_url: str, contents: str
) -> None:
    """Its copy is answered as if the run were lost or its stream had moved; neither is so."""
    async with Bench(database_url) as bench:
        run = await bench.run("w")
        await bench.forget()

        async def arrive_first(send: Any) -> Any:
            assert (await write_batch(bench.database, bench.sent[0], bench.lease.id, "dbosflow")).written
            return await send()

        bench.faults += [before_sending(psycopg.OperationalError("lost")), arrive_first]
        CONTENTS[contents](run)
        await bench.journal.flush()
        assert len(bench.sent) == 2
        assert run.stopping is None
        assert bench.events == ([("ended", "w", "succeeded")] if run.ending else [])
        if not run.ending:
            await record(run, "next")


async def test_an_answer_is_lost_together_with_its_connection(database_url: str) -> None:
    """The witness is asked over a new one, as soon as there is one again."""
    async with Bench(database_url) as bench:
        run = await bench.run("w")
        await bench.forget()
        connect, refusals = WorkerLease._connect, 3

        async def refuse(lease: WorkerLease) -> Any:
            nonlocal refusals
            refusals -= 1
            if refusals >= 0:
                raise DatabaseUnavailableError("refused")
            return await connect(lease)

        async def lose(send: Any) -> Any:
            await send()
            connection = await bench.lease.connection()
            await connection.close()
            raise psycopg.OperationalError("lost")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(WorkerLease, "_connect", refuse)
            bench.faults.append(lose)
            await record(run, "a")
        assert refusals < 0
        assert len(bench.sent) == 1
        assert await bench.records() == ["w:a"]


async def test_a_start_whose_answer_was_lost_is_read_again(database_url: str) -> None:
    """Whether it was the first is asked of its row: one that stood before belongs to somebody else."""
    async with Bench(database_url) as bench:
        run = await bench.run("w")
        await bench.rows("INSERT INTO dbosflow.workflow (id, name, status, input) VALUES ('old', '', 'queued', '{}')")
        await bench.forget()
        bench.faults.append(after_the_commit(psycopg.OperationalError("lost")))
        asked = [bench.start("old"), bench.start("new"), record(run, "a")]
        answers = await asyncio.gather(*asked)
        assert answers[:2] == [False, False], "the caller reads the rows, and finds whose they are"
        query = "SELECT id FROM dbosflow.workflow WHERE worker_id = %s ORDER BY id"
        assert await bench.rows(query, bench.lease.id) == [("new",), ("w",)]


@workflow
async def unheard_child(number: int) -> int:
    return number


@workflow
async def unheard_by_call() -> int:
    return await unheard_child(7)


@workflow
async def unheard_by_start() -> int:
    handle = await unheard_child.start_async(7)
    return await handle.result_async()


@workflow
def unheard_by_call_on_thread() -> int:
    return unheard_child.run(7)


@pytest.mark.parametrize("parent", [unheard_by_call, unheard_by_start, unheard_by_call_on_thread], ids=str)
async def test_a_child_whose_start_was_not_acknowledged_runs_at_once(
    database_url: str, parent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its parent asks for the row, and finds whose it is; it does not wait for a poll that looks for forgotten runs."""
    lost: list[str] = []

    async def lose(connection: Any, rows: BatchRows, *rest: Any) -> Any:
        result = await write_batch(connection, rows, *rest)
        if rows.records and rows.starts and not lost:
            lost.append(rows.starts[0][0])
            raise psycopg.OperationalError("lost")
        return result

    monkeypatch.setattr(committer, "write_batch", lose)
    async with Engine(database_url, safety_poll=600.0) as engine:
        handle = await engine.start_async(parent.options(workflow_id="w"))
        assert await handle.result_async(30) == 7
        assert lost == ["w/unheard_child#0"]


async def test_a_late_copy_of_a_batch_does_nothing(database_url: str) -> None:
    """It comes after its retry and after later batches, out of some buffer."""
    async with Bench(database_url) as bench:
        run = await bench.run("w")
        await bench.forget()
        bench.faults.append(before_sending(psycopg.OperationalError("lost")))
        write(run, "1", "2")
        await record(run, "a")
        write(run, "3")
        await record(run, "b")
        tables = "dbosflow.step", "dbosflow.stream_block"
        before = [await bench.rows(f"SELECT * FROM {table}") for table in tables]
        assert len(bench.sent) == 3
        for rows in bench.sent:
            with pytest.raises(psycopg.errors.UniqueViolation):
                await _send_copy(bench, rows)
        assert before == [await bench.rows(f"SELECT * FROM {table}") for table in tables]


async def _send_copy(bench: Bench, rows: BatchRows) -> None:
    """Whichever way a copy is refused."""
    if not (await write_batch(bench.database, rows, bench.lease.id, "dbosflow")).written:
        raise psycopg.errors.UniqueViolation


@pytest.mark.parametrize(
    "bad", ["[1,", "NaN", '"\x00"', '"\ud800"', "[" * 100_000], ids=["cut off", "NaN", "NUL", "surrogate", "too deep"]
)
async def test_one_runs_bad_data_is_its_own_misfortune(database_url: str, bad: str) -> None:
    """The batch is tried slice by slice: that run fails with an error that says so, the others' records are written."""
    async with Bench(database_url) as bench:
        runs = [await bench.run(f"w{number}") for number in range(5)]
        await bench.forget()
        waiters = [record(run, "a", bad if number == 2 else "1") for number, run in enumerate(runs)]
        write(runs[2], "1")
        started = bench.start("new")
        results = await asyncio.gather(*waiters, return_exceptions=True)
        assert [type(result) for result in results] == [type(None)] * 2 + [RunStopped] + [type(None)] * 2
        assert await started is True
        await bench.journal.flush()
        assert bench.events == [("ended", "w2", "failed")]
        assert await bench.records() == ["w0:a", "w1:a", "w3:a", "w4:a"]
        ((status, error),) = await bench.rows("SELECT status, error FROM dbosflow.workflow WHERE id = 'w2'")
        assert (status, error["type"]) == ("failed", "SerializationError")
        query = "SELECT kind, \"offset\" FROM dbosflow.stream_block WHERE workflow_id = 'w2'"
        assert await bench.rows(query) == [("error", 0)]


async def test_a_start_with_bad_data_fails_alone(database_url: str) -> None:
    """The others start."""
    async with Bench(database_url) as bench:
        asked = [bench.start("good"), bench.start("bad", "[1,"), bench.start("also good")]
        good, bad, also_good = await asyncio.gather(*asked)
        assert (good, also_good) == (True, True)
        assert isinstance(bad, SerializationError)


async def test_a_foreign_row_makes_its_run_reload_and_nobody_stop(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A unique key is never how a lease is lost. It is reported as the bug that it must be."""
    async with Bench(database_url) as bench:
        run, other = await bench.run("w"), await bench.run("other")
        await bench.forget()
        await bench.rows(
            """INSERT INTO dbosflow.step (workflow_id, key, kind, epoch, seq, turn, started_at)
                   VALUES ('w', 'a', 'step', 0, 0, 0, now())"""
        )
        results = await asyncio.gather(record(run, "a"), record(other, "a"), return_exceptions=True)
        assert isinstance(results[0], RunStopped)
        assert results[1] is None
        assert bench.events == [("moved", "w")]
        assert await bench.records() == ["other:a", "w:a"]
    assert "please report it" in caplog.text
