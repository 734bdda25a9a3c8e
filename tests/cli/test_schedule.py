"""``dbosflow schedule``, and what ``doctor`` says of schedules."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from dbosflow import Engine, Schedule
from dbosflow.cli.doctor.finding import Verdict
from dbosflow.cli.doctor.schedules import judge_schedules

if TYPE_CHECKING:
    from tests.cli.shell import Shell


def test_schedules_are_listed_paused_and_resumed(shell: Shell, database_url: str) -> None:
    with Engine(database_url, executes=False) as engine:
        engine.schedules.apply(Schedule("nightly", "report", cron="0 3 * * *", timezone="Europe/Oslo", args={"n": 1}))
        engine.schedules.apply(Schedule("often", "poll", every=90, queue="q"))
    lines = shell.run("schedule", "list").out.splitlines()
    assert lines[0].split() == ["NAME", "WORKFLOW", "QUEUE", "TIMES", "NEXT", "LAST", "MISSED"]
    assert lines[1].startswith("nightly  report    default  0 3 * * * Europe/Oslo  20")
    assert lines[2].startswith("often    poll      q        every 1 min 30 s       20")
    assert shell.run("schedule", "pause", "nightly", "often").out == "nightly  paused\noften  paused\n"
    (resumed,) = json.loads(shell.run("schedule", "resume", "often", "--json").out)
    assert (resumed["paused"], resumed["every"]) == (False, 90)
    (found, _) = json.loads(shell.run("schedule", "list", "--json").out)
    assert (found["name"], found["args"], found["paused"]) == ("nightly", {"n": 1}, True)


def test_schedules_are_triggered_backfilled_and_deleted(shell: Shell, database_url: str) -> None:
    with Engine(database_url, executes=False) as engine:
        engine.schedules.apply(Schedule("nightly", "report", cron="0 3 * * *"))
        workflow_id = shell.run("schedule", "trigger", "nightly").out.strip()
        assert engine.handle(workflow_id).info().name == "report"
        backfill = ("schedule", "backfill", "nightly", "--from", "2026-03-01T10:00Z", "--to", "2026-03-04T10:00Z")
        assert json.loads(shell.run(*backfill, "--json").out) == {"name": "nightly", "started": 3}
        assert shell.run("schedule", "delete", "nightly").out == "nightly  deleted\n"
        done = shell.run("schedule", "delete", "nightly", "--json")
        assert (done.status, json.loads(done.err)["error"]["type"]) == (1, "ScheduleNotFoundError")
        assert engine.schedules.list() == []


def test_a_backfill_of_too_much_starts_nothing(shell: Shell, database_url: str) -> None:
    with Engine(database_url, executes=False) as engine:
        engine.schedules.apply(Schedule("often", "poll", every=60))
        done = shell.run("schedule", "backfill", "often", "--from", "2h", "--to", "1h", "--limit", "10")
        assert (done.status, engine.list_workflows()) == (1, [])
        assert "more than 10 ticks" in done.err


def facts(**changed: Any) -> dict[str, Any]:
    """Those of a schedule with which everything is well."""
    fine: dict[str, Any] = {"name": "s", "module": "app", "overlap": "skip", "paused_because": None, "missed": 0}
    return fine | {"late": -5.0, "declared": True, "blocked": None} | changed


@pytest.mark.parametrize(
    ("changed", "any_worker", "verdict", "said"),
    [
        ({}, True, Verdict.OK, "1 schedule"),
        ({"paused_because": "request", "late": None}, True, Verdict.OK, "1 of them paused"),
        ({"late": None}, True, Verdict.OK, "1 schedule"),
        ({"paused_because": "gone", "declared": False}, True, Verdict.WARNING, "app declares it no longer"),
        ({"late": 90.0}, True, Verdict.WARNING, "should have started a workflow 1 min 30 s ago"),
        ({"late": 90.0}, False, Verdict.PROBLEM, "should have started a workflow"),
        ({"declared": False}, True, Verdict.WARNING, "no live worker's code has it"),
        ({"declared": False}, False, Verdict.OK, "1 schedule"),
        ({"module": None, "declared": False}, True, Verdict.OK, "1 schedule"),
        ({"blocked": "s@x"}, True, Verdict.WARNING, "starts nothing while its workflow 's@x' is blocked"),
        ({"blocked": "s@x", "overlap": "allow"}, True, Verdict.OK, "1 schedule"),
    ],
)
def test_what_doctor_says_of_a_schedule(
    changed: dict[str, Any],
    any_worker: bool,  # noqa: FBT001 (of the parameters)
    verdict: Verdict,
    said: str,
) -> None:
    finding = judge_schedules([facts(**changed)], any_worker=any_worker)
    assert finding.verdict is verdict
    assert said in finding.found


def test_doctor_finds_a_schedule_that_nobody_serves(shell: Shell, database_url: str) -> None:
    with Engine(database_url, executes=False) as engine:
        engine.schedules.apply(Schedule("s", "report", every=60))
    checks = json.loads(shell.run("doctor", "--json").out)["checks"]
    (found,) = [one for one in checks if one["check"] == "schedules"]
    assert (found["verdict"], found["facts"]["schedules"][0]["declared"]) == ("ok", False)
