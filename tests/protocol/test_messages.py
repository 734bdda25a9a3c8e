"""Messages, answers and first messages in concurrent statements: one place each, and bounds that hold."""

from __future__ import annotations

import asyncio
from typing import Any

from dbosflow._store import message, workflow
from dbosflow._store.workflow import Enqueued, FirstMessage
from tests.protocol.schedules import NAME, SCHEMA, Database

INBOX = "dbosflow/inbox/t"
TOKEN = "dbosflow/token/token#0"


def sent(producer: str, count: int = 1, *, key: str = INBOX) -> tuple[Any, ...]:
    """A block of messages to ``w``."""
    values = f"[{','.join('1' * count)}]"
    return ("w", key, count, values, len(values), producer)


async def send(connection: Any, *rows: tuple[Any, ...], most: int = 100, topics: int = 10) -> list[message.Sent]:
    """Sends them."""
    return await message.send(connection, SCHEMA, rows, max_values=most, max_topics=topics)


async def created(db: Database, *, token: bool = False) -> None:
    """A workflow ``w`` that runs, and perhaps has a token."""
    lease = await db.lease()
    await lease.start("w")
    if token:
        await db.rows(
            """INSERT INTO dbosflow.step (workflow_id, key, kind, epoch, seq, turn, output, started_at)
               VALUES ('w', 'token#0', 'token', 1, 0, 0, '"secret"', now())"""
        )


def answer(producer: str, *, secret: str = "secret") -> dict[str, Any]:
    """An answer to that token."""
    return {
        "workflow_id": "w",
        "operation": "token#0",
        "secret": secret,
        "key": TOKEN,
        "kind": "complete",
        "payload": f'"{producer}"',
        "bytes": len(producer) + 2,
        "producer": producer,
    }


# -- places ----------------------------------------------------------------------------------------------------------


async def test_of_two_senders_that_see_the_same_tail_one_has_the_place(db: Database) -> None:
    """The other one is told nothing, sends again, and comes behind it: no message stands on another."""
    await created(db)
    one, other = await db.connect(), await db.connect()
    await one.execute("BEGIN")
    (first,) = await send(one, sent("w:one"))
    late = asyncio.create_task(send(other, sent("w:other", 2)))
    await db.waiting(other)
    await one.execute("COMMIT")
    (lost,) = await late
    assert (first.offset, lost.offset, lost.full, lost.ended) == (0, None, False, False)
    (again,) = await send(other, sent("w:other", 2))
    assert again.offset == 1


async def test_a_sender_whose_statement_was_committed_unheard_finds_its_message(db: Database) -> None:
    """Also after it was received and removed."""
    await created(db)
    connection = await db.connect()
    await send(connection, sent("w:one"), sent("k:two"))
    assert [one.offset for one in await send(connection, sent("w:one"), sent("k:two"))] == [0, 1]
    await db.rows(
        """WITH gone AS (DELETE FROM dbosflow.stream_block WHERE "offset" = 0 RETURNING *)
           INSERT INTO dbosflow.stream_trim (workflow_id, key, producer, count, bytes, "offset")
           SELECT workflow_id, key, producer, count, bytes, "offset" FROM gone"""
    )
    assert [one.offset for one in await send(connection, sent("w:one"))] == [0]


async def test_the_bound_of_an_inbox_holds_among_senders(db: Database) -> None:
    """Both see room for one of them: the loser of the place counts again."""
    await created(db)
    one, other = await db.connect(), await db.connect()
    await send(one, sent("w:before", 97))
    await one.execute("BEGIN")
    await send(one, sent("w:one", 2))
    late = asyncio.create_task(send(other, sent("w:other", 2)))
    await db.waiting(other)
    await one.execute("COMMIT")
    assert [(found.offset, found.full) for found in await late] == [(None, False)]
    (again,) = await send(other, sent("w:other", 2))
    assert (again.offset, again.full, again.stored) == (None, True, 99)
    ((stored,),) = await db.rows("SELECT sum(count) FROM dbosflow.stream_block")
    assert stored == 99


