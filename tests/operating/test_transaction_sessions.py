"""The sessions of transactions: no more than places, under the role's settings, as new for each function."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg.types.json import set_json_loads
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool

from dbosflow import Engine, transaction, workflow
from dbosflow._runtime.process.transaction_pool import TransactionPool
from dbosflow._store.statements import load
from dbosflow.codecs.chain import NO_CODECS
from dbosflow.contrib.sqlalchemy import transaction as on_session
from tests.behaviour.tables import rows


@transaction
def leaves_things(connection: psycopg.Connection) -> int:
    """What it sets on the connection's object would change what the next function reads."""
    set_json_loads(lambda _: "changed", connection)
    connection.add_notice_handler(print)
    connection.add_notify_handler(print)
    return id(connection)


@transaction
def finds_things(connection: psycopg.Connection) -> list[Any]:
    handlers = [*connection._notice_handlers, *connection._notify_handlers]
    ((value,),) = connection.execute("SELECT '[1]'::json").fetchall()
    return [id(connection), value, len(handlers)]


@workflow
def shares_a_connection() -> bool:
    return [leaves_things(), [1], 0] == finds_things()


def test_a_connection_is_as_new_for_the_next_function(database_url: str) -> None:
    with Engine(database_url, transaction_pool_size=1) as engine:
        assert engine.run(shares_a_connection)


@transaction
def shows_settings(connection: psycopg.Connection) -> list[str]:
    names = ("synchronous_commit", "statement_timeout")
    return [str(connection.execute(f"SHOW {name}").fetchall()[0][0]) for name in names]


@workflow
def showing_settings() -> list[str]:
    return shows_settings()


def test_a_function_has_the_settings_of_its_role(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = 'remote_apply'")
        connection.execute(f"ALTER DATABASE {name} SET statement_timeout = '50s'")
    with Engine(database_url) as engine:
        assert engine.run(showing_settings) == ["remote_apply", "50s"]


@pytest.mark.parametrize(
    ("given", "used"), [("off", "on"), ("local", "on"), ("on", "on"), ("remote_apply", "remote_apply")]
)
def test_a_commit_is_flushed_and_waits_for_no_less_than_the_role_demands(
    database_url: str, given: str, used: str
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT set_config('synchronous_commit', %s, false)", (given,))
        connection.execute(load("transaction")["settings"].encode())
        assert connection.execute("SHOW synchronous_commit").fetchone() == (used,)


CALLS: list[int] = []


@transaction
def takes_too_long(connection: psycopg.Connection) -> None:
    """The server ends the session."""
    CALLS.append(1)
    connection.execute("SET LOCAL transaction_timeout = '20ms'")
    connection.execute("SELECT pg_sleep(60)")


@workflow
def taking_too_long() -> None:
    takes_too_long()


def test_a_transaction_that_the_server_finds_too_long_does_not_begin_anew(engine: Engine, database_url: str) -> None:
    """A lost connection is a conflict; that the server has ended it for its time is not."""
    if int(rows(database_url, "SHOW server_version_num")[0][0]) < 170000:
        pytest.skip("transaction_timeout came with Postgres 17")
    CALLS.clear()
    with pytest.raises(Exception, match="transaction timeout"):
        engine.run(taking_too_long)
    assert CALLS == [1]


async def test_free_connections_of_the_other_colour_count(database_url: str) -> None:
    settings: Any = SimpleNamespace(transaction_pool_size=3, connect_timeout=10, pooled=False, chain=NO_CODECS)
    pool = TransactionPool(database_url, settings)
    busy, *others = [await pool.take(is_async=False) for _ in range(3)]
    for one in others:
        await pool.give_back(one)
    awaitable = await pool.take(is_async=True)
    assert [one.closed for one in (busy, awaitable, *others)].count(False) == 3
    for one in (busy, awaitable):
        await pool.give_back(one)
    await pool.close()


async def test_an_engine_that_has_not_connected_yet_gives_a_whole_dialect(engine: Engine, database_url: str) -> None:
    own = create_async_engine(
        "postgresql+psycopg://",
        async_creator=lambda: psycopg.AsyncConnection.connect(database_url),
        poolclass=NullPool,
    )

    @on_session(engine=own, name="names_schema")
    async def names_schema(session: AsyncSession) -> str | None:
        return session.get_bind().dialect.default_schema_name

    @workflow(name="naming_schema")
    async def naming_schema() -> str | None:
        return await names_schema()

    handle = await engine.start_async(naming_schema)
    assert await handle.result_async(timeout=60) == own.dialect.default_schema_name is not None


_deallocated: set[str] = set()


@transaction
def executes(connection: psycopg.Connection, command: str) -> str:
    """Deallocates in its first attempt only: in the next one there may be nothing to deallocate."""
    if not (command.startswith("DEALLOCATE") and command in _deallocated):
        _deallocated.add(command)
        connection.execute(command.encode())
    return command


@workflow
def executes_each(commands: list[str]) -> list[str]:
    return [executes(command) for command in commands]


def test_what_a_function_deallocates_is_prepared_anew(database_url: str) -> None:
    """All of our statements, or one of them: the others are there still, and no transaction fails for that."""
    _deallocated.clear()
    commands = ["SELECT 1", "DEALLOCATE ALL", "SELECT 1", "DEALLOCATE dbosflow_savepoint", "SELECT 1"]
    with Engine(database_url, transaction_pool_size=1) as engine:
        assert engine.start(executes_each, commands).result(60) == commands


def test_a_statement_that_a_function_lacks_is_its_own_error(database_url: str) -> None:
    """It is not taken for one of ours, for which the function would begin anew for ever."""
    with Engine(database_url) as engine, pytest.raises(psycopg.errors.InvalidSqlStatementName):
        engine.start(executes_each, ["EXECUTE missing"]).result(60)
