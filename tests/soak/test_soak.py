"""All of a soak in a few seconds: the command works, and nothing is wrong afterwards. Too short to judge levels by.

```text
python -m tests.soak --seed 1 --minutes 60
```

is the run that proves something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.behaviour import ledger
from tests.soak.run import run

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SEED = 3


def test_a_few_seconds_of_soak_leave_nothing_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ledger.VARIABLE, str(tmp_path / "ledger"))  # as it will be set by the run, and put back
    said: list[str] = []
    report, directory = run(
        SEED,
        seconds=8.0,
        workflows=8,
        workers=2,
        drain_limit=60.0,
        every=3.0,
        png=str(tmp_path / "levels.png"),
        say=said.append,
    )
    print(*said, report, directory, sep="\n")
    assert report.violations == []
    assert report.faults.total() > 0
    assert report.workflows["succeeded"] > 0
    assert any("worker 1:" in line for line in said)
    assert any("levels are" in line for line in said)
