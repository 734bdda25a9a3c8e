"""Starts with keys, and many at a time, in a user's own transaction: after the commit they are as any other start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, recv_async, workflow
from dbosflow._runtime.queues.keyed_relay import KeyedRelay
from dbosflow._store import outbox
from dbosflow.config import Settings
from dbosflow.errors import ConfigurationError, WorkflowNotFoundError
from tests.behaviour.users_connections import AWAITABLE, BLOCKING, transaction, transaction_async
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Execute = Callable[..., list[tuple[Any, ...]]]

PATIENCE = 60.0
FOUND = "SELECT id, input->>'value', queue, status FROM dbosflow.workflow ORDER BY created_at, id"


@workflow
async def kept_by_key(value: Any) -> Any:
    """Runs until it is told to end."""
    return [value, await recv_async("go")]


@workflow
async def another_kept_by_key(value: Any) -> Any:
    return value


@pytest.fixture
def user(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the user's."""
    with psycopg.connect(database_url) as connection:
        yield connection


def applied(execute: Execute) -> bool:
    return execute("SELECT count(*) FROM dbosflow.outbox_start") == [(0,)]


@pytest.mark.parametrize("kind", BLOCKING)
def test_a_key_decides_after_the_commit(engine: Engine, database_url: str, execute: Execute, kind: str) -> None:
    """Of starts with one key in their order, those of one transaction and of several."""
    spec = kept_by_key.options(queue="q", dedup_key="k", on_duplicate="replace")
    with transaction(kind, database_url) as (connection, *_):
        first = engine.start_in(connection, spec, 1)
        second = engine.start_in(connection, spec, 2)
        assert execute("SELECT count(*) FROM dbosflow.outbox_start") == [(0,)]
    assert eventually(lambda: execute(FOUND) == [(first.workflow_id, "2", "q", "queued")])
    with transaction(kind, database_url) as (connection, *_):
        engine.start_in(connection, spec, 3)
    assert eventually(lambda: execute(FOUND) == [(first.workflow_id, "3", "q", "queued")])
    assert applied(execute)
    with pytest.raises(WorkflowNotFoundError):
        second.status()


@pytest.mark.parametrize("kind", AWAITABLE)
async def test_many_start_in_a_transaction_for_asyncio(database_url: str, execute: Execute, kind: str) -> None:
    async with Engine(database_url) as engine:
        async with transaction_async(kind, database_url) as (connection, *_):
            handles = await engine.start_many_in_async(connection, another_kept_by_key, [(1,), {"value": 2}])
        assert [await one.result_async(timeout=PATIENCE) for one in handles] == [1, 2]
    assert len(execute(FOUND)) == 2


@pytest.mark.parametrize("kind", BLOCKING)
def test_many_are_committed_together_or_not_at_all(
    engine: Engine, database_url: str, execute: Execute, kind: str
) -> None:
    """With ids of their own, with keys, and plain ones: in one call, with all that a start may have."""

    def spec(value: int) -> Any:
        if value % 3 == 0:
            return kept_by_key.options(queue="q", delay=3600, timeout=60, attributes={"a": value}, priority=value)
        if value % 3 == 1:
            return kept_by_key.options(queue="q", workflow_id=f"w{value}", attributes={"a": value})
        return kept_by_key.options(queue="q", dedup_key="k", on_duplicate="replace", attributes={"a": value})

    with transaction(kind, database_url) as (connection, _, rollback):
        engine.start_many_in(connection, spec, [(value,) for value in range(6)])
        rollback()
    assert execute(FOUND) == []
    with transaction(kind, database_url) as (connection, *_):
        handles = engine.start_many_in(connection, spec, [(value,) for value in range(6)])
    assert len(handles) == 6
    assert eventually(lambda: len(execute(FOUND)) == 5 and applied(execute))
    ids = {value: handles[value].workflow_id for value in range(6)}
    found = {workflow_id: rest for workflow_id, *rest in execute(FOUND)}
    assert found == {
        ids[0]: ["0", "q", "scheduled"],
        ids[3]: ["3", "q", "scheduled"],
        "w1": ["1", "q", "queued"],
        "w4": ["4", "q", "queued"],
        ids[2]: ["5", "q", "queued"],
    }
    query = "SELECT workflow_id, value FROM dbosflow.attribute"
    assert dict(execute(query)) == {ids[0]: "0", ids[3]: "3", "w1": "1", "w4": "4", ids[2]: "5"}
    query = """SELECT priority, extract(epoch FROM deadline_at - wake_at)::float,
                      extract(epoch FROM wake_at - created_at) BETWEEN 3599 AND 3700
               FROM dbosflow.workflow WHERE id = %s"""
    assert execute(query, ids[3]) == [(3, 60.0, True)]


