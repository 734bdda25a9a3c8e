"""Opening an engine that is open, and what a first opening leaves in the log."""

from __future__ import annotations

import asyncio
import logging
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, workflow
from dbosflow._store.connect import connect, connect_async
from dbosflow.errors import DatabaseUnavailableError, EngineClosedError

if TYPE_CHECKING:
    from collections.abc import Callable


@workflow
def opened() -> int:
    """Returns at once."""
    return 1


def test_an_open_engine_is_opened_to_itself(database_url: str) -> None:
    """It opens once, however often it is asked to; the first close closes it, and it can be opened anew."""
    engine = Engine(database_url)
    for _ in range(2):
        with ThreadPoolExecutor() as pool:
            assert set(pool.map(lambda _: engine.open(), range(8))) == {engine}
        assert asyncio.run(engine.open_async()) is engine
        assert engine.run(opened) == 1
        engine.close()
        with pytest.raises(EngineClosedError):
            engine.run(opened)


async def test_an_engine_that_is_open_on_a_loop_is_opened_to_itself(database_url: str) -> None:
    """By tasks at once, and by a blocking call, which has nothing to wait for."""
    engine = Engine(database_url)
    assert set(await asyncio.gather(*(engine.open_async() for _ in range(4)))) == {engine}
    assert engine.open() is engine
    async with engine as same:
        assert await same.run_async(opened) == 1
    with pytest.raises(EngineClosedError):
        await engine.run_async(opened)


def test_log_lines_of_alembic_are_not_shown_to_the_user(
    empty_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It logs only its own work while a schema is made; its logger is afterwards as it was."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="alembic")
    with Engine(empty_database_url):
        pass
    assert [record.name for record in caplog.records if record.name.startswith("alembic")] == []
    assert logging.getLogger("alembic").level == logging.DEBUG


def in_a_thread(url: str, **settings: Any) -> None:
    connect(url, **settings).close()


def on_a_loop(url: str, **settings: Any) -> None:
    async def main() -> None:
        await (await connect_async(url, **settings)).close()

    asyncio.run(main())


@pytest.mark.parametrize("opening", [in_a_thread, on_a_loop])
@pytest.mark.parametrize("silent", [False, True])
def test_a_server_that_is_away_is_logged_before_it_is_an_error(
    caplog: pytest.LogCaptureFixture, opening: Callable[..., None], *, silent: bool
) -> None:
    """After a second, with the place and the reason, once; never a password. One that is there says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        if not silent:
            listening.close()
        url = f"postgresql://ann:hunter2@127.0.0.1:{port}/shop"
        with pytest.raises(DatabaseUnavailableError):
            opening(url, timeout=2.5 if silent else 1.5)
    (record,) = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert record.name == "dbosflow.database"
    said = record.getMessage()
    assert f"127.0.0.1:{port}, database 'shop', user 'ann' yet: " in said
    assert any(why in said for why in (("not answered yet", "timeout expired") if silent else ("Connection refused",)))
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("opening", [in_a_thread, on_a_loop])
def test_opening_on_a_server_that_answers_logs_no_warning(
    database_url: str, caplog: pytest.LogCaptureFixture, opening: Callable[..., None]
) -> None:
    """Nor one that is given up before a second is over."""
    opening(database_url)
    with pytest.raises(DatabaseUnavailableError):
        opening("postgresql://ann@127.0.0.1:1/shop", timeout=0.1)
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []
