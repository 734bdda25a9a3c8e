"""All of chaos in a few seconds: the command works, faults are injected, and nothing is wrong afterwards.

```text
python -m tests.chaos --seed 1 --minutes 10
```

is the run that proves something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.behaviour import ledger
from tests.chaos.run import run

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SEED = 17579
"""Of a plan in which the connections run out, a snapshot is held, and workers are drained and killed."""


def test_a_few_seconds_of_chaos_leave_nothing_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ledger.VARIABLE, str(tmp_path / "ledger"))  # as it will be set by the run, and put back
    monkeypatch.setenv(ledger.CLOCK_VARIABLE, "0")
    said: list[str] = []
    report, directory = run(SEED, seconds=10.0, workflows=10, workers=2, drain_limit=60.0, say=said.append)
    print(*said, report, directory, sep="\n")
    assert report.violations == []
    assert report.faults.keys() >= {"kill", "drain", "fill", "hold xmin"}
    assert report.workflows["succeeded"] > 0
    assert report.readings.total() > 0
    assert min(report.written, report.items, report.trims) > 0
