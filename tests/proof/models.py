"""The models at length.

```text
python -m tests.proof.models --examples 500 [--steps 60] [--seed 7] [--model queue]
```

Each model does random things to the real thing and to a plain Python object, and compares. Hypothesis shrinks what it
finds to the shortest sequence of rules that shows it. The exit status is 1 if there is a difference.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import traceback
from typing import TYPE_CHECKING

from tests.proof.databases import databases
from tests.proof.machine import check
from tests.proof.model_buckets import Buckets
from tests.proof.model_dedup import Dedups
from tests.proof.model_leases import Leases
from tests.proof.model_partitions import Partitions
from tests.proof.model_queue import Queue
from tests.proof.model_retention import Retention
from tests.proof.model_schedules import Schedules
from tests.proof.model_streams import Streams
from tests.proof.model_suspension import Suspensions
from tests.proof.model_workflows import Workflows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.proof.machine import Bench, Machine

MODELS: dict[str, Callable[[Bench], Machine]] = {
    "workflows": Workflows,
    "suspensions": Suspensions,
    "retention": Retention,
    "leases": Leases,
    "dedups": Dedups,
    "streams": Streams,
    "queue": Queue,
    "buckets": Buckets,
    "partitions": Partitions,
    "schedules": Schedules,
}


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.proof.models", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--examples", type=int, default=100, help="of each model (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=50, help="of each example (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="other examples (default: %(default)s)")
    parser.add_argument("--model", action="append", choices=[*MODELS], help="default: all")
    parser.add_argument("--database-url", help="a server to make a database on; default: an embedded one of its own")
    options = parser.parse_args(arguments)
    logging.getLogger("dbosflow").setLevel(logging.CRITICAL)  # leases are lost all the time
    wrong = 0
    with databases(1, options.database_url) as (url,):
        for name in options.model or MODELS:
            began = time.monotonic()
            try:
                check(MODELS[name], url, examples=options.examples, steps=options.steps, seed=options.seed)
            except Exception:  # noqa: BLE001 (the others shall run, too)
                traceback.print_exc()
                wrong += 1
                print(f"{name}: DIFFERS", flush=True)
            else:
                print(f"{name}: {options.examples} examples, {time.monotonic() - began:.0f} s", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
