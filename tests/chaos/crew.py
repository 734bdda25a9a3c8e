"""The workers of a run: as many as were asked for, each replaced by another when it dies or leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.chaos.plan import LEASE
from tests.chaos.processes import Process
from tests.chaos.workload import CHILDREN, QUEUE
from tests.chaos.workload_narrow import NARROW, NARROW_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DRAIN_LIMIT = 45.0
"""Seconds within which a worker must have stopped: grace, leftovers, last batches, release, all with a bad database."""

_SETTINGS = {"lease": LEASE, "grace": 2.0, "compact_every": 2.0}
_QUEUES = {QUEUE: 100, CHILDREN: 100, NARROW: NARROW_LIMIT}


@dataclass(frozen=True)
class Frozen:
    """A process that did not run for a while, by the wall clock."""

    pid: int
    since: float
    until: float


class Place:
    """A worker's place in the crew: who holds it now, and who did."""

    def __init__(
        self,
        number: int,
        url: Callable[[str], str],
        directory: Path,
        complain: Callable[[str], None],
        levels_every: float | None = None,
    ) -> None:
        self.lock = asyncio.Lock()
        self.frozen: list[Frozen] = []
        self.failed_opens = 0
        self._number = number
        self._url = url
        self._directory = directory
        self._complain = complain
        self._levels_every = levels_every
        self._generation = 0
        self._ready = False
        self._left: dict[str, list[str]] | None = None
        self.level: dict[str, int] = {}
        """What its worker said of itself last."""
        self.process = self._hire()

    @property
    def name(self) -> str:
        """What its sessions are called."""
        return f"chaos-worker-{self._number}-{self._generation}"

    @property
    def ready(self) -> bool:
        """Whether its worker serves."""
        return self._ready and self.process.status is None

    def replace(self) -> None:
        """Hires another worker for this place."""
        self.process.close()
        self.process = self._hire()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.send(signal.SIGKILL)
        self.process.wait(DRAIN_LIMIT)

    async def freeze(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after so many seconds."""
        since = time.time()
        self.process.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.frozen.append(Frozen(self.process.pid, since, time.time()))
            self.process.send(signal.SIGCONT)

    def drain(self) -> float:
        """SIGTERM; returns when the worker has left, and how long that took. Nothing may be left of it."""
        began = time.monotonic()
        was_ready = self._ready
        self.process.send(signal.SIGTERM)
        status = self.process.wait(DRAIN_LIMIT)
        if status is None:
            self.process.send(signal.SIGUSR1)  # its threads' stacks, for the log
            self.process.wait(1.0)
            self.kill()
            self._complain(f"{self.name} did not stop within {DRAIN_LIMIT:g} s of SIGTERM: see {self.process.log.name}")
        elif status != 0 and was_ready:
            self._complain(f"{self.name} ended with status {status} after SIGTERM: see {self.process.log.name}")
        self.process.close()
        if status == 0 and was_ready and self._left != {"tasks": [], "threads": []}:
            self._complain(f"{self.name} left behind {self._left}")
        return time.monotonic() - began

    def look_after(self) -> None:
        """Replaces a worker that ended by itself: none may, once it serves."""
        status = self.process.status
        if status is None:
            return
        if self._ready:
            self._complain(f"{self.name} ended by itself with status {status}: see {self.process.log.name}")
        else:
            self.failed_opens += 1
        self.replace()

    def leftover(self) -> bool:
        """Whether a process of its group is still there."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def _hire(self) -> Process:
        self._generation += 1
        self._ready = False
        self._left = None
        self.level = {}
        return Process(
            "worker",
            self._directory / f"{self.name}.log",
            self._hear,
            url=self._url(self.name),
            queues=_QUEUES,
            settings=_SETTINGS,
            levels_every=self._levels_every,
        )

    def _hear(self, said: dict[str, Any]) -> None:
        if "ready" in said:
            self._ready = True
        elif "level" in said:
            self.level = said["level"]
        elif "left" in said:
            self._left = said["left"]
