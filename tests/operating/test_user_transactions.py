"""Starts and messages in a user's own transaction: with the user's rows, or not at all; and in nobody's way."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy
from psycopg import sql
from sqlalchemy.ext.asyncio import create_async_engine

from dbosflow import Engine, Message, WorkflowFilter, recv_async, step, workflow
from dbosflow import transaction as transaction_step
from dbosflow._store.notify import OUTBOX_TOPIC, channel, part_of, queue_topic, topics_of
from dbosflow.errors import (
    BlockingCallError,
    ConfigurationError,
    InWorkflowError,
    MessageTooLargeError,
    NoTransactionError,
    PermissionDeniedError,
    WorkflowNotFoundError,
    WrongDatabaseError,
)
from tests.behaviour.users_connections import AWAITABLE, BLOCKING, Django, transaction, transaction_async
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Execute = Callable[..., list[tuple[Any, ...]]]

PATIENCE = 60.0


@workflow
async def doubling_in(number: int) -> int:
    return 2 * number


@workflow
async def receives_in(count: int, topic: str = "t") -> list[Any]:
    return [await recv_async(topic) for _ in range(count)]


@workflow
async def other_in(number: int) -> int:
    return number


@pytest.fixture
def user(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the user's, and a table."""
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE TABLE public.orders (id integer)")
        connection.commit()
        yield connection


# -- with the user's rows ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BLOCKING)
def test_what_a_transaction_commits_runs_with_its_rows(
    engine: Engine, user: psycopg.Connection[Any], execute: Execute, kind: str
) -> None:
    with transaction(kind, engine.database_url) as (given, execute_in, _):
        execute_in("INSERT INTO public.orders VALUES (1)")
        new = engine.start_in(given, doubling_in, 4)
        named = engine.start_in(given, receives_in.options(workflow_id="given", attributes={"a": "b"}, timeout=60), 2)
        engine.send_in(given, "given", "first", "t")
        engine.send_in(given, "given", "second", "t")
        assert engine.list_workflows() == []
        with pytest.raises(WorkflowNotFoundError):
            named.status()
    assert new.result(timeout=PATIENCE) == 8
    assert named.result(timeout=PATIENCE) == ["first", "second"]
    assert execute("SELECT id FROM public.orders") == [(1,)]
    assert [one.id for one in engine.list_workflows(WorkflowFilter(attributes={"a": "b"}))] == ["given"]
    assert execute("SELECT count(*) FROM dbosflow.outbox") == [(0,)]


