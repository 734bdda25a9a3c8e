"""The bank: workflows move money in transactions while their workers are killed around every COMMIT.

```console
python -m tests.bank --seconds 120
```

runs it again and again under each level of isolation, in a database of an embedded server or that of ``--url``. In the
end the sum is what it was, each transfer is there once, and there is a record for each of them, and for no other.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from contextlib import ExitStack

from dbosflow._embedded import EmbeddedServer
from tests.bank.run import LEVELS, Run


def main() -> int:
    """Runs the bank until the time is over; the exit status says whether all was well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="an empty database; by default one of an embedded server")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--workflows", type=int, default=50)
    parser.add_argument("--transfers", type=int, default=4)
    parser.add_argument("--deadly", type=float, default=0.02, help="how likely something goes wrong at a COMMIT")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    until = time.monotonic() + options.seconds
    with ExitStack() as resources:
        url = options.url or resources.enter_context(EmbeddedServer.ephemeral()).url
        print(f"seed {options.seed}", flush=True)
        for number, isolation in enumerate(itertools.cycle(LEVELS)):
            if number >= len(LEVELS) and time.monotonic() > until:
                return 0
            run = Run(url, f"b{number}", isolation, chance, options.deadly)
            report = run.run(options.workflows, options.transfers)
            print(f"{isolation}: {report}", flush=True)
            if report.wrong:
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
