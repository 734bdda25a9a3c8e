"""Group commit with output-commit order: how many statements there are, and what may go before what."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, step, workflow, write_stream_async
from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.journal import committer as committer_module
from dbosflow._runtime.journal import journal as journal_module
from dbosflow._runtime.runs.opening import Opening
from dbosflow._store.batch import write_batch
from dbosflow._store.batch_rows import shape_of
from dbosflow.errors import LeaseLostError
from tests.runtime.bench import Bench, before_sending, end, record, sqlstate, write
from tests.support import TIMEOUT, eventually_async

if TYPE_CHECKING:
    from dbosflow._runtime.execution.run import Run
    from dbosflow._store.batch import BatchResult
    from dbosflow._store.batch_rows import BatchRows
    from tests.runtime.bench import Send

MANY = journal_module._MANY


@step
async def work(number: int) -> int:
    return number


@workflow
async def one_step(number: int) -> int:
    return await work(number)


@workflow
async def steps_in_a_row(count: int) -> int:
    return sum([await work(number) for number in range(count)])


@workflow
async def gathered_steps(count: int) -> int:
    return sum(await asyncio.gather(*(work(number) for number in range(count))))


@workflow
async def writer(count: int) -> None:
    for number in range(count):
        await write_stream_async("out", number)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[BatchRows]:
    """The batches that an engine sends."""
    batches: list[BatchRows] = []

    async def send(connection: Any, rows: BatchRows, *rest: Any) -> BatchResult:
        batches.append(rows)
        return await write_batch(connection, rows, *rest)

    monkeypatch.setattr(committer_module, "write_batch", send)
    return batches


def test_a_lone_step_is_one_statement(database_url: str, sent: list[BatchRows]) -> None:
    """One for the start, one for each step, one for the end; there is nothing to wait for."""
    with Engine(database_url) as engine:
        engine.run(steps_in_a_row, 5)
    assert [shape_of(rows.tables()) for rows in sent] == [("starts",), *[("runs", "records")] * 5, ("runs", "ends")]


async def test_a_hundred_workflows_share_a_handful_of_statements(database_url: str, sent: list[BatchRows]) -> None:
    """While one is under way the next gathers."""
    async with Engine(database_url) as engine:
        results = await asyncio.gather(*(engine.run_async(one_step, number) for number in range(100)))
        assert results == list(range(100))
    assert len(sent) < 20


def test_the_branches_of_one_workflow_share_statements_too(database_url: str, sent: list[BatchRows]) -> None:
    """A hundred steps of a gather, and none of them twice."""
    with Engine(database_url) as engine:
        assert engine.run(gathered_steps, 100) == 4950
    assert len(sent) < 10
    assert sum(len(rows.records) for rows in sent) == 100


def test_fast_stream_values_share_blocks_and_statements(database_url: str, sent: list[BatchRows]) -> None:
    """Rows grow with statements, not with values."""
    with Engine(database_url) as engine:
        engine.run(writer, 2000)
        blocks = [block for rows in sent for block in rows.blocks]
        assert sum(block.value_count for block in blocks) == 2001
        assert len(blocks) < 200


async def test_a_workflows_first_record_never_travels_with_its_start(database_url: str, sent: list[BatchRows]) -> None:
    """Parts of a statement do not see each other: the record would be dropped."""
    async with Engine(database_url) as engine:
        await asyncio.gather(*(engine.run_async(one_step, number) for number in range(50)))
    for rows in sent:
        started, running = ({workflow_id for workflow_id, *_ in some} for some in (rows.starts, rows.runs))
        assert not started & running
        assert len(running) == len(rows.runs) >= len(rows.ends)


async def test_what_was_written_before_a_record_is_durable_with_it_or_before(database_url: str) -> None:
    """A value that is seen without the step before it would be an effect without its cause; and the other way round."""
    async with Bench(database_url) as bench:
        run = await bench.run("w")
        for number in range(20):
            write(run, str(number))
            await record(run, str(number))
            assert await bench.rows("SELECT sum(count) FROM dbosflow.stream_block") == [(number + 1,)]


async def test_a_large_batch_is_delivered_while_the_next_is_under_way(database_url: str) -> None:
    """Not before the next is sent, and not only after it."""
    async with Bench(database_url) as bench:
        runs = [await bench.run(f"w{number}") for number in range(2 * MANY)]
        at_sending: list[bool] = []
        meanwhile: list[bool] = []

        async def while_the_first_is_under_way(send: Send) -> BatchResult:
            late.extend(record(run, "late") for run in runs[MANY:])
            return await send()

        async def while_the_second_is_under_way(send: Send) -> BatchResult:
            at_sending.extend(waiter.done() for waiter in early)
            with suppress(AssertionError):  # it would go to the journal
                await eventually_async(lambda: all(waiter.done() for waiter in early))
            meanwhile.extend(waiter.done() for waiter in early)
            return await send()

        bench.faults.extend([while_the_first_is_under_way, while_the_second_is_under_way])
        late: list[asyncio.Future[None]] = []
        early = [record(run, "early") for run in runs[:MANY]]
        await asyncio.gather(*early)
        await asyncio.gather(*late)
        assert at_sending == [False] * MANY
        assert meanwhile == [True] * MANY


async def test_one_half_of_a_large_batch_is_delivered_while_the_others_next_records_are_under_way(
    database_url: str,
) -> None:
    """If nothing else is pending. From there on the halves take turns, and neither loop nor server waits."""
    async with Bench(database_url) as bench:
        runs = [await bench.run(f"w{number}") for number in range(MANY)]
        await bench.forget()

        async def steps(run: Run) -> None:
            for key in ("a", "b", "c"):
                await record(run, key)

        await asyncio.gather(*map(steps, runs))
        assert [len(rows.records) for rows in bench.sent] == [MANY, *[MANY // 2] * 4]


async def test_a_runs_next_records_wait_until_its_durable_ones_are_delivered(database_url: str) -> None:
    """Its numbers are given by then."""
    async with Bench(database_url) as bench:
        runs = [await bench.run(f"w{number}") for number in range(MANY + 1)]
        await bench.forget()

        async def more_is_written(send: Send) -> BatchResult:
            late.extend(record(run, "late") for run in runs)
            return await send()

        bench.faults.append(more_is_written)
        late: list[asyncio.Future[None]] = []
        early = [record(run, "early") for run in runs[:MANY]]
        await asyncio.gather(*early)
        await asyncio.gather(*late)
        assert [len(rows.records) for rows in bench.sent] == [MANY, 1, MANY]
        written = await bench.rows("SELECT key, seq FROM dbosflow.step WHERE workflow_id = 'w0' ORDER BY seq")
        assert written == [("early", 0), ("late", 1)]


async def test_whoever_gets_the_journals_connection_finds_all_durable_records_delivered(database_url: str) -> None:
    """Or a claim would take a start that is durable, and about to be run, for one that nobody runs."""
    async with Bench(database_url) as bench:

        async def use_the_connection() -> list[bool]:
            async with bench.journal.connection():
                return [one.done() for one in started]

        async def somebody_waits_for_the_connection(send: Send) -> BatchResult:
            using.append(asyncio.create_task(use_the_connection()))
            return await send()

        bench.faults.append(somebody_waits_for_the_connection)
        using: list[asyncio.Task[list[bool]]] = []
        started = [bench.start(f"w{number}") for number in range(MANY)]
        await asyncio.gather(*started)
        assert await using[0] == [True] * MANY


async def test_a_batch_has_a_limit_and_order_is_kept_across_it(database_url: str) -> None:
    """What does not fit goes with the next ones: each run's entries in their order, nobody forgotten."""
    async with Bench(database_url, batch_bytes=2000) as bench:
        runs = [await bench.run(f"w{number}") for number in range(4)]
        await bench.forget()
        for number in range(20):
            for run in runs:
                write(run, str(number), key=f"stream {number % 3}")
                run.append(_record(str(number)))
        for run in runs:
            end(run)
        await bench.journal.flush()
        assert len(bench.sent) > 5
        assert len(bench.events) == len(runs)
        for run in runs:
            rows = await bench.rows(
                "SELECT key FROM dbosflow.step WHERE workflow_id = %s ORDER BY seq", run.workflow_id
            )
            assert rows == [(str(number),) for number in range(20)]
            values = await bench.rows(
                'SELECT value::text FROM dbosflow.stream_value WHERE workflow_id = %s ORDER BY key, "offset"',
                run.workflow_id,
            )
            assert [int(value) for (value,) in values] == [number for key in range(3) for number in range(key, 20, 3)]


