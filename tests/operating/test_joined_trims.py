"""What is left of received messages whose senders gave no key: a row each for a day, then one row for all of them."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import psycopg
import pytest

from dbosflow import Engine, workflow
from dbosflow._records import producers
from dbosflow._store import message, retention
from dbosflow._store import workflow as store
from dbosflow._store.migrate import migrate
from dbosflow.errors import DatabaseUnavailableError, StreamTruncatedError
from dbosflow.messages import Message
from tests.behaviour.programs.messaging import receiving
from tests.behaviour.tables import disorder, rows
from tests.support import eventually

INBOX = "dbosflow/inbox/"
MESSAGES = 20
"""Without a key."""
YESTERDAY = """
    UPDATE dbosflow.stream_trim
    SET trimmed_at = now() - interval '25 hours',
        producer = regexp_replace(producer, '^w:........-....', 'w:00000000-0000')
    WHERE workflow_id = 'w' AND "offset" < %s AND producer <> 'w:' RETURNING 1"""


@pytest.fixture(autouse=True)
def _each_trim_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "JOINING", 1.0)


async def trim(url: str, before: int = 1000) -> None:
    """Removes what was received, as an engine does it."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await retention.trim(connection, "dbosflow", "w", INBOX, before)


def trims(url: str, workflow_id: str = "w") -> dict[str, tuple[int, ...]]:
    """Values, bytes, offset and turn of each row that is left of messages, by the beginning of the producer's name."""
    found = rows(
        url,
        """SELECT CASE WHEN starts_with(producer, 'w:') AND producer > 'w:' THEN 'w:' || "offset" ELSE producer END,
                  count, bytes, "offset", turn
           FROM dbosflow.stream_trim WHERE workflow_id = %s ORDER BY "offset", producer""",
        workflow_id,
    )
    assert len(dict.fromkeys(row[0] for row in found)) == len(found)
    return {name: tuple(numbers) for name, *numbers in found}


def received(engine: Engine) -> None:
    """Has a workflow receive messages, every tenth with a key, and removes all but the last one, in two parts."""
    engine.start(receiving.options(workflow_id="w"), MESSAGES + 4)
    for number in range(MESSAGES):
        engine.send("w", number)
        if number % 10 == 9:
            engine.send("w", "keyed", idempotency_key=f"key {number}")
            eventually(lambda: len(engine.list_steps("w")) == engine.streams.info("w", INBOX).tail)
            asyncio.run(trim(engine.database_url))
    engine.send("w", "newest")
    eventually(lambda: len(engine.list_steps("w")) == MESSAGES + 3)
    asyncio.run(trim(engine.database_url))


def sums(found: dict[str, tuple[int, ...]]) -> tuple[int, int]:
    """All values and bytes."""
    return sum(row[0] for row in found.values()), sum(row[1] for row in found.values())


def test_a_day_later_they_are_one_row_and_those_of_keys_stay(engine: Engine) -> None:
    url = engine.database_url
    received(engine)
    before = trims(url)
    assert len(before) == MESSAGES + 2
    for hours in (0, 23):  # by the server's clock; the names may say what they like
        rows(url, YESTERDAY.replace("25 hours", f"{hours} hours"), 15)
        asyncio.run(trim(url))
        assert trims(url) == before
    assert len(rows(url, YESTERDAY, 15)) == 15
    asyncio.run(trim(url))
    once = trims(url)
    names = ["w:", "k:key 9", *(f"w:{offset}" for offset in range(15, 21)), "k:key 19"]
    assert sorted(once) == sorted(names)
    assert (once["w:"][0], once["w:"][2]) == (14, 0)
    assert sums(once) == sums(before)
    rows(url, YESTERDAY, 100)
    asyncio.run(trim(url))
    assert sorted(trims(url)) == ["k:key 19", "k:key 9", "w:"]
    assert sums(trims(url)) == sums(before)
    assert engine.send("w", "keyed", idempotency_key="key 9") == 10
    assert engine.send("w", "next") == 23
    engine.handle("w").result(timeout=60)
    assert disorder(url) == []
    assert engine.prune(older_than=0) == 1
    assert rows(url, "SELECT FROM dbosflow.stream_trim") == []


