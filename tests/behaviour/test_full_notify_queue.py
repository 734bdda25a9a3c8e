"""A server whose queue of NOTIFYs is full: somebody listens, and stays in a transaction."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbosflow import Engine, workflow
from tests.server import FAST, Server, own_server
from tests.support import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Iterator

NEVER: dict[str, Any] = {"safety_poll": 600.0, "fast_poll": 600.0}


@workflow
async def answered(number: int) -> int:
    """Ends with what it was given."""
    return number


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with the shortest queue."""
    with own_server() as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            if connection.info.server_version < 170000:
                pytest.skip("the queue of this server has 8 GB")
            connection.execute("ALTER SYSTEM SET max_notify_queue_pages = 64")
        server.restart(FAST)
        yield server


def fill(url: str) -> psycopg.Connection[Any]:
    """Fills the queue; returns the session that keeps it full."""
    listener = psycopg.connect(url)
    listener.execute("LISTEN others")
    listener.commit()
    listener.execute("SELECT 1")
    with psycopg.connect(url, autocommit=True) as sender, suppress(psycopg.errors.ProgramLimitExceeded):
        while True:
            sender.execute("SELECT pg_notify('others', repeat('x', 7000) || random())")
    return listener


def test_an_engine_opens_and_works_without_notify(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """It takes the server for what it is, and not for a pooler."""
    with fill(server.url), Engine(server.url) as engine:
        assert "too many notifications in the NOTIFY queue" in caplog.text
        assert "pooler" not in caplog.text
        assert [engine.run(answered, number) for number in range(10)] == [*range(10)]


def test_hints_go_out_again_when_the_queue_may_be_emptied(server: Server) -> None:
    """Without polls a worker hears of what another process enqueues, once whoever kept the queue full has gone."""
    with Engine(server.url, **NEVER) as worker, Engine(server.url, executes=False, **NEVER) as client:
        serving = threading.Thread(target=worker.run_worker, args=("q",), daemon=True)
        serving.start()
        assert client.start(answered.options(queue="q"), 1).result(timeout=TIMEOUT) == 1
        fill(server.url).close()
        client.start(answered.options(queue="q"), 2)  # its hints are lost
        handles = [client.start(answered.options(queue="q"), number) for number in range(20)]
        assert [handle.result(timeout=TIMEOUT) for handle in handles] == [*range(20)]
    serving.join(TIMEOUT)