def test_rows_of_all_senders_are_ordered_by_the_clock_of_the_server(
    engine: Engine, user: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the process's clock is an hour ahead: a trigger's message does not come before the start."""
    with user.transaction():
        with monkeypatch.context() as patched:
            now = time.time_ns
            patched.setattr(time, "time_ns", lambda: now() + 3600 * 10**9)
            handle = engine.start_in(user, receives_in.options(workflow_id="given"), 2)
            engine.send_in(user, "given", "first", "t")
        user.execute("SELECT dbosflow.send_message('given', '\"second\"', topic => 't')")
        kinds = user.execute("SELECT name IS NOT NULL FROM dbosflow.outbox ORDER BY id").fetchall()
    assert kinds == [(True,), (False,), (False,)]
    assert handle.result(timeout=PATIENCE) == ["first", "second"]


@pytest.mark.parametrize("kind", BLOCKING)
def test_what_a_transaction_rolls_back_never_was(
    engine: Engine, user: psycopg.Connection[Any], execute: Execute, kind: str
) -> None:
    with transaction(kind, engine.database_url) as (given, execute_in, rollback):
        execute_in("INSERT INTO public.orders VALUES (1)")
        engine.start_in(given, doubling_in, 4)
        engine.start_in(given, doubling_in.options(workflow_id="given"), 4)
        engine.send_in(given, "given", 1)
        rollback()
    for table in ("public.orders", "dbosflow.workflow", "dbosflow.outbox", "dbosflow.attribute"):
        assert execute(f"SELECT count(*) FROM {table}") == [(0,)]


@pytest.mark.parametrize("kind", AWAITABLE)
async def test_the_same_for_asyncio(
    database_url: str, user: psycopg.Connection[Any], execute: Execute, kind: str
) -> None:
    async with Engine(database_url) as engine:
        async with transaction_async(kind, database_url) as (given, execute_in, rollback):
            await engine.start_in_async(given, doubling_in.options(workflow_id="never"), 4)
            await engine.start_in_async(given, doubling_in, 4)
            await rollback()
            await execute_in("INSERT INTO public.orders VALUES (1)")
            new = await engine.start_in_async(given, doubling_in, 4)
            named = await engine.start_in_async(given, receives_in.options(workflow_id="given"), 1)
            await engine.send_in_async(given, "given", "first", "t")
        assert await new.result_async(timeout=PATIENCE) == 8
        assert await named.result_async(timeout=PATIENCE) == ["first"]
    assert execute("SELECT count(*) FROM public.orders") == [(1,)]
    assert execute("SELECT count(*) FROM dbosflow.workflow") == [(2,)]


def test_a_killed_process_has_committed_nothing(
    engine: Engine, user: psycopg.Connection[Any], execute: Execute
) -> None:
    engine.start_in(user, doubling_in, 4)
    engine.start_in(user, doubling_in.options(workflow_id="given"), 4)
    execute("SELECT pg_terminate_backend(%s)", user.info.backend_pid)
    eventually(lambda: execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", user.info.backend_pid) == [(0,)])
    user.close()
    assert execute("SELECT (SELECT count(*) FROM dbosflow.workflow) + (SELECT count(*) FROM dbosflow.outbox)") == [(0,)]


def test_a_savepoint_rolls_back_its_part(engine: Engine, user: psycopg.Connection[Any], execute: Execute) -> None:
    with user.transaction():
        kept = engine.start_in(user, doubling_in, 1)
        with user.transaction(force_rollback=True):
            engine.start_in(user, doubling_in, 2)
            engine.send_in(user, kept.workflow_id, "never")
    assert kept.result(timeout=PATIENCE) == 2
    assert execute("SELECT count(*) FROM dbosflow.workflow") == [(1,)]


@pytest.mark.parametrize("executes", [True, False])
def test_other_processes_take_what_is_for_their_queue(database_url: str, *, executes: bool) -> None:
    """The engine that wrote it is a client, or has not the queue: the worker is told after the commit."""
    with Engine(database_url) as worker, Engine(database_url, executes=executes) as engine:
        threading.Thread(target=worker.run_worker, args=("q",), daemon=True).start()
        with psycopg.connect(database_url) as user:
            new = engine.start_in(user, doubling_in.options(queue="q", priority=3), 4)
            named = engine.start_in(user, receives_in.options(queue="q", workflow_id="given"), 1)
            engine.send_in(user, "given", 1, "t")
        assert new.result(timeout=PATIENCE) == 8
        assert named.result(timeout=PATIENCE) == [1]
        assert new.info().priority == 3


def test_only_who_asks_for_it_notifies_in_the_transaction(
    engine: Engine, user: psycopg.Connection[Any], database_url: str
) -> None:
    """NOTIFY beside data would take a lock of the whole server in every commit."""
    topics = [OUTBOX_TOPIC, queue_topic("")]
    with psycopg.connect(database_url, autocommit=True) as listener:
        for topic in topics:
            listener.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel("dbosflow", part_of(topic)))))
        for notify in (False, True):
            with user.transaction():
                new = engine.start_in(user, receives_in, 1, notify=notify)
                engine.start_in(user, doubling_in.options(workflow_id=f"given {notify}"), 1, notify=notify)
                engine.send_in(user, new.workflow_id, 1, "t", notify=notify)
            assert new.result(timeout=PATIENCE) == [1]
            assert engine.handle(f"given {notify}", doubling_in).result(timeout=PATIENCE) == 2
            heard = [one.payload for one in listener.notifies(timeout=0.2) if one.pid == user.info.backend_pid]
            assert sorted({topic for payload in heard for topic in topics_of(payload)}) == (topics if notify else [])


@workflow
async def has_a_parameter_of_that_name(notify: str) -> str:
    return notify


def test_an_argument_of_the_workflow_is_not_mistaken_for_an_option(
    engine: Engine, user: psycopg.Connection[Any]
) -> None:
    with user.transaction():
        handle = engine.start_in(user, has_a_parameter_of_that_name, notify="an argument")
    assert handle.result(timeout=PATIENCE) == "an argument"


def test_a_start_may_be_for_a_later_time(engine: Engine, user: psycopg.Connection[Any], execute: Execute) -> None:
    """Counted from the call; it is waited for as ever."""
    with user.transaction():
        far = [
            engine.start_in(user, doubling_in.options(delay=3600, timeout=60), 1),
            engine.start_in(user, doubling_in.options(delay=3600, timeout=60, workflow_id="far"), 1),
        ]
        soon = [
            engine.start_in(user, doubling_in.options(delay=0.2), 2),
            engine.start_in(user, doubling_in.options(delay=0.2, workflow_id="soon"), 2),
        ]
    assert [handle.result(timeout=PATIENCE) for handle in soon] == [4, 4]
    eventually(lambda: [handle.status() for handle in far] == ["scheduled", "scheduled"])
    scheduled = "SELECT count(*) FROM dbosflow.workflow WHERE status = 'scheduled'"
    assert execute(f"{scheduled} AND wake_at > now() AND deadline_at > wake_at") == [(2,)]


def test_an_id_is_an_idempotency_key(
    engine: Engine, user: psycopg.Connection[Any], execute: Execute, caplog: Any
) -> None:
    """The first execution stays, whoever started it; and an id of another function says so in the log."""
    assert engine.run(doubling_in.options(workflow_id="given"), 4) == 8
    for target, number in ((doubling_in, 4), (doubling_in, 5), (other_in, 4)):
        with user.transaction():
            engine.start_in(user, target.options(workflow_id="given"), number)
    eventually(lambda: execute("SELECT count(*) FROM dbosflow.outbox") == [(0,)])
    assert engine.handle("given").info().input == {"number": 4}
    assert sum("with other arguments" in record.message for record in caplog.records) == 1
    assert sum("belongs to workflow" in record.message for record in caplog.records) == 1


# -- a handle to what is in the outbox ---------------------------------------------------------------------------------


def test_a_handle_finds_what_is_not_applied_yet(
    client: Engine, user: psycopg.Connection[Any], database_url: str
) -> None:
    """Nothing applies it here, until a worker comes; what changes it applies it first."""
    with user.transaction():
        handle = client.start_in(user, doubling_in.options(workflow_id="w", queue="q", attributes={"a": 1}), 4)
        client.start_in(user, doubling_in.options(workflow_id="c", queue="q"), 4)
        client.start_in(user, doubling_in.options(workflow_id="many", queue="q"), 4)
        client.start_in(user, receives_in.options(workflow_id="r", queue="q"), 1)
    assert handle.status() == "queued"
    info = handle.info()
    assert (info.id, info.status, info.queue, info.attributes) == ("w", "queued", "q", {"a": 1})
    assert (info.input, info.output, info.started_at) == ({"number": 4}, None, None)
    found = client.workflows.explain("w")
    assert (found.status, [cause.code for cause in found.causes]) == ("queued", ["outbox"])
    assert "start a worker: none is live" in str(found)
    assert client.handle("c").cancel().outcome == "cancelled"
    assert [one.outcome for one in client.workflows.cancel(["many", "nobody"])] == ["cancelled", "unknown"]
    assert client.send("r", "sent", "t") == 0
    waits: list[int] = []
    waiter = threading.Thread(target=lambda: waits.append(handle.result(timeout=PATIENCE)))
    waiter.start()
    with Engine(database_url) as worker:
        threading.Thread(target=worker.run_worker, args=("q",), daemon=True).start()
        waiter.join(PATIENCE)
        assert waits == [8]
        assert client.handle("r", receives_in).result(timeout=PATIENCE) == ["sent"]
    with pytest.raises(WorkflowNotFoundError):
        client.handle("nobody").result(timeout=PATIENCE)
    with pytest.raises(WorkflowNotFoundError):
        client.workflows.explain("nobody")


# -- messages ----------------------------------------------------------------------------------------------------------


def test_messages_come_in_the_order_of_a_senders_transactions(engine: Engine, user: psycopg.Connection[Any]) -> None:
    handle = engine.start(receives_in.options(workflow_id="w"), 60)
    for number in range(0, 60, 3):
        with user.transaction():
            for more in range(3):
                engine.send_in(user, "w", number + more, "t")
    assert handle.result(timeout=PATIENCE) == list(range(60))


def test_a_message_that_nobody_receives_is_dropped_and_counted(
    engine: Engine, user: psycopg.Connection[Any], execute: Execute, caplog: Any
) -> None:
    engine.run(doubling_in.options(workflow_id="ended"), 1)
    with user.transaction():
        engine.send_in(user, "ended", 1)
        engine.send_in(user, "nobody", 1)
    eventually(lambda: execute("SELECT count(*) FROM dbosflow.outbox") == [(0,)])
    eventually(lambda: sum(record.name == "dbosflow.relay" for record in caplog.records) >= 2)  # behind the commit
    said = [record.message for record in caplog.records if record.name == "dbosflow.relay"]
    assert len(said) == 2
    assert "the workflow has ended (succeeded)" in said[0] + said[1]
    assert "there is no such workflow" in said[0] + said[1]
    assert engine._core.transactions.relay.dropped == 2


def test_a_message_to_a_full_inbox_waits_and_holds_up_no_other(database_url: str, execute: Execute) -> None:
    """As many of them are sent as fit; the rest stay, and `explain` says where."""
    with (
        Engine(database_url, inbox_values=100) as engine,
        psycopg.connect(database_url) as user,
    ):
        full = engine.start(receives_in.options(workflow_id="full", queue="later"), 130)
        free = engine.start(receives_in.options(workflow_id="more"), 1)
        with user.transaction():
            for number in range(130):
                engine.send_in(user, "full", number, "t")
            engine.send_in(user, "full", "aside", "other")
            engine.send_in(user, "more", 1, "t")
        assert free.result(timeout=PATIENCE) == [1]
        eventually(lambda: execute("SELECT count(*) FROM dbosflow.outbox") == [(30,)])
        assert "30 messages on topic 't' wait in the outbox" in str(engine.workflows.explain("full"))
        threading.Thread(target=engine.run_worker, args=("later",), daemon=True).start()
        assert full.result(timeout=PATIENCE) == list(range(130))


def test_a_row_that_the_database_refuses_holds_up_no_other(
    engine: Engine, user: psycopg.Connection[Any], execute: Execute, caplog: Any
) -> None:
    """Written by hand: it stays, for who has to see to it, and is logged once."""
    execute(
        "INSERT INTO dbosflow.outbox (workflow_id, id, name, queue, attributes, payload) "
        "SELECT id, dbosflow.outbox_id(), 'f', '', '1', '{}' FROM unnest(ARRAY['a', 'c']) AS id"
    )
    with user.transaction():
        handle = engine.start_in(user, receives_in.options(workflow_id="b"), 200)
        for number in range(200):
            engine.send_in(user, "b", number, "t")
    assert handle.result(timeout=PATIENCE) == list(range(200))
    left = "SELECT workflow_id FROM dbosflow.outbox ORDER BY workflow_id"
    eventually(lambda: execute(left) == [("a",), ("c",)])
    assert sum("refuses a row" in record.message for record in caplog.records) == 2


def test_an_idempotency_key_counts_for_every_way_to_send(engine: Engine, user: psycopg.Connection[Any]) -> None:
    handle = engine.start(receives_in.options(workflow_id="w"), 3)
    assert engine.send("w", "a", "t", idempotency_key="a") == 0
    with user.transaction():
        for value in ("a", "b", "b"):
            engine.send_in(user, "w", value, "t", idempotency_key=value)
        engine.send_in(user, "w", "end", "t")
    assert handle.result(timeout=PATIENCE) == ["a", "b", "end"]


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_a_connection_without_a_transaction_is_refused(engine: Engine, database_url: str, execute: Execute) -> None:
    alchemy = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(database_url), isolation_level="AUTOCOMMIT"
    )
    with psycopg.connect(database_url, autocommit=True) as single, alchemy.connect() as each:
        for given in (single, single.cursor(), each, Django(single, in_atomic_block=False)):
            with pytest.raises(NoTransactionError, match="is in autocommit"):
                engine.start_in(given, doubling_in, 1)
        with single.transaction():
            assert engine.start_in(single, doubling_in, 1).workflow_id
    alchemy.dispose()
    with pytest.raises(NoTransactionError, match="closed"):
        engine.send_in(single, "w", 1)
    with psycopg.connect(database_url) as failed:
        with pytest.raises(psycopg.Error):
            failed.execute("SELECT 1/0")
        with pytest.raises(NoTransactionError, match="has failed"):
            engine.start_in(failed, doubling_in, 1)
        failed.rollback()
        failed.execute("SET TRANSACTION READ ONLY")
        with pytest.raises(NoTransactionError, match="read-only"):
            engine.start_in(failed, doubling_in, 1)
        failed.rollback()
    assert execute("SELECT count(*) FROM dbosflow.workflow") == [(1,)]


def test_another_database_is_refused(engine: Engine, empty_database_url: str) -> None:
    """One that has never seen dbosflow, and one that has a schema of its own."""
    with psycopg.connect(empty_database_url) as elsewhere:
        for _ in range(2):
            with pytest.raises(WrongDatabaseError):
                engine.start_in(elsewhere, doubling_in, 1)
            elsewhere.rollback()
            with pytest.raises(WrongDatabaseError):
                engine.send_in(elsewhere, "w", 1)
            elsewhere.rollback()
            Engine(empty_database_url, executes=False).open().close()
        counted = elsewhere.execute("SELECT count(*) FROM dbosflow.outbox").fetchone()
        assert counted == (0,)


def test_what_cannot_be_done_says_what_to_do(engine: Engine, user: psycopg.Connection[Any]) -> None:
    with pytest.raises(ConfigurationError, match="no connection that is known"):
        engine.start_in(engine, doubling_in, 1)
    with pytest.raises(ConfigurationError, match="no connection that is known"):
        engine.start_in(sqlalchemy.create_engine("postgresql+psycopg://"), doubling_in, 1)
    with pytest.raises(ConfigurationError, match="send it in the same transaction"):
        engine.start_in(user, doubling_in, 1, message=Message("t", 1), notify=False)
    with pytest.raises(MessageTooLargeError):
        engine.send_in(user, "w", "x" * 2_000_000)
    with pytest.raises(TypeError):
        engine.start_in(user, doubling_in)  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError):
        engine.send_in(user, "", 1)
    assert user.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


async def test_colours_are_not_mixed(database_url: str) -> None:
    async with Engine(database_url) as engine, await psycopg.AsyncConnection.connect(database_url) as connection:
        with pytest.raises(BlockingCallError, match="start_in_async"):
            engine.start_in(connection, doubling_in, 1)
        with pytest.raises(BlockingCallError, match="send_in_async"):
            engine.send_in(connection, "w", 1)
        with psycopg.connect(database_url) as blocking, pytest.raises(ConfigurationError, match="in a thread"):
            await engine.start_in_async(blocking, doubling_in, 1)


def test_blocking_code_is_told_of_the_other_twin(engine: Engine) -> None:
    connection = create_async_engine("postgresql+psycopg://").connect()
    with pytest.raises(ConfigurationError, match="use start_in_async or send_in_async"):
        engine.send_in(connection, "w", 1)


def test_a_role_without_rights_is_told_which(engine: Engine, user: psycopg.Connection[Any], execute: Execute) -> None:
    execute("CREATE ROLE nobody_in_a_transaction")
    try:
        user.execute("SET LOCAL ROLE nobody_in_a_transaction")
        with pytest.raises(PermissionDeniedError, match="--as client"):
            engine.start_in(user, doubling_in, 1)
        user.rollback()
    finally:
        execute("DROP ROLE nobody_in_a_transaction")


@step
def step_that_starts_in(url: str, engine_of: str) -> str:
    with psycopg.connect(url) as connection:
        return _ENGINES[engine_of].start_in(connection, doubling_in, 21).workflow_id


@workflow
def body_that_starts_in(url: str, engine_of: str) -> str:
    """The body may not; a step may."""
    with psycopg.connect(url) as connection, pytest.raises(InWorkflowError):
        _ENGINES[engine_of].start_in(connection, doubling_in, 1)
    return step_that_starts_in(url, engine_of)


_ENGINES: dict[str, Engine] = {}


def test_a_body_may_not_since_it_is_replayed(engine: Engine, database_url: str) -> None:
    _ENGINES["engine"] = engine
    started = engine.run(body_that_starts_in, database_url, "engine")
    assert engine.handle(started, doubling_in).result(timeout=PATIENCE) == 42
    assert len(engine.list_workflows()) == 2


_TRIED: list[int] = []


@transaction_step(max_attempts=3, interval=0)
def starts_with_the_record(connection: psycopg.Connection[Any], engine_of: str) -> str:
    engine = _ENGINES[engine_of]
    started = engine.start_in(connection, receives_in.options(workflow_id="with-the-record"), 1).workflow_id
    engine.start_in(connection, doubling_in, 1)
    engine.send_in(connection, started, len(_TRIED), "t")
    connection.execute("INSERT INTO public.orders VALUES (1)")
    _TRIED.append(1)
    if len(_TRIED) < 2:
        msg = "rolled back"
        raise ValueError(msg)
    return started


@workflow
def starts_in_its_transaction(engine_of: str) -> str:
    return starts_with_the_record(engine_of)


def test_in_a_transaction_of_the_engine_they_are_committed_with_the_record(
    engine: Engine, user: psycopg.Connection[Any], execute: Execute
) -> None:
    """Of the attempt that succeeds, and of no other."""
    _ENGINES["engine"] = engine
    _TRIED.clear()
    started = engine.run(starts_in_its_transaction, "engine")
    assert engine.handle(started, receives_in).result(timeout=PATIENCE) == [1]
    assert execute("SELECT count(*) FROM public.orders") == [(1,)]
    assert len(engine.list_workflows()) == 3
