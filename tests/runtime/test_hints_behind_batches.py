"""The hints of a lone batch follow it on its connection; where that fails, they go as any others do."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from dbosflow import Engine
from dbosflow._store import batch
from dbosflow._store.notify import stream_topic
from dbosflow._store.wire import Statement
from tests.runtime.bench import Bench, record, write

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

TOPIC = stream_topic("w", "out")


async def test_the_hints_of_a_lone_value_follow_it(database_url: str) -> None:
    """The journal does not send them again."""
    async with Bench(database_url) as bench:
        run = await bench.run("w")
        await bench.forget()
        for value in "12":
            write(run, value)
            await bench.journal.flush()
        assert [list(rows.topics) for rows in bench.sent] == [[TOPIC]] * 2
        assert (bench.topics, bench.notified[-2:]) == ([TOPIC] * 2, [True] * 2)


async def test_those_of_many_values_and_of_many_runs_do_not(database_url: str) -> None:
    """The next batch would wait for them, and with many rows nobody waits for one round trip less."""
    async with Bench(database_url) as bench:
        run, other = await bench.run("w"), await bench.run("other")
        await bench.forget()
        write(run, "1", "2")
        await bench.journal.flush()
        write(run, "3")
        write(other, "4")
        await bench.journal.flush()
        assert [list(rows.topics) for rows in bench.sent] == [[], []]
        assert bench.notified[-2:] == [False, False]


async def test_a_record_that_nobody_elsewhere_waits_for_has_none(database_url: str) -> None:
    """A step is one statement."""
    async with Bench(database_url) as bench:
        run = await bench.run("w")
        await record(run, "a")
        assert bench.sent[-1].topics == ()


async def test_hints_that_fail_behind_a_batch_go_as_others_do_and_so_do_the_next(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their lock may be held for long: the value is durable, and no batch waits for the lock again for some seconds."""

    def failing(_schema: str, topics: Iterable[str]) -> tuple[Statement, list[bytes | None]]:
        assert list(topics) == [TOPIC]
        return Statement(b"fails", b"SELECT 1 / $1", (23,)), [bytes(4)]

    monkeypatch.setattr(batch, "behind", failing)
    async with Bench(database_url) as bench:
        run = await bench.run("w")
        await bench.forget()
        write(run, "1")
        await bench.journal.flush()
        write(run, "2")
        await bench.journal.flush()
        assert await bench.rows("SELECT sum(count) FROM dbosflow.stream_block") == [(2,)]
        assert [list(rows.topics) for rows in bench.sent] == [[TOPIC], []]
        assert (bench.topics, bench.notified[-2:]) == ([TOPIC] * 2, [False] * 2)


async def test_a_connection_that_is_cut_is_logged_as_lost(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Wherever in the batch and its hints that is noticed; both are sent again."""
    async with Bench(database_url) as bench:
        run = await bench.run("w")
        await bench.forget()
        write(run, "1")
        await bench.journal.flush()
        with socket.socket(fileno=os.dup((await bench.lease.connection()).fileno())) as wire:
            wire.shutdown(socket.SHUT_RDWR)
        write(run, "2")
        await bench.journal.flush()
        assert await bench.rows("SELECT sum(count) FROM dbosflow.stream_block") == [(2,)]
    assert "the connection was lost" in caplog.text
    assert "pipeline mode" not in caplog.text


async def test_an_engine_knows_the_sessions_that_send_its_own_hints(database_url: str) -> None:
    """It hears them, too, and was woken without them."""
    async with Engine(database_url) as engine, Engine(database_url) as other:
        core = engine._core
        for one, is_own in ((core, True), (other._core, False)):
            async with one.services.enqueuer._session.turn():
                pass
            services = (one.services.notifier, one.services.enqueuer)
            pids = [one.executor.lease.backend_pid, *(service.backend_pid for service in services)]
            assert [pid is not None and core._is_own_hint(pid) for pid in pids] == [is_own] * 3
