"""The workflows of the bank, of both colours, and at each level of isolation."""

from __future__ import annotations

from typing import Any

import psycopg

from dbosflow import current, transaction, workflow, write_stream_async

ACCOUNTS = 10
LEVELS: tuple[Any, ...] = ("read committed", "repeatable read", "serializable")


def _define(isolation: Any) -> None:
    name = isolation.replace(" ", "_")

    @transaction(name="transfer", isolation=isolation, max_conflicts=1000)
    async def transfer(connection: psycopg.AsyncConnection, number: int, source: int, target: int) -> int:
        """Moves 1 from one account to another."""
        await connection.execute("UPDATE account SET balance = balance - 1 WHERE id = %s", (source,))
        await connection.execute("UPDATE account SET balance = balance + 1 WHERE id = %s", (target,))
        await connection.execute("INSERT INTO transfer VALUES (%s, %s)", (current().workflow_id, number))
        await write_stream_async("moved", number)
        return number

    @transaction(name="transfer", isolation=isolation, max_conflicts=1000)
    def transfer_on_thread(connection: psycopg.Connection, number: int, source: int, target: int) -> int:
        """The same on a thread."""
        connection.execute("UPDATE account SET balance = balance - 1 WHERE id = %s", (source,))
        connection.execute("UPDATE account SET balance = balance + 1 WHERE id = %s", (target,))
        connection.execute("INSERT INTO transfer VALUES (%s, %s)", (current().workflow_id, number))
        return number

    @workflow(name=f"bank_{name}")
    async def pays(times: int, seed: int) -> int:
        """Pays so many times."""
        return sum([await transfer(n, (seed + n) % ACCOUNTS, (seed * 7 + n * 3 + 1) % ACCOUNTS) for n in range(times)])

    @workflow(name=f"bank_{name}_on_thread")
    def pays_on_thread(times: int, seed: int) -> int:
        """The same on a thread."""
        return sum(
            transfer_on_thread(n, (seed + n) % ACCOUNTS, (seed * 7 + n * 3 + 1) % ACCOUNTS) for n in range(times)
        )

    WORKFLOWS[isolation] = (pays, pays_on_thread)


WORKFLOWS: dict[str, tuple[Any, Any]] = {}
for _level in LEVELS:
    _define(_level)
