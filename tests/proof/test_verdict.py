"""The checkers of a sweep report each violation that is planted in the tables, and nothing else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest

from dbosflow import Engine
from tests.behaviour import ledger
from tests.chaos.history.workflow_history import histories
from tests.proof import verdict
from tests.proof.points import Point, stored
from tests.proof.scenarios import SCENARIOS, Client
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def url(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database in which two scenarios have run, and all is well."""
    monkeypatch.setenv(ledger.VARIABLE, str(tmp_path / "ledger"))

    async def run() -> None:
        async with Engine(database_url, compact_every=None) as engine:
            for name in ("retries", "sleeping"):
                await SCENARIOS[name](Client(engine, "r1", lambda *_: None))

    asyncio.run(run())
    return database_url


def plant(url: str, statement: LiteralString) -> None:
    """Changes what the database holds, as only a fault could."""
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute(statement).rowcount > 0


def found(url: str, right: verdict.Outcome, **observed: Any) -> list[str]:
    """All that is wrong."""
    return [*verdict.violations(url, right, **({"acknowledged": (), "ends": (), "readings": ()} | observed))]


def right(url: str) -> verdict.Outcome:
    """What came of it."""
    return verdict.outcome(histories(url))


def test_nothing_is_wrong_with_what_went_well(url: str) -> None:
    """Nor with another run of the same, whatever it is called."""
    plant(url, "UPDATE dbosflow.step SET workflow_id = 'other.' || substr(workflow_id, 4)")
    plant(url, "UPDATE dbosflow.stream_block SET workflow_id = 'other.' || substr(workflow_id, 4)")
    before = right(url)
    assert before["retries"]["end"][1:3] == ["succeeded", [3, 3, 4]]
    plant(url, "UPDATE dbosflow.workflow SET id = 'other.' || substr(id, 4)")
    assert verdict.wrong_rows(url) == []
    assert right(url).keys() == before.keys()
    assert verdict.left_over(url, observers=0) == []


