"""A user's transaction that stays open holds up nobody else, whatever was started and sent in it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, recv_async, step, workflow, write_stream_async
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    Execute = Callable[..., list[tuple[Any, ...]]]

PATIENCE = 60.0


@step
async def noted_beside(number: int) -> int:
    return number


@workflow(inputs=["given"])
async def waits_beside(number: int) -> list[Any]:
    """Records, a stream, a message."""
    await write_stream_async("out", await noted_beside(number))
    return [number, await recv_async("t"), await recv_async("t")]


@workflow
async def short_beside(number: int) -> int:
    return await noted_beside(number)


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "SERIALIZABLE"])
def test_an_open_transaction_holds_up_nobody(engine: Engine, execute: Execute, isolation: str) -> None:
    """Not the journal, not a start of the same id, not other senders to the topic, not a claim, not a removal."""
    threading.Thread(target=engine.run_worker, args=("q",), daemon=True).start()
    waiting = engine.start(waits_beside.options(workflow_id="w"), 1)
    with psycopg.connect(engine.database_url) as user:
        user.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
        new = engine.start_in(user, short_beside, 4)
        engine.start_in(user, short_beside.options(workflow_id="id"), 4)
        engine.send_in(user, "w", "later", "t")
        assert user.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS

        assert engine.run(short_beside.options(workflow_id="id"), 5) == 5
        assert engine.start(short_beside.options(queue="q"), 6).result(timeout=PATIENCE) == 6
        assert engine.send("w", "now", "t") == 0
        engine.write_stream("w", "given", 1)
        assert next(iter(engine.read_stream("w", "out", timeout=PATIENCE))) == 1
        if isolation == "READ COMMITTED":  # whoever has a snapshot keeps what it may show
            eventually(lambda: engine.prune(older_than=1e-6) and engine.list_workflows(status="succeeded") == [])
        assert execute("SELECT count(*) FROM pg_locks WHERE NOT granted") == [(0,)]
        assert user.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    assert new.result(timeout=PATIENCE) == 4
    assert waiting.result(timeout=PATIENCE) == [1, "now", "later"]


def test_two_transactions_with_the_same_ids_do_not_wait_for_each_other(engine: Engine, execute: Execute) -> None:
    """In opposite orders: rows under those ids would deadlock."""
    url = engine.database_url
    with psycopg.connect(url) as one, psycopg.connect(url) as other:
        for user, ids in ((one, "ab"), (other, "ba")):
            user.execute("SET LOCAL lock_timeout = '1ms'")
            for name in ids:
                engine.start_in(user, short_beside.options(workflow_id=name), 1)
                engine.send_in(user, name, 1)
    for name in "ab":
        assert engine.handle(name, short_beside).result(timeout=PATIENCE) == 1
    eventually(lambda: execute("SELECT count(*) FROM dbosflow.outbox") == [(0,)])


def test_an_early_transaction_that_commits_late_is_applied_behind(engine: Engine) -> None:
    """Its rows have the smaller ids, and whoever was faster has been received long before."""
    waiting = engine.start(waits_beside.options(workflow_id="w"), 1)
    with psycopg.connect(engine.database_url) as early, psycopg.connect(engine.database_url) as late:
        engine.send_in(early, "w", "early", "t")
        engine.send_in(late, "w", "late", "t")
        late.commit()
        eventually(lambda: [one for one in engine.streams.list("w", reserved=True) if "inbox" in one.key])
        early.commit()
    assert waiting.result(timeout=PATIENCE) == [1, "late", "early"]
