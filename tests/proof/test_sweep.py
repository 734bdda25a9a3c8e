"""A sample of the crash-point sweep; all of it is ``python -m tests.proof.sweep``.

Each scenario has a process of its own: it forks, which a process with threads must not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.behaviour.tables import rows
from tests.proof.forking import FORKED
from tests.proof.points import How
from tests.proof.scenarios import SCENARIOS
from tests.proof.sweep import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SAMPLE = int(os.environ.get("DBOSFLOW_TEST_SWEEP", "3"))

ONE_PROCESS = """
import json, pathlib, sys
from tests.proof.injection import Trap
from tests.proof.forked import said, scenario_process
from tests.proof.points import How, Point
url, directory, how = sys.argv[1], pathlib.Path(sys.argv[2]), How(sys.argv[3])
status = scenario_process(url, directory, "sequence", "r1", Trap(Point("record", "r1.sequence", "swept#1"), how)).end()
print(json.dumps([status, [line for line in said(directory / "points") if line[0] == "sprung"]]))
"""


def python(*arguments: str) -> Any:
    """The last line that a process of Python says."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_crash_at_any_record_changes_nothing(database_url: str, scenario: str) -> None:
    """Nor does one in the recovery from it: result, records, streams and readers are as without them."""
    options = ["--url", database_url, "--scenario", scenario, "--sample", str(SAMPLE), "--deaths", "2"]
    tally = python("-m", "tests.proof.sweep", *options)
    assert tally["violations"] == []
    assert sum(tally["tried"].values()) == SAMPLE
    assert tally["points"] > SAMPLE


@pytest.mark.parametrize("scenario", FORKED)
def test_a_fork_from_any_turn_comes_to_the_same_end(database_url: str, scenario: str) -> None:
    """Also of what was compacted: result, records, streams, and the order of the tables are those of the original."""
    tally = python("-m", "tests.proof.sweep", "--url", database_url, "--scenario", scenario, "--forks")
    assert tally["violations"] == []
    assert tally["tried"]["forked"] > 1


@pytest.mark.parametrize("how", How)
def test_a_trap_does_at_its_point_what_it_says(database_url: str, tmp_path: Path, how: How) -> None:
    """The record is there if it had been committed, the process is not if it was to die, and it happens once."""
    status, sprung = python("-c", ONE_PROCESS, database_url, str(tmp_path), how)
    assert status == (-9 if how.deadly else 0)
    assert sprung == [["sprung", how]]
    recorded = {key for (key,) in rows(database_url, "SELECT key FROM dbosflow.step WHERE kind = 'step'")}
    assert "swept#0" in recorded
    if how is How.UNSENT:
        assert "swept#1" not in recorded
    if how in {How.COMMITTED, How.UNANSWERED, How.CUT}:
        assert "swept#1" in recorded
    ((status, ended),) = rows(database_url, "SELECT status, ended_at IS NOT NULL FROM dbosflow.workflow")
    assert (status, ended) == (("running", False) if how.deadly else ("succeeded", True))
