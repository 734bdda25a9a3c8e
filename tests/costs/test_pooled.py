"""What an engine says behind a pooler in transaction mode: nothing that a later statement needs its session for."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import psycopg

from dbosflow import Engine, step, workflow, write_stream_async
from dbosflow._store.notify import can_notify, notify
from tests.support import TIMEOUT, eventually_async

if TYPE_CHECKING:
    from tests.costs.wire import Session, Wire

OFTEN = 12
"""More than the five times after which psycopg prepares a statement."""


def prepared_by(sessions: list[Session]) -> set[str]:
    """The names of what these sessions prepared."""
    return {name for session in sessions for name in session.prepared_names}


@step
async def doubled(number: int) -> int:
    """A step."""
    return 2 * number


@workflow(name="costs_pooled_counting")
async def counting(count: int) -> int:
    """Steps, with a value after each."""
    total = 0
    for number in range(count):
        total += await doubled(number)
        await write_stream_async("totals", total)
    return total


async def test_the_look_for_a_pooler_prepares_nothing(line: Wire) -> None:
    """It goes through that pooler, too, and the next engine meets what it leaves in the session."""
    async with Engine(line.url, executes=False):
        first, second, *_ = line.sessions
        said = [one.statement for one in line.messages if one.session in {first, second} and one.kind == "execute"]
        assert said == ["session.settings", "LISTEN", "notify.notify_behind"]
        assert prepared_by([first, second]) == set()


async def test_a_session_that_was_looked_at_hears_no_hint(database_url: str) -> None:
    """Behind a pooler it goes on listening, for the client that gets it next."""
    connect = partial(psycopg.AsyncConnection.connect, database_url, autocommit=True, prepare_threshold=None)
    async with await connect() as one, await connect() as other:
        assert await can_notify(one, other, "dbosflow", patience=TIMEOUT)
        await one.execute("LISTEN afterwards")
        await notify(other, "dbosflow", ["a hint"])
        await other.execute("NOTIFY afterwards")
        assert (await anext(one.notifies(timeout=TIMEOUT))).channel == "afterwards"


async def test_a_pooled_engine_prepares_nothing_and_does_not_listen(line: Wire) -> None:
    """Whatever it says often: batches, hints, reads, renewals, claims, surveys."""
    async with Engine(line.url, pooled=True, lease=1.0) as engine:
        handles = [await engine.start_async(counting, 3) for _ in range(OFTEN)]
        for handle in handles:
            assert [item async for item in engine.read_stream_async(handle.workflow_id, "totals")][-1].closed
            assert (await handle.status_async()).ended
        await eventually_async(lambda: sum(one.statement == "worker.renew" for one in line.messages) > OFTEN)
    assert prepared_by(line.sessions) == set()
    assert not any("LISTEN" in one.statement for one in line.messages)