PLANTED: dict[str, tuple[LiteralString, str]] = {
    "an overlap of offsets": (
        """UPDATE dbosflow.stream_block SET count = count + 1
           WHERE workflow_id = 'r1.retries' AND key = 'tokens' AND "offset" = 0""",
        "a gap or an overlap in the offsets",
    ),
    "a gap in the offsets": (
        "DELETE FROM dbosflow.stream_block WHERE workflow_id = 'r1.retries' AND key = 'resumed' AND \"offset\" = 0",
        "a gap or an overlap in the offsets",
    ),
    "a value that is there twice": (
        """UPDATE dbosflow.stream_block SET values = '["begin", "begin"]', count = 2
           WHERE workflow_id = 'r1.retries' AND key = 'tokens' AND "offset" = 0""",
        "instead of ['begin'",
    ),
    "another value": (
        """UPDATE dbosflow.stream_block SET values = '["other"]'
           WHERE workflow_id = 'r1.retries' AND key = 'tokens' AND "offset" = 0""",
        "retries / streams / tokens",
    ),
    "a lost stream": (
        "DELETE FROM dbosflow.stream_block WHERE workflow_id = 'r1.sleeping'",
        "sleeping / streams / values",
    ),
    "a missing end": (
        "DELETE FROM dbosflow.stream_block WHERE workflow_id = 'r1.sleeping' AND kind = 'complete'",
        "a stream without an end",
    ),
    "two ends": (
        """INSERT INTO dbosflow.stream_block
           SELECT workflow_id, key, "offset" + 1, count, kind, values, bytes, producer, producer_seq, attempt, epoch
           FROM dbosflow.stream_block WHERE workflow_id = 'r1.sleeping' AND kind = 'complete'""",
        "a frame after the terminal one",
    ),
    "a wrong cause": (
        "UPDATE dbosflow.stream_block SET kind = 'cancelled' WHERE workflow_id = 'r1.sleeping' AND kind = 'complete'",
        "sleeping / streams / values / end",
    ),
    "a row of a stale epoch": (
        "UPDATE dbosflow.stream_block SET epoch = 0 WHERE workflow_id = 'r1.sleeping' AND \"offset\" = 1",
        "an epoch that wrote after its successor",
    ),
    "a row of an epoch that never was": (
        "UPDATE dbosflow.step SET epoch = 9 WHERE workflow_id = 'r1.sleeping'",
        "a row of an epoch that its workflow never had",
    ),
    "a rollback that is gone": (
        "DELETE FROM dbosflow.stream_block WHERE workflow_id = 'r1.retries' AND kind = 'rollback'",
        "uncommitted though its workflow has ended",
    ),
    "a rollback of the wrong values": (
        "UPDATE dbosflow.stream_block SET values = '[[0, 1]]' WHERE workflow_id = 'r1.retries' AND kind = 'rollback'",
        "a rollback that names other offsets",
    ),
    "another outcome of a step": (
        "UPDATE dbosflow.step SET output = '77' WHERE workflow_id = 'r1.retries' AND key = 'swept_and_kept#0'",
        "retries / records / swept_and_kept#0",
    ),
    "a lost record": (
        "DELETE FROM dbosflow.step WHERE workflow_id = 'r1.retries' AND key = 'swept_and_kept#0'",
        "retries / records / swept_and_kept#0",
    ),
    "a record that nothing ran for": (
        "UPDATE dbosflow.step SET attempt = '8.1' WHERE workflow_id = 'r1.retries' AND key = 'swept_and_kept#0'",
        "which never ran",
    ),
    "another result": (
        "UPDATE dbosflow.workflow SET output = '[]' WHERE id = 'r1.retries'",
        "retries / end",
    ),
    "another end": (
        "UPDATE dbosflow.workflow SET status = 'cancelled' WHERE id = 'r1.retries'",
        "retries / end",
    ),
    "no end": (
        "UPDATE dbosflow.workflow SET status = 'running', ended_at = NULL WHERE id = 'r1.retries'",
        "a workflow that has not ended",
    ),
    "an end without its time": (
        "UPDATE dbosflow.workflow SET ended_at = NULL WHERE id = 'r1.retries'",
        "an end without its time",
    ),
    "an owner of what has ended": (
        "UPDATE dbosflow.workflow SET worker_id = gen_random_uuid() WHERE id = 'r1.retries'",
        "an ended workflow that is owned",
    ),
    "a workflow that is gone": (
        "DELETE FROM dbosflow.workflow WHERE id = 'r1.sleeping'",
        "a row of a workflow that is not there",
    ),
    "a sleep that was too short": (
        "UPDATE dbosflow.step SET wake_at = recorded_at + interval '1 hour' WHERE kind = 'sleep'",
        "a sleep that was over too early",
    ),
    "attempts that contradict each other": (
        """UPDATE dbosflow.stream_block SET values = '[7]', count = 1
           WHERE workflow_id = 'r1.retries' AND key = 'kept' AND "offset" = 0""",
        "contradicts other attempts",
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_violation_is_seen(url: str, planted: str) -> None:
    """Straight in the tables, as only a fault could put it there."""
    statement, expected = PLANTED[planted]
    before = right(url)
    assert found(url, before) == []
    plant(url, statement)
    assert any(expected in what for what in found(url, before)), found(url, before)


@pytest.mark.parametrize("line", ["again", "late"])
def test_a_step_that_was_executed_although_it_was_on_record_is_seen(url: str, line: str) -> None:
    """The same attempt twice, or another one after the record."""
    attempt = next(
        entry.what[3] for entry in ledger.entries() if entry.what[:3] == ["begin", "r1.retries", "swept_and_kept#0"]
    )
    ledger.note(["begin", "r1.retries", "swept_and_kept#0", attempt if line == "again" else "2.1"])
    expected = "ran 2 times" if line == "again" else "after its record"
    assert any(expected in what for what in found(url, right(url)))


def test_what_a_client_was_told_and_does_not_stand_is_seen(url: str) -> None:
    """A start that was acknowledged, an end that is another one, or none."""
    kept = {"acknowledged": ["r1.retries"], "ends": [["r1.retries", "succeeded", [3, 3, 4]]]}
    assert found(url, right(url), **kept) == []
    assert "acknowledged" in found(url, right(url), acknowledged=["r1.lost"])[0]
    assert "is not there" in found(url, right(url), ends=[["r1.lost", "succeeded", 1]])[0]
    assert "was told" in found(url, right(url), ends=[["r1.retries", "succeeded", 1]])[0]
    assert "was told" in found(url, right(url), ends=[["r1.retries", "cancelled", None]])[0]


def seen_of(url: str) -> Iterator[dict[str, Any]]:
    """What readers of one stream see in each view, and some that saw something else."""
    history = next(history for history in histories(url) if history.workflow_id == "r1.retries")
    for view in ("live", "committed", "raw"):
        values = [[offset, value] for offset, value in history.values("tokens", committed=view != "raw")]
        yield {"id": "r1.retries", "key": "tokens", "view": view, "mode": "late", "end": [True, None], "seen": values}


@pytest.mark.parametrize("fault", ["none", "a value twice", "a value missed", "the end", "the cause", "never came"])
def test_a_reader_that_saw_something_else_is_seen(url: str, fault: str) -> None:
    """Or that did not come to the end."""
    for reading in seen_of(url):
        seen = reading.pop("seen")
        match fault:
            case "a value twice":
                seen.insert(2, seen[2])
            case "a value missed":
                del seen[1]
            case "the end":
                seen.pop()
            case "the cause":
                reading["end"] = [True, "StreamFailedError"]
            case "never came":
                reading["error"] = "a reader has not come to an end"
        reading["segments"] = [[0, seen]]
        assert bool(found(url, right(url), readings=[reading])) == (fault != "none")


def test_a_durable_record_that_is_no_point_of_the_sweep_is_seen(url: str) -> None:
    """Each kind of row: or a sweep would claim to have covered what it never came by."""
    named = stored(url)
    assert {point.what for point in named} == {"start", "end", "record", "block"}
    assert verdict.unnamed(url, named) == []
    for point in named:
        assert verdict.unnamed(url, named - {point}) == [f"no point of the sweep: {point}"]
    assert Point("end", "r1.retries") in named


def test_what_is_left_when_all_have_gone_is_seen(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A live lease, a workflow that somebody owns, a session in a transaction, sessions of nobody."""
    monkeypatch.setattr(verdict, "PATIENCE", 0.0)
    with Engine(url, executes=False):
        assert any("sessions" in what for what in verdict.left_over(url, observers=0))
    eventually(lambda: verdict.left_over(url, observers=0) == [])
    with psycopg.connect(url) as connection:
        connection.execute("SELECT 1")
        assert any("idle in transaction" in what for what in verdict.left_over(url, observers=0))
    plant(url, "UPDATE dbosflow.worker SET state = 'live'")
    plant(url, "UPDATE dbosflow.workflow SET worker_id = gen_random_uuid() WHERE id = 'r1.retries'")
    left = verdict.left_over(url, observers=0)
    assert any("the lease" in what for what in left)
    assert any("has an owner" in what for what in left)