def test_times_count_from_the_call(client: Engine, user: psycopg.Connection[Any], execute: Execute) -> None:
    """However late the start is applied; and what is due by then is."""
    spec = kept_by_key.options(
        queue="q", dedup_key="k", on_duplicate="replace", delay=3600, replace_within=7200, timeout=60
    )
    client.start_in(user, spec, 1)
    user.commit()
    execute("UPDATE dbosflow.outbox_start SET created_at = created_at - interval '1000 s' RETURNING 1")
    with Engine(client.database_url):
        assert eventually(lambda: applied(execute))
    query = """SELECT round(extract(epoch FROM wake_at - created_at) / 100),
                      extract(epoch FROM deadline_at - wake_at)::float FROM dbosflow.workflow"""
    assert execute(query) == [(26, 60.0)]


def test_a_start_whose_key_is_anothers_is_dropped(
    engine: Engine, user: psycopg.Connection[Any], execute: Execute, caplog: pytest.LogCaptureFixture
) -> None:
    first = engine.start(kept_by_key.options(queue="q", dedup_key="k"), 1)
    engine.start_in(user, kept_by_key.options(queue="q", dedup_key="k"), 2)
    engine.start_in(user, kept_by_key.options(queue="q", dedup_key="k", on_duplicate="raise"), 3)
    engine.start_in(user, another_kept_by_key.options(queue="q", dedup_key="k"), 4)
    user.commit()
    assert eventually(lambda: applied(execute))
    assert execute(FOUND) == [(first.workflow_id, "1", "q", "queued")]
    dropped = [one.getMessage() for one in caplog.records if "is dropped" in one.getMessage()]
    assert len(dropped) == 2
    assert all(first.workflow_id in one for one in dropped)


def test_whoever_asks_for_it_before_it_is_applied_brings_it(client: Engine, user: psycopg.Connection[Any]) -> None:
    """As a start under a given id: also where no engine executes."""
    handle = client.start_in(user, kept_by_key.options(queue="q", dedup_key="k"), 1)
    user.commit()
    assert handle.status() == "queued"
    assert handle.cancel().outcome == "cancelled"


def test_a_start_that_the_database_refuses_holds_up_those_of_its_key_alone(
    engine: Engine, user: psycopg.Connection[Any], execute: Execute, caplog: pytest.LogCaptureFixture
) -> None:
    spoiled = "UPDATE dbosflow.outbox_start SET request = '{\"name\": 5}' WHERE key = 'b'"
    for key in ("a", "b", "b", "c"):
        engine.start_in(user, kept_by_key.options(queue="q", dedup_key=key), key)
    user.execute(spoiled)
    user.commit()
    assert eventually(lambda: [value for _, value, *_ in execute(FOUND)] == ["a", "c"])
    assert execute("SELECT count(*) FROM dbosflow.outbox_start") == [(2,)]
    assert eventually(lambda: any("it stays there" in one.getMessage() for one in caplog.records))
    execute("DELETE FROM dbosflow.outbox_start RETURNING 1")


async def test_of_two_relays_each_start_is_applied_once_and_in_order(database_url: str, execute: Execute) -> None:
    """One that stalls in its transaction keeps the key's later starts from the other."""
    async with (
        Engine(database_url, executes=False) as client,
        await psycopg.AsyncConnection.connect(database_url) as user,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as other,
    ):
        for value in (1, 2):
            await client.start_in_async(
                user, kept_by_key.options(queue="q", dedup_key="k", on_duplicate="replace"), value
            )
        await user.commit()
        taken, _ = await outbox.keyed(user, "dbosflow", ("", ""), 10)
        assert [one.start().input for one in taken] == ['{"value":1}']
        announced: list[str] = []
        relay = KeyedRelay(Settings(), announced.extend)
        assert not await relay.apply(other)
        await user.rollback()
        assert await relay.apply(other)
        assert await relay.apply(other)
        assert not await relay.apply(other)
    assert [value for _, value, *_ in execute(FOUND)] == ["2"]


def test_wrong_items_write_nothing(engine: Engine, user: psycopg.Connection[Any]) -> None:
    with pytest.raises(ConfigurationError, match="tuple"):
        engine.start_many_in(user, another_kept_by_key, ["text"])
    assert engine.start_many_in(user, another_kept_by_key, []) == []
