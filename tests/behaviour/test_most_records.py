"""How many records a workflow may have over all its iterations: the columns that count them have 32 bits."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest

from dbosflow import Engine, WorkflowStatus, continue_as_new, recv_async, step, workflow, write_stream_async
from dbosflow.errors import SerializationError
from tests.support import eventually

LAST = 2**31 - 1
PATIENCE = 60.0


@step
async def counted(number: int) -> int:
    return number


@workflow(name="most records")
async def counting() -> int:
    await counted(0)
    await recv_async(type=str)
    for number in range(3):
        await write_stream_async("numbers", number)
        await counted(number)
    return 3


@workflow(name="most records, endless")
async def endless(number: int = 0) -> int:
    await recv_async(type=str)
    await write_stream_async("numbers", number)
    return continue_as_new(number + 1)


def at_the_border(url: str, workflow_id: str, left: int) -> None:
    """As if the newest record of the workflow had so many places behind it."""
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute(
            "UPDATE dbosflow.step SET seq = %(last)s, turn = %(last)s WHERE (workflow_id, seq) IN ("
            "  SELECT workflow_id, max(seq) FROM dbosflow.step WHERE workflow_id = %(id)s GROUP BY workflow_id)",
            {"last": LAST - left, "id": workflow_id},
        )


@pytest.mark.parametrize("left", [0, 1, 2, 3])
def test_a_workflow_that_has_as_many_records_as_there_may_be_fails(database_url: str, left: int) -> None:
    """With an error that says so; what is on record stays, and its streams end with that error."""
    with Engine(database_url, grace=0) as engine:
        engine.start(counting.options(workflow_id="w"))
        eventually(lambda: len(engine.list_steps("w")) == 1)
    at_the_border(database_url, "w", left)
    with Engine(database_url) as engine:
        engine.send("w", "go")
        with pytest.raises(SerializationError, match=r"2,147,483,648 records"):
            engine.handle("w").result(timeout=PATIENCE)
        assert engine.handle("w").status() is WorkflowStatus.FAILED
        assert len(engine.list_steps("w")) == 1 + left
        values, closed = engine.read_stream("w", "numbers").read_all()
        assert (values, closed) == (list(range(left - 1)), True)


@pytest.mark.parametrize("left", [0, 1, 2])
def test_the_records_of_all_iterations_count(database_url: str, left: int) -> None:
    """That of the message, or of the next iteration, or of its message has no place any more."""
    with Engine(database_url, grace=0) as engine:
        engine.start(endless.options(workflow_id="w"))
        engine.send("w", "go")
        eventually(lambda: engine.workflows.get("w").iteration == 1)
    at_the_border(database_url, "w", left)
    with Engine(database_url) as engine:
        for _ in range(2):
            engine.send("w", "go")
        with pytest.raises(SerializationError, match=r"2,147,483,648 records"):
            engine.handle("w").result(timeout=PATIENCE)
        assert engine.workflows.get("w").iteration == (2 if left == 2 else 1)
