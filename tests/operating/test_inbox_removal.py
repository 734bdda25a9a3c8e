"""Received messages leave their inbox, also where a snapshot has kept them for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from dbosflow import Engine, continue_as_new, recv_async, workflow
from dbosflow._runtime.streams import inbox_trimmer
from dbosflow.errors import InboxFullError
from tests.behaviour.programs.messaging import receiving
from tests.behaviour.tables import records
from tests.support import eventually

if TYPE_CHECKING:
    import pytest


def test_an_inbox_that_was_full_under_an_old_snapshot_gets_room(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its receiver has received all and asks no more; who sends is refused until what was kept is removed."""
    monkeypatch.setattr(inbox_trimmer, "AGAIN", 0.05)
    with Engine(database_url, inbox_values=100) as engine, psycopg.connect(database_url) as backup:
        backup.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        backup.execute("SELECT 1 FROM dbosflow.workflow")
        engine.start(receiving.options(workflow_id="w"), 101)
        for number in range(100):
            engine.send("w", number)
        eventually(lambda: len(records(database_url, "w")) >= 100)
        assert not _sent(engine)
        backup.commit()
        eventually(lambda: _sent(engine))
        assert engine.handle("w").result(timeout=60) == [*range(100), "late"]


@workflow(name="removal endless")
async def receiving_for_ever(count: int = 0) -> int:
    for _ in range(50):
        if await recv_async() == "late":
            return count
        count += 1
    return continue_as_new(count)


def test_a_full_inbox_gets_room_from_the_next_owner_if_the_one_before_could_not(database_url: str) -> None:
    """That was asked for by an iteration before, and has ended with its worker."""
    with psycopg.connect(database_url) as backup:
        with Engine(database_url, inbox_values=100, grace=0) as engine:
            backup.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            backup.execute("SELECT 1 FROM dbosflow.workflow")
            engine.start(receiving_for_ever.options(workflow_id="w"))
            for number in range(100):
                engine.send("w", number)
            eventually(lambda: engine.workflows.get("w").iteration == 2)
        backup.commit()
        with Engine(database_url, inbox_values=100) as engine:
            eventually(lambda: _sent(engine))
            assert engine.handle("w").result(timeout=60) == 100


def _sent(engine: Engine) -> bool:
    try:
        engine.send("w", "late")
    except InboxFullError:
        return False
    return True
