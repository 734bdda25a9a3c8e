"""What will happen, all of it from one seed: which faults strike when and whom, and which workflows are started.

The same seed gives the same faults at the same moments and the same workflows in the same order. What they meet in
each other is timing, and no two runs agree on that.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import count
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LEASE = 2.5
"""Of every worker, in seconds: short, so that a frozen one is taken over many times in a run."""

KINDS = {
    "kill": 6,  # SIGKILL a worker, hire another
    "freeze": 3,  # SIGSTOP beyond the lease, then SIGCONT
    "drain": 3,  # SIGTERM, hire another
    "terminate": 4,  # pg_terminate_backend of some sessions
    "stop fast": 1,  # Postgres, as an administrator restarts it
    "stop immediate": 1,  # Postgres, as it crashes
    "crash backend": 1,  # SIGKILL one of its processes: it restarts all of them
    "cut": 2,  # a proxy closes its connections
    "reset": 2,  # the same with RST
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
OF_WORKERS = {"kill", "freeze", "drain", "busy pool", "jump clock"}
PROXY_KINDS = {"cut", "reset", "delay", "blackhole", "lose answer"}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: when (seconds into the run), what, to which worker or proxy, for how long."""

    at: float
    kind: str
    target: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.at:7.1f} s  {self.kind:<15} #{self.target}  {self.seconds:.2f} s"


def faults(
    seed: int, seconds: float, *, workers: int, proxies: int, kinds: Mapping[str, int] = MappingProxyType(KINDS)
) -> list[Fault]:
    """The faults of a run, oldest first; the first strikes once there is something to strike."""
    draw = random.Random(f"faults {seed}")
    found: list[Fault] = []
    at = 1.5
    while (at := at + draw.uniform(0.5, 4.5)) < seconds:
        kind = draw.choices([*kinds], weights=[*kinds.values()])[0]
        choices = workers if kind in OF_WORKERS else proxies
        found.append(Fault(round(at, 2), kind, draw.randrange(choices), round(_duration(draw, kind, seconds - at), 2)))
    return found


def _duration(draw: random.Random, kind: str, left: float) -> float:
    """How long a fault takes, of the ``left`` seconds of the run."""
    if kind == "hold xmin":
        return draw.uniform(0.3, 0.9) * left
    return draw.uniform(*DURATIONS[kind]) if kind in DURATIONS else 0.0


@dataclass(frozen=True, slots=True)
class Job:
    """One workflow to start: its shape and arguments, when to cancel it, and how one of its streams is read."""

    workflow_id: str
    shape: str
    args: tuple[Any, ...]
    cancel_after: float | None
    key: str
    reading: str | None
    """``throughout``, ``reconnecting``, ``late``, or nobody does."""
    starters: int
    """So many start it at once, under the one id."""


def jobs(seed: int) -> Iterator[Job]:
    """The workflows of a run, without end."""
    for number in count():
        yield job(seed, number)


def job(seed: int, number: int) -> Job:
    """One of them."""
    draw = random.Random(f"job {seed} {number}")
    shape, args, key = _shape(draw)
    for_ever = shape.startswith("dozing")
    cancelled = for_ever or draw.random() < 0.07
    return Job(
        workflow_id=f"c{number:06}",
        shape=shape,
        args=args,
        cancel_after=draw.uniform(0.0, 3.0) if cancelled else None,
        key=key,
        reading=draw.choice(["throughout", "reconnecting", "late", None, None]),
        starters=draw.choice([1, 1, 1, 1, 3]),
    )


def _shape(draw: random.Random) -> tuple[str, tuple[Any, ...], str]:
    pause = draw.choice([0.0, 0.02, 0.1])
    sequence = (draw.randint(3, 15), pause)
    shapes: dict[str, tuple[tuple[Any, ...], str]] = {
        "sequence": (sequence, draw.choice(["values", "rare"])),
        "sequence_on_thread": (sequence, draw.choice(["values", "rare"])),
        "branching": ((draw.randint(2, 5), draw.randint(2, 4), pause), draw.choice(["shared", "own 1"])),
        "retrying": ((draw.randint(1, 4), draw.randint(1, 20), pause / 10), draw.choice(["tokens", "both"])),
        "family": (sequence, "values"),
        "family_on_thread": (sequence, "values"),
        "failing": (sequence, "values"),
        "dozing": ((draw.choice(["asleep", "in a step"]),), "values"),
        "dozing_on_thread": ((draw.choice(["asleep", "in a step"]),), "values"),
    }
    weights = [4, 4, 4, 4, 2, 2, 2, 1, 1]
    shape = draw.choices([*shapes], weights=weights)[0]
    return shape, *shapes[shape]
