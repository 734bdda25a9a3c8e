"""The plan of faults: which are injected when, and into what, all of it from one seed.

The same seed gives the same faults at the same moments and, see ``generator``, the same operations in the same order.
What they meet in each other is timing, and no two runs agree on that.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LEASE = 2.5
"""Of every worker, in seconds: short, so that a frozen one is taken over many times in a run."""

WRITERS = 2
"""Processes that write to inputs."""

KINDS = {
    "kill": 6,  # SIGKILL a worker, start another
    "freeze": 3,  # SIGSTOP beyond the lease, then SIGCONT
    "drain": 3,  # SIGTERM, start another
    "kill writer": 3,  # SIGKILL a process that writes to inputs; the next one begins its writings anew
    "terminate": 4,  # pg_terminate_backend of some sessions
    "stop fast": 1,  # Postgres, as an administrator restarts it
    "stop immediate": 1,  # Postgres, as it crashes
    "crash backend": 1,  # SIGKILL a session's process: Postgres ends all of them and recovers
    "cut": 3,  # a proxy closes its connections
    "reset": 3,  # the same, without goodbye
    "delay": 1,  # a proxy is slow
    "blackhole": 2,  # a proxy forwards nothing, then closes its connections
    "lose answer": 4,  # a proxy forwards a statement, and closes instead of handing its answer on
    "hold xmin": 1,  # a session keeps a snapshot for long, so that no dead row can be removed
    "fill": 1,  # the server has no connection left, and the sessions that there are end one by one
    "lock": 1,  # somebody holds the table of workflows, and all statements wait
    "busy pool": 2,  # each connection of a worker's pool is in use, all the time
}
DURATIONS = {
    "freeze": (1.3 * LEASE, 3.0 * LEASE),
    "stop fast": (0.0, 2.0),
    "stop immediate": (0.0, 2.0),
    "blackhole": (0.5, 2.5 * LEASE),
    "delay": (1.0, 4.0),
    "fill": (0.3 * LEASE, 2.0 * LEASE),
    "lock": (0.3 * LEASE, 2.0 * LEASE),
    "busy pool": (LEASE, 3.0 * LEASE),
    "promote": (0.0, 2.0),
    "freeze and promote": (0.3 * LEASE, 2.0 * LEASE),
    "lose standby": (0.3 * LEASE, 2.0 * LEASE),
    "pooler kill": (0.0, 2.0),
    "pooler restart": (0.0, 2.0),
    "pooler freeze": (0.3 * LEASE, 2.0 * LEASE),
    "pooler pause": (0.3 * LEASE, 2.0 * LEASE),
}
"""Seconds that a fault takes, at least and at most."""
ENDING_KINDS = {"kill", "drain"}
"""The faults by which a worker ends."""
WORKER_KINDS = {*ENDING_KINDS, "freeze", "busy pool", "jump clock"}
PROXY_KINDS = {"cut", "reset", "delay", "blackhole", "lose answer"}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: when it is injected (seconds into the run), which, into what, and for how long."""

    at: float
    kind: str
    target: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.at:7.1f} s  {self.kind:<15} #{self.target}  {self.seconds:.2f} s"


def faults(
    seed: int,
    seconds: float,
    *,
    workers: int,
    proxies: int,
    spared: int = 0,
    kinds: Mapping[str, int] = MappingProxyType(KINDS),
) -> list[Fault]:
    """The faults of a run, oldest first; the first comes once there is something to disturb.

    The last ``spared`` workers are never made to end.
    """
    draw = random.Random(f"faults {seed}")
    found: list[Fault] = []
    at = 1.5
    while (at := at + draw.uniform(0.5, 4.5)) < seconds:
        kind = draw.choices([*kinds], weights=[*kinds.values()])[0]
        if kind in ENDING_KINDS:
            choices = workers - spared
        elif kind == "kill writer":
            choices = WRITERS
        else:
            choices = workers if kind in WORKER_KINDS else proxies
        found.append(Fault(round(at, 2), kind, draw.randrange(choices), round(_duration(draw, kind, seconds - at), 2)))
    return found


def _duration(draw: random.Random, kind: str, left: float) -> float:
    """How long a fault takes, of the ``left`` seconds of the run."""
    if kind == "hold xmin":
        return draw.uniform(0.3, 0.9) * left
    return draw.uniform(*DURATIONS[kind]) if kind in DURATIONS else 0.0
