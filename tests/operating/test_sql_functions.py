"""Workflows and messages from SQL alone: functions for triggers, psql and other languages."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import errors

from dbosflow import Engine, recv_async, workflow
from dbosflow._store.migrate import grants_sql
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Execute = Callable[..., list[tuple[Any, ...]]]

PATIENCE = 60.0
ORDERS = """
CREATE TABLE public.orders (id integer PRIMARY KEY, note text);
CREATE FUNCTION public.order_comes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM dbosflow.start_workflow('noting', jsonb_build_object('number', NEW.id, 'note', NEW.note),
                                    workflow_id => 'order-' || NEW.id);
    RETURN NEW;
END $$;
CREATE TRIGGER order_comes AFTER INSERT ON public.orders FOR EACH ROW EXECUTE FUNCTION public.order_comes();
"""


@workflow(name="noting")
async def noting(number: int, note: str = "none") -> str:
    return f"{number}: {note}"


@workflow
async def hundred_from_sql() -> list[Any]:
    return [await recv_async("t") for _ in range(100)]


@workflow(name="receiving_null")
async def receiving_null() -> list[Any]:
    return [await recv_async()]


@contextmanager
def working(url: str, *queues: str, **settings: Any) -> Iterator[Engine]:
    with Engine(url, **settings) as engine:
        threading.Thread(target=engine.run_worker, args=queues, daemon=True).start()
        yield engine


def test_a_trigger_starts_a_workflow_for_each_row(database_url: str, execute: Execute) -> None:
    """Of a transaction that commits; once, also if the row is there again."""
    execute(ORDERS)
    with psycopg.connect(database_url) as user:
        user.execute("INSERT INTO public.orders VALUES (7, 'rolled back')")
        user.rollback()
        user.execute("INSERT INTO public.orders SELECT n, 'é \"' || n FROM generate_series(1, 3) n")
        user.execute("DELETE FROM public.orders WHERE id = 2")
        user.execute("INSERT INTO public.orders VALUES (2, 'again')")
    with working(database_url) as engine:
        found = [engine.handle(f"order-{number}", noting).result(timeout=PATIENCE) for number in (1, 2, 3)]
        assert found == [f'{number}: é "{number}' for number in (1, 2, 3)]
        eventually(lambda: execute("SELECT count(*) FROM dbosflow.outbox") == [(0,)])
        assert len(engine.list_workflows()) == 3


def test_a_start_has_options(database_url: str, execute: Execute) -> None:
    ((new,),) = execute("SELECT dbosflow.start_workflow('noting', '{\"number\": 5}')")
    ((given,),) = execute(
        "SELECT dbosflow.start_workflow('noting', '{\"number\": 6}', queue => 'q', workflow_id => 'w', priority => -2, "
        "timeout => '1 hour', inputs => ARRAY['in'])"
    )
    assert (UUID(new).version, given) == (7, "w")
    with working(database_url, "q", "default") as engine:
        assert engine.handle(new, noting).result(timeout=PATIENCE) == "5: none"
        assert engine.handle("w", noting).result(timeout=PATIENCE) == "6: none"
    found = execute(
        "SELECT queue, priority, input_streams, deadline_at > now() FROM dbosflow.workflow ORDER BY priority DESC"
    )
    assert found == [("default", 0, None, None), ("q", -2, ["in"], True)]


def test_messages_of_a_session_come_in_its_order(database_url: str, execute: Execute) -> None:
    """Those of one statement, too, which the clock would not tell apart; an idempotency key counts."""
    with working(database_url) as engine:
        handle = engine.start(hundred_from_sql.options(workflow_id="w"))
        with psycopg.connect(database_url) as user:
            user.execute("SELECT dbosflow.send_message('w', to_jsonb(n), 't') FROM generate_series(1, 50) n")
            user.commit()
            for _ in range(2):
                user.execute("SELECT dbosflow.send_message('w', '51', 't', idempotency_key => 'once')")
                user.commit()
            user.execute("SELECT dbosflow.send_message('w', to_jsonb(n), 't') FROM generate_series(52, 100) n")
        assert handle.result(timeout=PATIENCE) == list(range(1, 101))


def test_a_start_may_be_of_a_partition(database_url: str, execute: Execute) -> None:
    """Which makes no name of a queue that means another one."""
    execute("SELECT dbosflow.start_workflow('noting', '{\"number\": 5}', dbosflow.queue_partition('q', 'acme'), 'w')")
    with working(database_url, "q") as engine:
        assert engine.handle("w", noting).result(timeout=PATIENCE) == "5: none"
        info = engine.handle("w", noting).info()
        assert (info.queue, info.partition_key) == ("q", "acme")
    wrong = (
        ("q", ""),
        ("", "k"),
        ("q", "\x1f"),
        ("q\x1f", "k"),
        ("q", "k" * 513),
        ("dbosflow/pinned/v/q", "k"),
        ("q", None),
    )
    for queue, key in wrong:
        with psycopg.connect(database_url) as user, pytest.raises(errors.InvalidParameterValue, match="1 to 512 bytes"):
            user.execute("SELECT dbosflow.queue_partition(%s, %s)", (queue, key))


@pytest.mark.parametrize(
    ("call", "constraint"),
    [
        ("start_workflow('')", "name_of_1_to_512_bytes"),
        ("start_workflow('f', '[1]')", "arguments_are_an_object"),
        ("start_workflow('f', workflow_id => '')", "workflow_id_of_1_to_512_bytes"),
        ("send_message('w', '1', repeat('t', 473))", "topic_of_up_to_472_bytes"),
        ("send_message('w', '1', idempotency_key => '')", "idempotency_key_of_1_to_512_bytes"),
    ],
)
def test_what_cannot_be_done_is_refused_in_the_users_statement(database_url: str, call: str, constraint: str) -> None:
    with psycopg.connect(database_url) as user, pytest.raises(errors.CheckViolation) as refused:
        user.execute(f"SELECT dbosflow.{call}")
    assert refused.value.diag.constraint_name == constraint


@pytest.mark.parametrize(
    ("queue", "constraint"),
    [("q" * 1201, "queue_of_up_to_1200_bytes"), ("q\x1fa\x1fb", "queue_of_one_partition")],
)
def test_the_table_refuses_what_no_function_writes(database_url: str, queue: str, constraint: str) -> None:
    with psycopg.connect(database_url) as user, pytest.raises(errors.CheckViolation) as refused:
        user.execute(
            "INSERT INTO dbosflow.outbox (workflow_id, id, name, queue, payload) "
            "VALUES ('w', dbosflow.outbox_id(), 'f', %s, '{}')",
            (queue,),
        )
    assert refused.value.diag.constraint_name == constraint


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("start_workflow(NULL)", "needs the name of a workflow"),
        ("start_workflow('f', queue => '')", "queue must have 1 to 512 bytes"),
        ("start_workflow('f', queue => repeat('q', 513))", "queue must have 1 to 512 bytes"),
        ("start_workflow('f', queue => 'dbosflow/pinned/v/q')", "not begin with dbosflow/"),
        ("start_workflow('f', queue => chr(31))", "queue must have 1 to 512 bytes"),
        ("start_workflow('f', queue => 'q' || chr(31))", r"U\+001F"),
        ("start_workflow('f', queue => chr(31) || 'k')", "queue must have 1 to 512 bytes"),
        ("start_workflow('f', queue => 'q' || chr(31) || repeat('k', 513))", r"U\+001F"),
        ("start_workflow('f', queue => 'q' || chr(31) || 'k' || chr(31))", r"U\+001F"),
        ("start_workflow('f', queue => concat_ws(chr(31), 'q', 'a', 'b'))", r"U\+001F"),
        ("start_workflow('f', workflow_id => 'dbosflow/stream/1')", "not begin with dbosflow/stream/"),
        ("start_workflow('f', timeout => '0')", "timeout must be above 0"),
        ("start_workflow('f', timeout => '-1 second')", "timeout must be above 0"),
        ("start_workflow('f', timeout => '10000 years')", "up to a hundred years"),
        ("start_workflow('f', units => 0)", "units must be 1 or more"),
        ("start_workflow('f', units => -1)", "units must be 1 or more"),
        ("start_workflow('f', inputs => '{in,dbosflow/inbox/t}')", "do not begin with dbosflow/"),
        ("start_workflow('f', inputs => '{in,NULL}')", "keys of 1 to 512 bytes"),
        ("start_workflow('f', inputs => '{\"\"}')", "keys of 1 to 512 bytes"),
        ("send_message(NULL, '1')", "needs the id of a workflow"),
        ("send_message('w', to_jsonb(repeat('x', 1048576)))", "larger than dbosflow.message_bytes"),
    ],
)
def test_what_the_functions_refuse_they_explain(database_url: str, call: str, message: str) -> None:
    with psycopg.connect(database_url) as user, pytest.raises(errors.InvalidParameterValue, match=message) as refused:
        user.execute(f"SELECT dbosflow.{call}".encode())
    assert refused.value.diag.message_hint


def test_a_queue_of_the_longest_name_is_served(database_url: str) -> None:
    """And the longest partition key is the last that is taken, too; they hold what is no separator."""
    queue, key = "\n" + "é" * 255 + "q", "\t" + "k" * 511
    with working(database_url, queue) as engine, psycopg.connect(database_url) as user:
        for args in (queue, None), (queue, key):
            stored = "\x1f".join(filter(None, args))
            call = "SELECT dbosflow.start_workflow('noting', '{\"number\": 1}', %s, units => 2, timeout => '100 years')"
            ((started,),) = user.execute(call, (stored,)).fetchall()
            user.commit()
            assert engine.handle(started, noting).result(timeout=PATIENCE) == "1: none"
            info = engine.handle(started, noting).info()
            assert (info.queue, info.partition_key) == args


def test_what_is_null_was_not_given(database_url: str) -> None:
    """As in a trigger that hands on a column; a message is JSON's null then."""
    with working(database_url) as engine, psycopg.connect(database_url) as user:
        user.execute("SELECT dbosflow.start_workflow('receiving_null', NULL, NULL, 'w', NULL, NULL, NULL)")
        user.execute("SELECT dbosflow.send_message('w', NULL, NULL, NULL)")
        user.commit()
        assert engine.handle("w", receiving_null).result(timeout=PATIENCE) == [None]


