"""Chaos: many workflows of every kind, while workers, database and network fail again and again.

```text
python -m tests.chaos --seed 1 --minutes 10 [--pgbouncer | --standby | --skew]
```

The seed gives the plan of faults, which is printed first, and the workflows; a run with the same seed injects the same
faults at the same moments. At the end every workflow, stream, timer, reader, lease, session and process is checked. The
exit status is 1 if anything is wrong; then the database and all logs are kept, and what was known of each workflow with
which something was wrong when that was seen. It is 3 if something is missing here that is needed.

With ``--pgbouncer`` all of it goes through PgBouncer in transaction mode, which fails, too; root installs it from
Debian's packages, where it is missing. With ``--standby`` the server is a primary with a synchronous standby, which is
promoted again and again. With ``--skew`` the wall clocks of workers and readers are wrong by hours, and jump
(libfaketime, installed likewise). With ``--encrypt``, beside any of these, all payloads are encrypted, and none may be
left in plain text.

The words are Jepsen's, and so is the layout:

``clients``     what acts on the engine: callers of workflows, readers and writers of streams, the trimmer, the pruner
``generator``   which operations the clients do, by the seed; an operation is one workflow and all that is done to it
``workloads``   the workflows themselves, by what they exercise
``programs``    what runs as a process of its own, a worker, a reader or a writer, and the messages to and from it
``nodes``       where that runs: worker nodes, their processes, Postgres; the reaper of what a killed run has left
``cluster``     all processes of a run
``topologies``  what stands between the processes and the database, or is wrong with them, and the faults of that
``nemeses``     what injects faults, by a plan from the seed: into processes, the server, its sessions, the network
``history``     what is known of each workflow (rows, the ledger), and of what clients asked for and were answered
``checkers``    what compares the history with the model, a module a property; the model is what must have come out
``report``      the figures of a run, and the violations that the checkers found
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
from functools import partial
from typing import TYPE_CHECKING

from tests.chaos import encryption
from tests.chaos.run import run
from tests.chaos.topologies.clock_skew import ClockSkewTopology
from tests.chaos.topologies.pgbouncer import PgBouncerTopology
from tests.chaos.topologies.standby import StandbyTopology
from tests.chaos.topologies.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Sequence

MISSING = 3
DESCRIPTION = (__doc__ or "").partition("The words are")[0]
TOPOLOGIES: dict[str, type[Topology]] = {
    "pgbouncer": PgBouncerTopology,
    "standby": StandbyTopology,
    "skew": ClockSkewTopology,
}


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, help="repeats the plan of another run (default: a new one)")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--workflows", type=int, default=100, help="so many are in flight (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=3, help="processes (default: %(default)s)")
    topologies = parser.add_mutually_exclusive_group()
    for name, topology in TOPOLOGIES.items():
        topologies.add_argument(f"--{name}", dest="topology", action="store_const", const=topology, default=Topology)
    parser.add_argument("--encrypt", action="store_true", help="all payloads are encrypted")
    parser.add_argument("--drain", type=float, default=120.0, help="seconds in which all must end after the last fault")
    options = parser.parse_args(arguments)
    if options.encrypt:
        encryption.begin()
    topology = options.topology()
    if missing := topology.missing():
        print(missing)
        topology.server.discard()
        return MISSING
    seed = random.randrange(10**6) if options.seed is None else options.seed
    say = partial(print, flush=True)
    say(f"seed {seed}")
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)  # of the client; each process has a log of its own
    logging.getLogger("dbosflow").setLevel(logging.CRITICAL)
    report, directory = run(
        seed,
        seconds=options.minutes * 60,
        workflows=options.workflows,
        workers=options.workers,
        drain_limit=options.drain,
        say=say,
        topology=topology,
    )
    say(f"seed {seed}\n{report}")
    if report.violations:
        say(f"the database and all logs are in {directory}")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
