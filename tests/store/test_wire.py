"""Hot statements on a connection that others use as well."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow._store import wire, workflow

if TYPE_CHECKING:
    from psycopg import AsyncConnection

SCHEMA = "dbosflow"


async def test_a_hot_statement_outlives_a_rollback_after_which_psycopg_deallocates_all(database_url: str) -> None:
    """Psycopg does that if it has prepared a statement itself. What is prepared by its side is gone as well."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True, prepare_threshold=0) as connection:
        assert await workflow.outcomes(connection, SCHEMA, ["nobody"]) == {}
        async with connection.transaction(force_rollback=True):
            await connection.execute("SELECT 1")
        left = await (await connection.execute("SELECT name FROM pg_prepared_statements", prepare=False)).fetchall()
        assert left == []
        for _ in range(2):
            assert await workflow.outcomes(connection, SCHEMA, ["nobody"]) == {}


async def test_a_hot_statement_whose_preparation_was_cancelled_is_prepared_all_the_same(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has it, and nobody took its answer."""
    answer = wire.answer

    async def cancelled(connection: AsyncConnection[Any]) -> None:
        await answer(connection)
        raise asyncio.CancelledError

    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        with monkeypatch.context() as patched:
            patched.setattr(wire, "answer", cancelled)
            with pytest.raises(asyncio.CancelledError):
                await workflow.outcomes(connection, SCHEMA, ["nobody"])
        for _ in range(2):
            assert await workflow.outcomes(connection, SCHEMA, ["nobody"]) == {}


async def test_statements_whose_names_differ_at_their_ends_are_two(database_url: str) -> None:
    """The server knows 63 bytes of a name. A batch with rows of many kinds has a longer one."""
    beginning = b"dbosflow_batch_" + b"_".join(
        [b"starts", b"options", b"runs", b"records", b"blocks", b"inputs", b"ends"]
    )
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        for _ in range(2):
            for number, end in enumerate((b"", b"_suspends", b"_suspends_awaits", b"_suspends_continues")):
                statement = wire.Statement(beginning + end, b"SELECT %d" % number, ())
                result = await wire.execute(connection, statement, [], prepare=True)
                assert result.get_value(0, 0) == b"%d" % number
