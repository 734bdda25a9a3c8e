"""The benchmarks run, and their verdicts are those of the targets. How fast anything is, no test asks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.report import Line, lines
from benchmarks.rounds import Results
from benchmarks.table import ROWS, WORK, Row

ROOT = Path(__file__).parents[2]
PATIENCE = 90.0


def run(*words: str) -> str:
    """What a command of the benchmarks prints."""
    python_path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", *words],
        env=os.environ | {"PYTHONPATH": python_path},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_list_names_each_row_and_what_is_left_out() -> None:
    listed = run("benchmarks", "--list").splitlines()
    assert [line.split()[0] for line in listed if not line.startswith("left out:")] == [row.name for row in ROWS]
    assert any(line.startswith("left out: send/recv") for line in listed)


def test_a_row_is_measured_and_written_down(admin_url: str, tmp_path: Path) -> None:
    """On a server that is there, with the contenders that need nothing else."""
    written = tmp_path / "found.json"
    words = ["--url", admin_url, "--quick", "--only", "steps_sync", "--contenders", "ours", "limit"]
    table = run("benchmarks", *words, "--json", str(written))
    assert "sequential steps of one sync workflow" in table
    found = json.loads(written.read_text())
    assert {name: len(rounds) for name, rounds in found["rounds"]["steps_sync"].items()} == {"ours": 1, "limit": 1}
    (row,) = found["rows"]
    assert row["figures"]["ours"] > 0
    assert row["against_limit"] > 0


@pytest.mark.parametrize(
    ("scenario", "size", "figure"),
    [
        ("steps_100", 100, "rate"),
        ("stream_50", 100, "rate"),
        ("stream_steps", 100, "rate"),
        ("latency_50", 2, "p99"),
        ("stream_end", 1, "p50"),
        ("queue", 5, "rate"),
        ("queue_idle", 1, "p50"),
        ("recovery", 5, "seconds"),
    ],
)
def test_a_scenario_of_ours_runs(database_url: str, scenario: str, size: int, figure: str) -> None:
    """With hardly any work."""
    assert json.loads(run("benchmarks.measure", "ours", scenario, database_url, str(size)))[figure] > 0


def test_growth_is_measured(admin_url: str) -> None:
    """Of a stream from a few blocks to a few more."""
    table = run("benchmarks.growth", "--url", admin_url, "--rows", "200", "--rounds", "1", "--only", "stream")
    assert [line.split("  ")[1] for line in table.splitlines()[1:4]] == [
        "the first page",
        "the last page",
        "a value from outside",
    ]


def test_every_row_has_work_for_us() -> None:
    assert {row.scenario for row in ROWS} == set(WORK)
    for work in WORK.values():
        for quick in (False, True):
            assert work.size("ours", quick=quick)


def test_a_rate_is_better_when_it_is_higher_and_a_time_when_it_is_lower() -> None:
    rate = Row("r", "", "s", "rate", "/s", faster=6, near=0.75, more_is_better=True)
    assert Line(rate, {"ours": 800.0, "peer": 100.0, "limit": 1000.0}).verdict == "met"
    assert Line(rate, {"ours": 500.0, "peer": 100.0, "limit": 500.0}).verdict == "MISSED"
    assert Line(rate, {"ours": 700.0, "peer": 100.0, "limit": 1000.0}).verdict == "MISSED"
    time = Row("t", "", "s", "p50", "ms", faster=2.5, near=1.4)
    assert Line(time, {"ours": 1.0, "peer": 4.0, "limit": 0.9}).verdict == "met"
    assert Line(time, {"ours": 2.0, "peer": 4.0, "limit": 2.0}).verdict == "MISSED"
    assert Line(time, {"ours": 1.0, "peer": 4.0, "limit": 0.5}).verdict == "MISSED"


def test_absolute_targets_need_nobody_else() -> None:
    assert Line(Row("a", "", "s", "p50", "ms", at_most=4), {"ours": 4.1}).verdict == "MISSED"
    assert Line(Row("a", "", "s", "p50", "ms", at_most=4), {"ours": 4.0}).verdict == "met"
    assert Line(Row("a", "", "s", "rate", "/s", at_least=10), {"ours": 9.0}).verdict == "MISSED"
    assert Line(Row("a", "", "s", "threads", "", at_most=0), {"ours": 0.0}).verdict == "met"


def test_a_target_whose_measure_is_missing_is_neither_met_nor_missed() -> None:
    row = Row("r", "", "s", "rate", "/s", faster=6, near=0.75, more_is_better=True)
    assert Line(row, {"ours": 800.0, "limit": 1000.0}).verdict == "?"
    assert Line(row, {"ours": 100.0, "limit": 1000.0}).verdict == "MISSED"
    assert Line(row, {}).verdict == "?"
    assert not Line(Row("r", "", "s", "rate", "/s"), {"ours": 1.0}).verdict


def test_a_row_has_the_medians_of_the_rounds_and_the_peer_may_have_a_figure_of_its_own() -> None:
    results = Results({"ours": "we", "peer": "they"})
    for ours, peer in ((1.0, 5.0), (9.0, 7.0), (2.0, 6.0)):
        results.add("s", "ours", {"p50": ours})
        results.add("s", "peer", {"p50": 100.0, "p50_tuned": peer})
    (line,) = lines(results, [Row("t", "", "s", "p50", "ms", peer_figure="p50_tuned")])
    assert line.figures == {"ours": 2.0, "peer": 6.0}
    assert line.faster == 3.0
