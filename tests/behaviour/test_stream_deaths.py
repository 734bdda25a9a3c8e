"""A process that dies anywhere in a step that streams leaves the same committed stream."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dbosflow import Engine, workflow, write_stream_async
from tests.behaviour import ledger
from tests.behaviour.programs.emitting import emitting
from tests.behaviour.tables import disorder

if TYPE_CHECKING:
    from tests.behaviour.conftest import StartProgram

PATIENCE = 60.0
PLACES = (0, 3, 5, 6, 9, 12, 99)
"""Values before which its process dies; the last place is never reached."""
CONTENT = ["first", *range(8), "last"]


def test_a_death_anywhere_in_a_step_leaves_the_same_stream(
    database_url: str, start_program: StartProgram, client: Engine
) -> None:
    """Five values, a failure, eight values: killed before, among and after each, and in neither."""
    handles = [client.start(emitting.options(workflow_id=f"w{deadly}", queue="q"), deadly) for deadly in PLACES]
    options: dict[str, Any] = {"module": "emitting", "queues": ["q"], "concurrency": 3}
    worker, deadline = start_program("worker", **options), time.monotonic() + PATIENCE
    while not all(handle.status().ended for handle in handles):
        assert time.monotonic() < deadline
        if not worker.running:
            worker = start_program("worker", **options)
    assert sum(what[1] == "died" for what in ledger.noted()) == len(PLACES) - 1
    for handle in handles:
        assert handle.result(PATIENCE) == "done"
        assert client.read_stream(handle.workflow_id, "k").read_all() == (CONTENT, True)
        assert client.read_stream(handle.workflow_id, "k", view="committed").read_all() == (CONTENT, True)
    raw = [client.read_stream(handle.workflow_id, "k", view="raw").items() for handle in handles]
    assert any(item.rollback is not None for items in raw for item in items)
    assert disorder(database_url) == []


@workflow
async def unread(count: int) -> int:
    for number in range(count):
        await write_stream_async("k", number)
    return count


def test_readers_that_do_not_read_hold_nobody_up(engine: Engine) -> None:
    """A writer never waits for a reader, and two readers of one stream have a place each."""
    with engine.read_stream("w", "k", wait_for=PATIENCE) as one, engine.read_stream("w", "k", wait_for=PATIENCE) as two:
        handle = engine.start(unread.options(workflow_id="w"), 2000)
        assert next(one) == 0
        assert handle.result(PATIENCE) == 2000
        assert list(one) == list(range(1, 2000))
        assert list(two) == list(range(2000))