def test_the_bound_of_messages_can_be_set(database_url: str) -> None:
    large = "SELECT dbosflow.send_message('w', to_jsonb(repeat('x', 1048576)))"
    with psycopg.connect(database_url) as user:
        user.execute("SET dbosflow.message_bytes = 2000000")
        user.execute(large)
        user.execute("SET dbosflow.message_bytes = 3")
        user.execute("SELECT dbosflow.send_message('w', '123')")
        with pytest.raises(errors.InvalidParameterValue):
            user.execute("SELECT dbosflow.send_message('w', '1234')")


def test_the_functions_mean_their_own_schema(empty_database_url: str) -> None:
    """Whatever it is called, and whatever stands before it in the search path."""
    schema = 'my "own" dbosflow.'
    with working(empty_database_url, schema=schema) as engine, psycopg.connect(empty_database_url) as user:
        user.execute("CREATE TEMPORARY TABLE outbox (workflow_id text)")
        user.execute("CREATE TABLE public.outbox (workflow_id text)")
        user.execute(
            'SELECT "my ""own"" dbosflow.".start_workflow(\'noting\', \'{"number": 1}\', workflow_id => \'w\')'
        )
        user.commit()
        assert engine.handle("w", noting).result(timeout=PATIENCE) == "1: none"
        engine.start_in(user, noting.options(workflow_id="in"), 2)
        user.commit()
        assert engine.handle("in", noting).result(timeout=PATIENCE) == "2: none"


def test_a_role_needs_the_rights_of_a_client(database_url: str, execute: Execute) -> None:
    """And no more: the functions run with the rights of whoever calls them."""
    client, nobody = f"client_{uuid4().hex}", f"nobody_{uuid4().hex}"
    execute(f"CREATE ROLE {client}; CREATE ROLE {nobody}; GRANT USAGE ON SCHEMA dbosflow TO {nobody}")
    try:
        execute(grants_sql(client, "client"))
        with psycopg.connect(database_url) as user:
            user.execute(f"SET ROLE {client}")
            user.execute("SELECT dbosflow.start_workflow('noting'), dbosflow.send_message('w', '1')")
            user.rollback()
            for call in ("start_workflow('noting')", "send_message('w', '1')", "outbox_id()"):
                user.execute(f"SET ROLE {nobody}")
                with pytest.raises(errors.InsufficientPrivilege):
                    user.execute(f"SELECT dbosflow.{call}")
                user.rollback()
    finally:
        execute(f"DROP OWNED BY {client}; DROP ROLE {client}; DROP OWNED BY {nobody}; DROP ROLE {nobody}")