async def test_two_trims_at_once_join_each_row_once(database_url: str) -> None:
    async with Engine(database_url) as engine:
        await asyncio.to_thread(received, engine)
        before = sums(trims(database_url))
        rows(database_url, YESTERDAY, 1000)
        await asyncio.gather(*(trim(database_url) for _ in range(8)))
        await trim(database_url)
        assert sorted(trims(database_url)) == ["k:key 19", "k:key 9", "w:"]
        assert sums(trims(database_url)) == before


async def test_a_joined_row_waits_for_a_trim_that_is_under_way_and_adds_to_it(database_url: str) -> None:
    """The other one has joined some, and is not committed: its rows are passed over, its sums are there."""
    async with Engine(database_url) as engine:
        await asyncio.to_thread(received, engine)
        before = sums(trims(database_url))
        rows(database_url, YESTERDAY, 10)
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        async with await psycopg.AsyncConnection.connect(database_url) as slow:
            async with slow.transaction():
                await retention.trim(slow, "dbosflow", "w", INBOX, 1000)
                rows(database_url, YESTERDAY.replace("< %s", ">= %s"), 10)
                other = asyncio.create_task(trim(database_url))
                await asyncio.to_thread(eventually, lambda: rows(database_url, waiting))
            await other
        assert sorted(trims(database_url)) == ["k:key 19", "k:key 9", "w:"]
        assert sums(trims(database_url)) == before


def test_forks_go_as_far_back_as_before_and_take_the_row_along(engine: Engine) -> None:
    received(engine)
    url = engine.database_url
    turns = {name: row[3] for name, row in trims(url).items()}
    assert len(set(turns.values())) > 1
    rows(url, YESTERDAY, 1000)
    asyncio.run(trim(url))
    joined, turn = trims(url), max(turns.values())
    assert joined["w:"][3] == max(found for name, found in turns.items() if name.startswith("w:"))
    with pytest.raises(StreamTruncatedError):
        engine.workflows.fork("w", from_turn=turn)
    fork = engine.workflows.fork("w", from_turn=turn + 1).handle
    assert trims(url, fork.workflow_id) == joined
    engine.send(fork.workflow_id, "other")
    assert fork.result(timeout=60)[-2:] == ["newest", "other"]
    assert disorder(url) == []


def test_they_move_with_their_workflow(database_url: str, empty_database_url: str) -> None:
    other_url, file = empty_database_url, io.StringIO()
    with Engine(database_url) as engine:
        received(engine)
        rows(database_url, YESTERDAY, 10)
        asyncio.run(trim(database_url))
        before = trims(database_url)
        engine.send("w", "last")
        engine.handle("w").result(timeout=60)
        engine.workflows.export("w", file)
    migrate(other_url)
    file.seek(0)
    with Engine(other_url) as other:
        other.workflows.import_(file)
    assert trims(other_url) == before
    assert disorder(other_url) == []


# -- those who write --------------------------------------------------------------------------------------------------


@workflow(name="joined.waiting")
async def waiting() -> None:
    """Receives nothing."""


@pytest.mark.parametrize("starts", [False, True], ids=["a message", "a start with one"])
async def test_who_is_cut_off_for_too_long_is_told_that_nothing_is_known(
    database_url: str, monkeypatch: pytest.MonkeyPatch, *, starts: bool
) -> None:
    """One with a key goes on trying: its row stays."""
    lost = asyncio.Event()

    async def lose(*_: Any, **__: Any) -> Any:
        lost.set()
        raise psycopg.OperationalError

    async with Engine(database_url) as engine:
        await engine.start_async(waiting.options(workflow_id="w", queue="nobody's"))
        with monkeypatch.context() as patched:
            patched.setattr(message, "send", lose)
            patched.setattr(store, "enqueue", lose)

            def sending(key: str | None) -> asyncio.Task[Any]:
                if not starts:
                    return asyncio.create_task(engine.send_async("w", 1, idempotency_key=key))
                spec = waiting.options(workflow_id=f"new {key}", queue="nobody's")
                return asyncio.create_task(engine.start_async(spec, message=Message("", 1, key)))

            tasks = [sending(None), sending("key")]
            await lost.wait()
            assert not any(task.done() for task in tasks)
            patched.setattr(producers, "SURE", 0.0)
            with pytest.raises(DatabaseUnavailableError, match="not known whether the value is there"):
                await tasks[0]
            assert not tasks[1].done()
        await tasks[1]
    assert [name for (name,) in rows(database_url, "SELECT producer FROM dbosflow.stream_block")] == ["k:key"]
