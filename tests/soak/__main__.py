"""Soak: mixed work under random faults for as long as asked, and nothing may grow.

```text
python -m tests.soak --seed 1 --minutes 60
```

It is a chaos run (see ``tests.chaos``) whose last worker is never killed, only frozen and cut off. The levels of each
process, of the server, its tables and the latencies are measured, drawn, and judged: after a warm-up they must stay
level. The exit status is 1 if anything is wrong; then the database, all logs and the evidence are kept.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
from functools import partial
from typing import TYPE_CHECKING

from tests.soak.run import run

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, help="repeats the plan of another run (default: a new one)")
    parser.add_argument("--minutes", type=float, default=10.0, help="(default: %(default)g)")
    parser.add_argument("--workflows", type=int, default=60, help="so many are in flight (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=3, help="processes, two at least (default: %(default)s)")
    parser.add_argument("--drain", type=float, default=120.0, help="seconds in which all must end after the last fault")
    parser.add_argument("--every", type=float, default=15.0, help="seconds between two lines (default: %(default)g)")
    parser.add_argument("--png", help="where the picture goes (default: soak-SEED.png)")
    options = parser.parse_args(arguments)
    if options.workers < 2:
        parser.error("of the workers one is never killed, so there must be another one")
    seed = random.randrange(10**6) if options.seed is None else options.seed
    say = partial(print, flush=True)
    say(f"seed {seed}")
    for name in ("psycopg.pool", "dbosflow"):  # of the client; each process has a log of its own
        logging.getLogger(name).setLevel(logging.CRITICAL)
    report, directory = run(
        seed,
        seconds=options.minutes * 60,
        workflows=options.workflows,
        workers=options.workers,
        drain_limit=options.drain,
        every=options.every,
        png=options.png or f"soak-{seed}.png",
        say=say,
    )
    say(f"seed {seed}\n{report}")
    if report.violations:
        say(f"the database and all logs are in {directory}")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
