"""The whole of P1, P2, P3, P5 and P7 in one run, as big as CI can afford; the full size is one command away.

```text
python -m tests.behaviour.killing --steps 1000 --values 10000 --kills 10
```

``DBOSFLOW_TEST_KILLING=1000,10000,10`` makes the test that size.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.behaviour.killing import Killing

if TYPE_CHECKING:
    from pathlib import Path

SIZE = os.environ.get("DBOSFLOW_TEST_KILLING", "200,2000,4")


@pytest.mark.timeout(300)
def test_a_workflow_survives_its_workers_and_a_reader_never_notices(database_url: str, tmp_path: Path) -> None:
    """Its result is right, each step is on record once, and each offset holds its value.

    A reader in another process that stayed connected throughout saw exactly that.
    """
    steps, values, kills = map(int, SIZE.split(","))
    summary = Killing(database_url, tmp_path, steps=steps, values=values, kills=kills).run()
    print(summary)
    assert summary.faults == []
    assert summary.kills == kills
    assert summary.bodies >= steps
