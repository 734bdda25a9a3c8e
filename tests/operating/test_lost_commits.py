"""The answer to a transaction's COMMIT is lost, or the COMMIT itself: a proxy cuts the connection at that moment."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, current, transaction, workflow, write_stream, write_stream_async
from tests.behaviour.proxy import Proxy
from tests.behaviour.tables import disorder, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbosflow.workflows import Workflow

TIMES = 6
PATIENCE = 60.0
INSERT = "INSERT INTO payment VALUES (%s, %s)"
begun: list[int] = []


class Cutting(Proxy):
    """Cuts the connection of each second COMMIT: before it has been handed on, or before its answer."""

    def __init__(self, url: str, *, arrives: bool) -> None:
        self.commits = 0
        self._arrives = arrives
        super().__init__(url)

    def sent(self, client: socket.socket, data: bytes) -> None:
        if b"COMMIT\0" not in data:
            return
        self.commits += 1
        if self.commits % 2 == 0:
            return
        if not self._arrives:
            raise ConnectionError
        client.shutdown(socket.SHUT_WR)  # the client hears the end; the server gets the COMMIT


@transaction
async def pays_once(connection: psycopg.AsyncConnection, number: int) -> str | None:
    begun.append(number)
    await connection.execute(INSERT, (number, current().attempt))
    await write_stream_async("paid", number)
    return current().attempt


@transaction
def pays_once_on_thread(connection: psycopg.Connection, number: int) -> str | None:
    begun.append(number)
    connection.execute(INSERT, (number, current().attempt))
    write_stream("paid", number)
    return current().attempt


@workflow
async def paying_once() -> list[str | None]:
    return [await pays_once(number) for number in range(TIMES)]


@workflow
def paying_once_on_thread() -> list[str | None]:
    return [pays_once_on_thread(number) for number in range(TIMES)]


@pytest.fixture(params=[True, False], ids=["the answer is lost", "the COMMIT is lost"])
def arrives(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def cutting(database_url: str, *, arrives: bool) -> Iterator[Cutting]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE payment (number integer, attempt text)")
    begun.clear()
    between = Cutting(database_url, arrives=arrives)
    yield between
    between.close()


@pytest.mark.parametrize("flow", [paying_once, paying_once_on_thread])
@pytest.mark.parametrize("settings", [{}, {"pooled": True}], ids=["", "pooled"])
def test_rows_and_record_are_one_whatever_became_of_the_commit(
    database_url: str,
    cutting: Cutting,
    flow: Workflow[[], Any, list[str | None]],
    settings: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    *,
    arrives: bool,
) -> None:
    """What arrived is found, or refuses what the function does again; what did not is done again."""
    with Engine(cutting.url, **settings) as engine:
        attempts = engine.start(flow.options(workflow_id="w")).result(timeout=PATIENCE)
        assert [one.attempt for one in engine.list_steps("w")] == attempts
        assert engine.read_stream("w", "paid").read_all() == (list(range(TIMES)), True)
    assert rows(database_url, "SELECT number, attempt FROM payment ORDER BY number, attempt") == list(
        enumerate(attempts)
    )
    if not arrives:
        assert sorted(begun) == sorted([*range(TIMES)] * 2)
    assert "please report" not in caplog.text
    assert disorder(database_url) == []