async def test_the_starts_of_a_batch_have_its_limit_too(database_url: str) -> None:
    """One at least goes with each batch."""
    async with Bench(database_url, batch_bytes=2000) as bench:
        await asyncio.gather(*(bench.start(f"w{number}", f'{{"text":"{"x" * 1000}"}}') for number in range(6)))
        assert [len(rows.starts) for rows in bench.sent] == [2, 2, 2]
        bench.sent.clear()
        await asyncio.gather(*(bench.start(f"v{number}", f'{{"text":"{"x" * 3000}"}}') for number in range(3)))
        assert [len(rows.starts) for rows in bench.sent] == [1, 1, 1]


async def test_records_go_before_starts_in_a_batch_and_do_not_keep_them_out(database_url: str) -> None:
    """Or all that was ever started would be under way at once, in memory, and nothing of it would end."""
    most, least_starts = journal_module._MOST_SLICES, journal_module._LEAST_STARTS

    async with Bench(database_url) as bench:
        runs = await asyncio.gather(*(bench.run(f"w{number}") for number in range(most)))
        await bench.forget()
        started = [bench.start(f"v{number}") for number in range(most)]
        await asyncio.gather(*(record(run, "a") for run in runs))
        assert (len(bench.sent[0].records), len(bench.sent[0].starts)) == (most - least_starts, least_starts)
        await asyncio.gather(*started)


