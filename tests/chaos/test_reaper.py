"""Nothing outlives a run that is killed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.chaos.nodes.postgres import PATIENCE
from tests.chaos.nodes.reaper import processes_of
from tests.processes import ROOT
from tests.support import eventually

RUN = """
import sys
from tests.chaos.nodes.postgres import Postgres
from tests.chaos.nodes.processes import Process
with Postgres() as postgres:
    url = postgres.url("chaos-reader")
    reader = Process("reader", postgres.root / "log", print, url=url, settings={}, levels_every=None)
    print(postgres.root.name, postgres.pid, reader.pid, flush=True)
    sys.stdin.read()
    reader.close()
postgres.discard()
"""


def test_the_processes_of_a_killed_run_are_ended() -> None:
    words = [sys.executable, "-c", RUN]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        name, *pids = run.stdout.readline().split()
        assert {int(pid) for pid in pids} <= {*processes_of(name)}
        run.kill()
    eventually(lambda: not [*processes_of(name)], timeout=PATIENCE)
    shutil.rmtree(Path(tempfile.gettempdir()) / name)  # its files it cannot take along


def test_a_run_that_ends_in_an_orderly_way_ends_its_reaper_too() -> None:
    words = [sys.executable, "-c", RUN]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        name = run.stdout.readline().split()[0]
        run.communicate("", timeout=PATIENCE)
        assert run.returncode == 0
    assert not [*processes_of(name)]
