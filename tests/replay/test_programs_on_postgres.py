"""The same programs on a real engine: its journal decides what shares a commit, its claimer hands the replays out."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import psycopg
import pytest

from dbosflow import Engine, workflow
from dbosflow._store.notify import notify, queue_topic
from tests.replay.model import Program, Trace
from tests.replay.programs import PROGRAMS
from tests.replay.tight_programs import REPLAYED
from tests.suspending import AT_ONCE, suspend_at_once

TRACES: dict[str, Trace] = {}


@workflow
async def program_on_postgres(number: int, workflow_id: str) -> Any:
    """Runs the program of that number."""
    return await PROGRAMS[number](TRACES[workflow_id])


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
async def test_a_workflow_that_another_worker_takes_over_goes_on_as_its_records_say(
    program: Program, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """After each of its commits: no outcome astray, no recorded step again, and with all on record the same result."""
    await _crash_everywhere(PROGRAMS.index(program), database_url)
    assert "no longer asks for" not in caplog.text


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
async def test_a_workflow_that_leaves_memory_goes_on_as_its_records_say(
    program: Program, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it only waits, live and after a crash."""
    suspend_at_once(monkeypatch)
    await _crash_everywhere(PROGRAMS.index(program), database_url, suspend_after=AT_ONCE)


async def _crash_everywhere(number: int, url: str, **settings: Any) -> None:
    async with (
        Engine(url, **settings) as engine,
        await psycopg.AsyncConnection.connect(url, autocommit=True) as connection,
    ):
        TRACES["live"] = Trace(number)
        live = await engine.run_async(program_on_postgres.options(workflow_id="live"), number, "live")
        assert TRACES["live"].swapped == []
        turns = await _turns(connection)
        replays = {f"after-{turn}": turn for turn in range(1, turns + 1)}
        for workflow_id, turn in replays.items():
            TRACES[workflow_id] = Trace(REPLAYED + turn)
            await _copy(connection, workflow_id, number, turn)
        await notify(connection, "dbosflow", [queue_topic("")])
        results = await asyncio.gather(*(engine.handle(workflow_id).result_async(20) for workflow_id in replays))
        assert results[-1] == json.loads(json.dumps(live))
        for workflow_id, turn in replays.items():
            trace = TRACES.pop(workflow_id)
            assert trace.swapped == []
            assert [key for key, _ in trace.bodies if key in await _recorded(connection, turn)] == []


async def _turns(connection: psycopg.AsyncConnection[Any]) -> int:
    cursor = await connection.execute("SELECT max(turn) + 1 FROM dbosflow.step WHERE workflow_id = 'live'")
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def _recorded(connection: psycopg.AsyncConnection[Any], turn: int) -> set[str]:
    query = "SELECT key FROM dbosflow.step WHERE workflow_id = 'live' AND kind = 'step' AND turn < %s"
    return {key for (key,) in await (await connection.execute(query, (turn,))).fetchall()}


async def _copy(connection: psycopg.AsyncConnection[Any], workflow_id: str, number: int, turn: int) -> None:
    """The workflow as a worker left it that died when ``turn`` commits were durable."""
    await connection.execute(
        """INSERT INTO dbosflow.step (workflow_id, key, kind, epoch, seq, turn, attempt, output, error, child_id,
                                      wake_at, started_at, recorded_at)
           SELECT %(id)s, key, kind, epoch, seq, turn, attempt, output, error, child_id,
                  wake_at, started_at, recorded_at
           FROM dbosflow.step WHERE workflow_id = 'live' AND turn < %(turn)s""",
        {"id": workflow_id, "turn": turn},
    )
    await connection.execute(
        """INSERT INTO dbosflow.workflow (id, name, status, input, epoch)
           VALUES (%s, 'program_on_postgres', 'queued', %s, 1)""",
        (workflow_id, json.dumps({"number": number, "workflow_id": workflow_id})),
    )
