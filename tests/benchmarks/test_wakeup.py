"""The measurement of wake-ups runs: both sides end the same workflows."""

from __future__ import annotations

import subprocess
import sys


def test_a_wake_up_is_measured_beside_the_same_statements() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.wakeup", "--quick"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == [
        *("dbosflow", "psycopg alone", "ratio of p50, replay included")
    ]