def _record(key: str) -> Any:
    from dbosflow._runtime.runs.entries import Record

    return Record(key, RecordKind.STEP, output="1")


async def test_seq_and_turn_count_a_workflows_records_and_commits(database_url: str) -> None:
    """Given when a batch is built, and only to what was durable: a batch that failed leaves no number out."""
    async with Bench(database_url) as bench:
        run = await bench.run("w")
        await asyncio.gather(record(run, "a"), record(run, "b"))
        write(run, "1")
        await bench.journal.flush()
        bench.faults.append(before_sending(sqlstate("40001")))
        await asyncio.gather(record(run, "c"), record(run, "d"))
        rows = await bench.rows("SELECT key, seq, turn FROM dbosflow.step ORDER BY seq")
        assert rows == [("a", 0, 0), ("b", 1, 0), ("c", 2, 1), ("d", 3, 1)]


async def test_an_id_is_started_once_however_often_it_was_asked_for(database_url: str) -> None:
    """In one window, in the next, and by another worker: one gets the answer that it is new."""
    async with Bench(database_url) as bench, Bench(database_url) as other:
        asked = [each.start("w") for each in (bench, other) for _ in range(5)]
        answers = await asyncio.gather(*asked)
        answers.append(await bench.start("w"))
        assert answers.count(True) == 1
        assert answers.count(False) == 10


async def test_a_start_that_waits_while_the_journal_closes_fails(database_url: str) -> None:
    """Nobody is left to wait for a journal that has ended."""
    async with Bench(database_url) as bench:
        bench.faults += [before_sending(sqlstate("57P03"))] * 1000
        waiting = [bench.start("under way")]
        await eventually_async(lambda: bench.sent)
        waiting.append(bench.start("pending"))
        await bench.journal.close()
        bench.journal.fail_pending()
        assert [type(answer) for answer in await asyncio.gather(*waiting)] == [LeaseLostError] * 2


@pytest.mark.parametrize("why", ["opening", "stopped"])
async def test_runs_with_nothing_to_write_yet_hide_none_behind_them(
    database_url: str, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """However many: a round of children whose bodies ended before their rows waits for their parent's records."""
    monkeypatch.setattr(journal_module, "_MOST_SLICES", 4)
    monkeypatch.setattr(journal_module, "_LEAST_STARTS", 1)
    async with Bench(database_url) as bench:
        *others, parent = [await bench.run(f"w{number}") for number in range(9)]
        for other in others:
            if why == "opening":
                other.opening = Opening(lambda _ending, _whole: None)
            write(other, "1")
        durable = record(parent, "step#0")
        if why == "stopped":
            for other in others:
                other.stop("another process has it")
        async with asyncio.timeout(TIMEOUT):
            await durable
