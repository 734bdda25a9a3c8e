"""Which faults strike when and whom: all of it from one seed.

The same seed gives the same faults at the same moments and, see ``jobs``, the same workflows in the same order. What
they meet in each other is timing, and no two runs agree on that.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

LEASE = 2.5
"""Of every worker, in seconds: short, so that a frozen one is taken over many times in a run."""

WRITERS = 2
"""Processes that write to inputs."""

KINDS = {
    "kill": 6,  # SIGKILL a worker, hire another
    "freeze": 3,  # SIGSTOP beyond the lease, then SIGCONT
    "drain": 3,  # SIGTERM, hire another
    "kill writer": 3,  # SIGKILL a process that writes to inputs; the next one begins its writings anew
    "terminate": 4,  # pg_terminate_backend of some sessions
    "stop fast": 1,  # Postgres, as an administrator restarts it
    "stop immediate": 1,  # Postgres, as it crashes
    "crash backend": 1,  # SIGKILL one of its processes: it restarts all of them
    "cut": 2,  # a proxy closes its connections
    "reset": 2,  # the same with RST
    "delay": 1,  # a proxy is slow
    "blackhole": 2,  # a proxy forwards nothing, then closes its connections
    "lose answer": 4,  # a proxy forwards a statement, and closes instead of handing its answer on
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: when (seconds into the run), what, to which worker or proxy, for how long."""

    at: float
    kind: str
    target: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.at:7.1f} s  {self.kind:<15} #{self.target}  {self.seconds:.2f} s"


def faults(seed: int, seconds: float, *, workers: int, proxies: int, spared: int = 0) -> list[Fault]:
    """The faults of a run, oldest first; the first strikes once there is something to strike.

    The last ``spared`` workers are never made to end.
    """
    draw = random.Random(f"faults {seed}")
    found: list[Fault] = []
    at = 1.5
    while (at := at + draw.uniform(0.5, 4.5)) < seconds:
        kind = draw.choices([*KINDS], weights=[*KINDS.values()])[0]
        choices = {"kill": workers - spared, "drain": workers - spared, "freeze": workers, "kill writer": WRITERS}.get(
            kind, proxies
        )
        found.append(Fault(round(at, 2), kind, draw.randrange(choices), round(_duration(draw, kind), 2)))
    return found


def _duration(draw: random.Random, kind: str) -> float:
    if kind == "freeze":
        return draw.uniform(1.3, 3.0) * LEASE
    if kind.startswith("stop"):
        return draw.uniform(0.0, 2.0)
    if kind == "blackhole":
        return draw.uniform(0.5, 2.5 * LEASE)
    if kind == "delay":
        return draw.uniform(1.0, 4.0)
    return 0.0
