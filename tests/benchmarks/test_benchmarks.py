"""The benchmarks run, and their verdicts are those of the targets. How fast anything is, no test asks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from benchmarks import loop
from benchmarks.halves import half
from benchmarks.report import Line, lines, loops, others, table
from benchmarks.rounds import Results
from benchmarks.table import CONTENDERS, MAIN, OTHERS, ROWS, WORK, Row
from tests.server import own_server

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

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
    assert any(line.startswith("left out: memory of workflows") for line in listed)


def test_a_measurement_ends_with_the_command_that_wanted_it() -> None:
    """It would keep the machine busy, and spoil what is measured next. This one waits for a server that is silent."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/none"
        words = [sys.executable, "-m", "benchmarks.measure", "limit", "steps_sync", url, "1"]
        with (
            subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True) as measurement,
            silent.accept()[0],
        ):
            assert measurement.stdin
            measurement.stdin.close()
            assert measurement.wait(PATIENCE) == -signal.SIGKILL


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
        ("queue", 5, "rate"),
        ("queue_many", 5, "rate"),
        ("queue_limited", 5, "rate"),
        ("queue_partitions", 5, "rate"),
        ("queue_idle", 1, "p50"),
        ("recovery", 5, "seconds"),
    ],
)
def test_a_scenario_of_ours_runs(database_url: str, scenario: str, size: int, figure: str) -> None:
    """With hardly any work."""
    assert json.loads(run("benchmarks.measure", "ours", scenario, database_url, str(size)))[figure] > 0


def test_the_limit_of_an_idle_queue_is_measured(empty_database_url: str) -> None:
    """By psycopg alone, in two processes, with our statements: nobody else has claimed or ended anything."""
    run("benchmarks.measure", "limit", "prepare", empty_database_url, "0")
    assert json.loads(run("benchmarks.measure", "limit", "queue_idle", empty_database_url, "1"))["p50"] > 0
    with psycopg.connect(empty_database_url) as connection:
        rows = connection.execute("SELECT status, epoch, count(*) FROM dbosflow.workflow GROUP BY 1, 2").fetchall()
    assert rows == [("succeeded", 1, 4)]  # with three that are not counted


def test_a_workflow_without_steps_is_one_commit_of_the_limit() -> None:
    """As it is one row: whoever counted its start and its end as two would flatter us."""
    with own_server() as server:  # what is counted are the commits of a server, whoever's they are
        run("benchmarks.measure", "limit", "prepare", server.url, "0")
        lone = json.loads(run("benchmarks.measure", "limit", "start_to_result", server.url, "200"))
        whole = json.loads(run("benchmarks.measure", "limit", "no_step", server.url, "2000"))
    assert round(lone["commits"]) == 1  # and what the server itself commits meanwhile
    assert whole["commits"] < 100 / 2000


def test_the_end_of_a_stream_is_measured(database_url: str) -> None:
    """From when this process learns of it: a reader elsewhere may even be the first to."""
    assert set(json.loads(run("benchmarks.measure", "ours", "stream_end", database_url, "1"))) == {"p50", "p99"}


@pytest.mark.parametrize(
    ("scenario", "size", "figure"),
    [("steps_async", 5, "rate"), ("steps_sync", 5, "rate"), ("latency", 2, "p50"), ("queue", 5, "rate")],
)
def test_a_scenario_of_ours_runs_on_asyncio(database_url: str, scenario: str, size: int, figure: str) -> None:
    """With the loop of a program, with one that an engine hosts, and with processes at the other end."""
    assert json.loads(run("benchmarks.measure", "ours_asyncio", scenario, database_url, str(size)))[figure] > 0


def test_whoever_chooses_uvloop_gets_it_in_both_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(loop.CHOICE, "")
    assert loop.factory() is None
    assert loop_in_use() == "asyncio"
    loop.choose_uvloop()
    assert loop_in_use() == "uvloop"
    with half(tell_loop) as other:
        assert other.receive() == "uvloop"


def tell_loop(pipe: Connection) -> None:
    """Says what the other half runs on."""
    pipe.send(loop_in_use())


def loop_in_use() -> str:
    """The package of the loop that the benchmarks run on."""

    async def look() -> str:
        return type(asyncio.get_running_loop()).__module__.partition(".")[0]

    return loop.run(look())


@pytest.mark.parametrize(
    ("scenario", "size", "figure"),
    [
        ("steps_async", 5, "rate"),
        ("steps_sync", 5, "rate"),
        ("steps_100", 100, "rate"),
        ("queue", 5, "rate"),
        ("queue_idle", 1, "p50_tuned"),
    ],
)
def test_a_scenario_of_absurd_runs(database_url: str, scenario: str, size: int, figure: str) -> None:
    """Where the extra ``bench`` is installed."""
    pytest.importorskip("absurd_sdk")
    run("benchmarks.measure", "absurd", "prepare", database_url, "0")
    assert json.loads(run("benchmarks.measure", "absurd", scenario, database_url, str(size)))[figure] > 0


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


def found_for(**figures: float) -> tuple[Results, list[Line]]:
    """One row that these contenders have, and another that only we have."""
    rows = [
        Row("a", "here and there", "s", "rate", "/s", more_is_better=True),
        Row("b", "only here", "t", "p50", "ms", peer_figure="p50_tuned"),
    ]
    results = Results({name: name.upper() for name in CONTENDERS if name in figures})
    for name, figure in figures.items():
        results.add("s", name, {"rate": figure})
        results.add("t", name, {"p50": figure})
    return results, lines(results, rows)


def test_other_peers_and_the_other_loop_have_tables_of_their_own() -> None:
    assert {*MAIN, *OTHERS, "ours_asyncio"} == set(CONTENDERS)
    results, found = found_for(ours=300.0, peer=1.0, limit=600.0, tasks=100.0, ours_asyncio=250.0)
    assert cells(table(results, found))[0][:4] == ["what", "OURS", "PEER", "LIMIT"]
    assert cells(others(results, found)) == [
        ["what", "OURS", "TASKS", "OURS against TASKS"],
        ["here and there", "300 /s", "100 /s", "3x"],
    ]
    assert cells(loops(results, found)) == [
        ["what", "OURS", "OURS_ASYNCIO", "OURS against OURS_ASYNCIO"],
        ["here and there", "300 /s", "250 /s", "1.2x"],
    ]


def test_a_table_of_nobody_is_left_out() -> None:
    results, found = found_for(ours=300.0, peer=1.0)
    assert not others(results, found)
    assert not loops(results, found)


def cells(shown: str) -> list[list[str]]:
    """What stands in a table, without the line below its heads."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in shown.splitlines() if "---" not in line]
