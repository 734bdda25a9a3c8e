"""``python -m tests.oracle --programs 1000``: random programs with crashes, against the same as plain functions."""

from __future__ import annotations

import argparse
import logging
import sys
import time

from dbosflow import Engine
from tests.oracle.forking import attempt_forks
from tests.oracle.trial import attempt


def main() -> int:
    """Tries programs, and says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.oracle", description=__doc__)
    parser.add_argument("--programs", type=int, default=100, help="how many (default: 100)")
    parser.add_argument("--first", type=int, default=0, help="the seed of the first (default: 0)")
    parser.add_argument("--forks", action="store_true", help="forks of them from turns at random, instead of crashes")
    parser.add_argument("--url", help="a Postgres (default: an embedded one of its own)")
    options = parser.parse_args()
    logging.disable(logging.ERROR)  # crashes and failing steps are what there is here
    began, wrong = time.monotonic(), 0
    with Engine(options.url, grace=0) if options.url else Engine.ephemeral(grace=0) as engine:
        for seed in range(options.first, options.first + options.programs):
            for one in attempt_forks(engine, seed) if options.forks else attempt(engine, seed):
                wrong += 1
                print(one, flush=True)
    print(f"{options.programs} programs, {wrong} differences, {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
