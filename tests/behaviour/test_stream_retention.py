"""What is trimmed or pruned is gone for good, and each reader of it gets an error."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, Stream, for_each_async, read_input_async, step, workflow, write_stream_async
from dbosflow.errors import (
    ConfigurationError,
    StreamNotFoundError,
    StreamTruncatedError,
    WorkflowNotFoundError,
)
from tests.behaviour.gate import Gate
from tests.behaviour.tables import disorder, rows
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 60.0
ONE_A_BLOCK: dict[str, Any] = {"block_values": 1}
gates: dict[str, Gate] = {}


@pytest.fixture(autouse=True)
def _gates() -> Iterator[None]:
    gates.update(w=Gate(), other=Gate())
    yield
    gates.clear()


@step
async def wait_at_the_gate(which: str) -> None:
    await gates[which].passed()


@step
async def write_and_wait(which: str) -> None:
    await write_stream_async("k", "uncommitted")
    await gates[which].passed()


@workflow
async def ten_then_wait() -> str:
    """Ten values, a pause, five more."""
    for number in range(10):
        await write_stream_async("k", number)
    await wait_at_the_gate("w")
    for number in range(10, 15):
        await write_stream_async("k", number)
    return "done"


@workflow
async def uncommitted_then_more() -> None:
    """A value of the body, one of an attempt under way; then another of the body."""
    await write_stream_async("k", "first")
    await write_and_wait("w")
    await write_stream_async("k", "last")


def read(engine: Engine, count: int, **options: Any) -> list[Any]:
    reader = engine.read_stream("w", "k", timeout=PATIENCE, **options)
    return [next(reader) for _ in range(count)]


def test_a_reader_of_what_was_trimmed_is_told_where_to_begin(database_url: str) -> None:
    """In every view, from every place before; one that begins there misses nothing, and offsets are what they were."""
    with Engine(database_url, **ONE_A_BLOCK) as engine:
        engine.start(ten_then_wait.options(workflow_id="w"))
        read(engine, 10)
        assert engine.streams.trim("w", "k", before=4) == 4
        for view in ("live", "committed", "raw"):
            for start in range(4):
                with pytest.raises(StreamTruncatedError) as caught:
                    read(engine, 1, start=start, view=view)
                assert caught.value.first_available == 4
            assert read(engine, 6, start=4, view=view) == [4, 5, 6, 7, 8, 9]
        assert read(engine, 6, start=-100) == [4, 5, 6, 7, 8, 9]
        info = engine.streams.info("w", "k")
        assert (info.first, info.tail, info.values) == (4, 10, 6)
        gates["w"].open()
        assert engine.handle("w").result(PATIENCE) == "done"
        assert engine.read_stream("w", "k", start=4).read_all() == (list(range(4, 15)), True)


def test_a_workflow_whose_stream_was_trimmed_is_replayed(database_url: str) -> None:
    """It writes nothing again of what is gone, nor of what is there; trims add up."""
    with Engine(database_url, grace=0, **ONE_A_BLOCK) as engine:
        engine.start(ten_then_wait.options(workflow_id="w"))
        read(engine, 10)
        assert [engine.streams.trim("w", "k", before=before) for before in (3, 2, 8)] == [3, 3, 8]
    with Engine(database_url, stream_values=15, **ONE_A_BLOCK) as engine:
        gates["w"].open()
        assert engine.handle("w").result(PATIENCE) == "done"
        assert engine.read_stream("w", "k", start=8).read_all() == (list(range(8, 15)), True)
        assert rows(database_url, "SELECT max(epoch) > 1 FROM dbosflow.workflow") == [(True,)]


def test_trimming_removes_whole_blocks_and_keeps_the_newest(database_url: str) -> None:
    """So the tail is known, and the end is: trimming everything leaves the last block."""
    with Engine(database_url) as engine:
        gates["w"].open()
        engine.start(ten_then_wait.options(workflow_id="w")).result(PATIENCE)
        (first, second) = (
            offset for (offset,) in rows(database_url, 'SELECT "offset" FROM dbosflow.stream_block WHERE count > 1')
        )
        assert engine.streams.trim("w", "k", before=second - 1) == first
        assert engine.streams.trim("w", "k", before=10**30) == 15
        reader = engine.read_stream("w", "k", start=15)
        assert reader.read_all() == ([], True)


def test_uncommitted_values_are_not_trimmed(database_url: str) -> None:
    """With all behind it; once it is committed it may go."""
    with Engine(database_url, **ONE_A_BLOCK) as engine:
        engine.start(uncommitted_then_more.options(workflow_id="w"))
        read(engine, 2)
        assert engine.streams.trim("w", "k", before=100) == 1
        gates["w"].open()
        engine.handle("w").result(PATIENCE)
        assert engine.streams.trim("w", "k", before=2) == 2
        assert engine.read_stream("w", "k", start=2).read_all() == (["last"], True)


@workflow
async def asks_what_it_wrote() -> str:
    writer = Stream[int, None]("k").writer()
    await writer.write_many_async(range(3))
    await writer.flush_async()
    await wait_at_the_gate("w")
    try:
        return str(await writer.emitted_async())
    except StreamTruncatedError as error:
        return f"first is {error.first_available}"


def test_a_writer_is_told_that_its_values_are_gone(database_url: str) -> None:
    """``emitted`` never leaves some out silently."""
    with Engine(database_url, **ONE_A_BLOCK) as engine:
        handle = engine.start(asks_what_it_wrote.options(workflow_id="w"))
        read(engine, 3)
        engine.streams.trim("w", "k", before=2)
        gates["w"].open()
        assert handle.result(PATIENCE) == "first is 2"


@workflow(inputs=["work"])
async def ten_items() -> int:
    """Handles ten items, waits, and handles what comes then."""
    done = await for_each_async(read_input_async("work", until=10), passed)
    await wait_at_the_gate("w")
    return done.count + (await for_each_async(read_input_async("work", start=10), passed)).count


def passed(value: Any) -> Any:
    return value


def test_a_key_whose_value_was_trimmed_still_writes_once(database_url: str) -> None:
    """A writer that crashed after its write, and begins again when the value is gone: it gets the same offset."""
    with Engine(database_url) as engine:
        handle = engine.start(ten_items.options(workflow_id="w"))
        for number in range(10):
            assert engine.write_stream("w", "work", number, idempotency_key=f"k{number}") == number
        eventually(lambda: len([one for one in engine.list_steps("w") if one.kind == "step"]) == 10, timeout=PATIENCE)
        eventually(lambda: engine.streams.trim("w", "work", before=8) == 8)
        again = [engine.write_stream("w", "work", number, idempotency_key=f"k{number}") for number in (0, 7, 8, 10)]
        assert again == [0, 7, 8, 10]
        eventually(lambda: engine.streams.trim("w", "work", before=10) == 10)
        gates["w"].open()
        engine.close_stream("w", "work")
        assert handle.result(PATIENCE) == 11
        assert engine.write_stream("w", "work", 9, idempotency_key="k9") == 9
    assert disorder(database_url) == []


def test_a_trim_with_senseless_arguments_is_refused(engine: Engine) -> None:
    with pytest.raises(WorkflowNotFoundError):
        engine.streams.trim("nobody", "k", before=1)
    engine.run(childless.options(workflow_id="w"), "x")
    with pytest.raises(StreamNotFoundError):
        engine.streams.trim("w", "nothing", before=1)
    with pytest.raises(ConfigurationError, match="before=-1"):
        engine.streams.trim("w", "k", before=-1)


@workflow
async def childless(value: str) -> None:
    await write_stream_async("k", value)


@workflow
async def parent_of_pruned() -> None:
    await childless("x")
    await wait_at_the_gate("other")


TABLES = ("workflow", "step", "stream_block", "stream_trim")


def stored(url: str) -> dict[str, int]:
    return {table: rows(url, f"SELECT count(*) FROM dbosflow.{table}")[0][0] for table in TABLES}


def test_finished_workflows_are_pruned_by_age(database_url: str) -> None:
    """In batches, with all that is theirs; what is younger, and what runs, stays."""
    with Engine(database_url, **ONE_A_BLOCK) as engine:
        gates["w"].open()
        engine.start(ten_then_wait.options(workflow_id="w")).result(PATIENCE)
        engine.streams.trim("w", "k", before=5)
        for number in range(7):
            engine.run(childless.options(workflow_id=f"old {number}"), "x")
        assert engine.prune(older_than=timedelta(days=1)) == 0
        rows(
            database_url,
            """UPDATE dbosflow.workflow
               SET created_at = created_at - interval '3 days', ended_at = ended_at - interval '2 days'
               RETURNING id""",
        )
        engine.run(childless.options(workflow_id="young"), "x")
        assert engine.prune(older_than=timedelta(days=2.5)) == 0
        assert engine.prune(older_than=timedelta(days=1), batch=3) == 8
        assert [info.id for info in engine.list_workflows()] == ["young"]
        assert stored(database_url) == {"workflow": 1, "step": 0, "stream_block": 2, "stream_trim": 0}
        with pytest.raises(WorkflowNotFoundError):
            engine.read_stream("w", "k").read_all()


def test_a_finished_child_is_not_pruned_while_its_parent_runs(database_url: str) -> None:
    """The parent may be replayed, and ask for it."""
    with Engine(database_url) as engine:
        parent = engine.start(parent_of_pruned.options(workflow_id="w"))
        ended = "SELECT id FROM dbosflow.workflow WHERE parent_id = 'w' AND status = 'succeeded'"
        eventually(lambda: bool(rows(database_url, ended)), timeout=PATIENCE)
        assert engine.prune(older_than=0) == 0
        gates["other"].open()
        parent.result(PATIENCE)
        eventually(lambda: engine.prune(older_than=0, dry_run=True) == 2)  # somebody may have an older snapshot
        assert engine.prune(older_than=0) == 2


@pytest.mark.parametrize("wrong", [{"older_than": -1}, {"older_than": 1, "batch": 0}], ids=str)
def test_a_senseless_prune_is_refused(engine: Engine, wrong: Any) -> None:
    with pytest.raises(ConfigurationError):
        engine.prune(**wrong)