async def test_topics_are_bounded_and_other_streams_are_none(db: Database) -> None:
    """Inputs, answers to tokens, and the workflow's own streams do not count."""
    await created(db)
    await db.rows(
        """INSERT INTO dbosflow.stream_block
               (workflow_id, key, "offset", count, kind, values, bytes, producer, producer_seq, epoch)
           SELECT 'w', key, 0, 1, 'values', '[1]', 3, 'w:x', 0, epoch
           FROM (VALUES ('an input', 0), ('dbosflow/token/x', 0), ('zz', 0), ('out', 1), ('dbosflow/event/e', 1))
                AS s (key, epoch)"""
    )
    connection = await db.connect()
    for number in range(3):
        (found,) = await send(connection, sent(f"w:{number}", key=f"dbosflow/inbox/{number}"), topics=3)
        assert found.offset == 0
    (found,) = await send(connection, sent("w:4", key="dbosflow/inbox/4"), topics=3)
    assert (found.offset, found.full, found.crowded) == (None, True, True)
    (found,) = await send(connection, sent("w:5", key="dbosflow/inbox/0"), topics=3)
    assert found.offset == 1


async def test_a_message_needs_a_workflow_that_goes_on(db: Database) -> None:
    connection = await db.connect()
    (found,) = await send(connection, sent("w:one"))
    assert found.status is None
    await created(db)
    await db.rows("UPDATE dbosflow.workflow SET status = 'succeeded', worker_id = NULL, ended_at = now()")
    (found,) = await send(connection, sent("w:one"))
    assert found.ended
    assert await db.rows("SELECT 1 FROM dbosflow.stream_block") == []


# -- tokens ----------------------------------------------------------------------------------------------------------


async def test_of_two_answers_in_the_same_moment_one_counts(db: Database) -> None:
    """The other one sees nothing in its own snapshot; sent again, it finds whose answer is there."""
    await created(db, token=True)
    one, other = await db.connect(), await db.connect()
    await one.execute("BEGIN")
    first = await message.resolve(one, SCHEMA, answer("w:one"))
    late = asyncio.create_task(message.resolve(other, SCHEMA, answer("w:other")))
    await db.waiting(other)
    await one.execute("COMMIT")
    lost = await late
    assert (first.answered_by, lost.answered_by, lost.valid) == ("w:one", None, True)
    assert (await message.resolve(other, SCHEMA, answer("w:other"))).answered_by == "w:one"
    assert await db.rows("SELECT values::text FROM dbosflow.stream_block") == [('"w:one"',)]


async def test_an_answer_whose_rival_gives_up_counts(db: Database) -> None:
    await created(db, token=True)
    one, other = await db.connect(), await db.connect()
    await one.execute("BEGIN")
    await message.resolve(one, SCHEMA, answer("w:one"))
    late = asyncio.create_task(message.resolve(other, SCHEMA, answer("w:other")))
    await db.waiting(other)
    await one.execute("ROLLBACK")
    assert (await late).answered_by == "w:other"


async def test_a_wrong_secret_takes_no_place(db: Database) -> None:
    await created(db, token=True)
    connection = await db.connect()
    wrong = await message.resolve(connection, SCHEMA, answer("w:one", secret="guess"))
    assert (wrong.valid, wrong.answered_by) == (False, None)
    assert await db.rows("SELECT 1 FROM dbosflow.stream_block") == []


# -- first messages --------------------------------------------------------------------------------------------------


async def test_the_loser_of_a_start_with_a_message_sends_in_a_later_statement(db: Database) -> None:
    """Its own statement writes neither row nor message, and sees neither of the winner's."""
    one, other = await db.connect(), await db.connect()

    def start(producer: str) -> Enqueued:
        return Enqueued("w", NAME, "", 0, "{}", message=FirstMessage(INBOX, f'"{producer}"', producer))

    await one.execute("BEGIN")
    assert await workflow.enqueue(one, SCHEMA, [start("w:one")]) == {"w"}
    late = asyncio.create_task(workflow.enqueue(other, SCHEMA, [start("w:other")]))
    await db.waiting(other)
    await one.execute("COMMIT")
    assert await late == set()
    assert [row.offset for row in await send(other, sent("w:other"))] == [1]
    assert await workflow.enqueue(one, SCHEMA, [start("w:one")]) == set()  # its answer was lost
    assert [row.offset for row in await send(one, sent("w:one"))] == [0]
    rows = await db.rows('SELECT producer FROM dbosflow.stream_block ORDER BY "offset"')
    assert rows == [("w:one",), ("w:other",)]
