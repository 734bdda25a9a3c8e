"""The worker nodes of a run: as many as were asked for, on each a worker process, replaced when it dies or leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import deque
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from tests.chaos.nemeses.plan import LEASE
from tests.chaos.workloads.basic import CHILDREN, QUEUE
from tests.chaos.workloads.limited_queue import LIMITED_QUEUE, QUEUE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.nodes.processes import Launcher, Process

DRAIN_LIMIT = 45.0
"""Seconds within which a worker must have stopped: grace, leftovers, last batches, release, all with a bad database."""

_SETTINGS: dict[str, Any] = {"lease": LEASE, "grace": 2.0, "compact_every": 2.0, "suspend_after": 0.2}
_SMALLEST_POOL = {"pool_size": 1}
"""Of the first worker: all that goes over the pool has to wait for its turn."""
_QUEUES = {QUEUE: 100, CHILDREN: 100, LIMITED_QUEUE: QUEUE_LIMIT}
_KEPT = 100
"""Of what a node remembers of its processes, so many: the last ones."""


@dataclass(frozen=True)
class Frozen:
    """A process that did not run for a while, by the wall clock of this machine."""

    pid: int
    since: float
    until: float


class WorkerNode:
    """One worker node: the process that serves there now, and what is known of those before it."""

    def __init__(self, number: int, url: Callable[[str], str], launcher: Launcher) -> None:
        self.lock = asyncio.Lock()
        self.number = number
        self.frozen: deque[Frozen] = deque(maxlen=_KEPT)
        self.stalled: deque[Frozen] = deque(maxlen=_KEPT)
        """When its processes did not get to run, by their own account."""
        self.ended: dict[int, float] = {}
        """Since when each of its processes may be gone."""
        self.pids: deque[int] = deque(maxlen=_KEPT)
        self.failed_opens = 0
        self.level: dict[str, int] = {}
        """The levels that its worker sent last."""
        self._url = url
        self._launcher = launcher
        self._inventory: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._generation = 0
        self._ready = False
        self._left: dict[str, list[str]] | None = None
        self.process = self._start()

    @property
    def name(self) -> str:
        """What its sessions are called."""
        return f"chaos-worker-{self.number}-{self._generation}"

    @property
    def ready(self) -> bool:
        """Whether its worker serves."""
        return self._ready and self.process.status is None

    def replace(self) -> None:
        """Starts another worker on this node."""
        self.process.close()
        self.process = self._start()

    def kill(self) -> None:
        """SIGKILL."""
        self._ends()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DRAIN_LIMIT)

    async def freeze(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after so many seconds."""
        since = time.time()
        self.process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.frozen.append(Frozen(self.process.pid, since, time.time()))
            self.process.send_signal(signal.SIGCONT)

    def drain(self) -> float:
        """SIGTERM; returns when the worker has left, and how long that took. Nothing may be left of it."""
        began, on_violation = time.monotonic(), self._launcher.on_violation
        was_ready = self._ready
        self._ends()
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(DRAIN_LIMIT)
        if status is None:
            self.process.send_signal(signal.SIGUSR1)  # its threads' stacks, for the log
            self.process.wait(1.0)
            self.kill()
            on_violation(f"{self.name} did not stop within {DRAIN_LIMIT:g} s of SIGTERM: see {self.process.log.name}")
        elif status != 0 and was_ready:
            on_violation(f"{self.name} ended with status {status} after SIGTERM: see {self.process.log.name}")
        self.process.close()
        if status == 0 and was_ready and self._left != {"tasks": [], "threads": []}:
            on_violation(f"{self.name} left behind {self._left}")
        return time.monotonic() - began

    def replace_if_ended(self) -> None:
        """Replaces a worker that ended by itself: none may, once it serves."""
        status = self.process.status
        if status is None:
            return
        self._ends()
        if self._ready:
            self._launcher.on_violation(
                f"{self.name} ended by itself with status {status}: see {self.process.log.name}"
            )
        else:
            self.failed_opens += 1
        self.replace()

    def inventory(self, limit: float) -> dict[str, Any] | None:
        """What its worker answers that it holds, unless it does not answer within the limit."""
        self.process.send(inventory=True)
        try:
            return self._inventory.get(timeout=limit)
        except Empty:
            return None

    def leftover(self) -> bool:
        """Whether a process of its group is still there."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def _ends(self) -> None:
        self.ended.setdefault(self.process.pid, time.time())
        while len(self.ended) > _KEPT:
            del self.ended[next(iter(self.ended))]

    def _start(self) -> Process:
        self._generation += 1
        self._ready = False
        self._left = None
        self.level = {}
        started = self._launcher.start(
            *("worker", self.name, self.number, self._url(self.name), self._on_message),
            settings=_SETTINGS | (_SMALLEST_POOL if self.number == 0 else {}),
            queues=_QUEUES,
        )
        self.pids.append(started.pid)
        return started

    def _on_message(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self._ready = True
        elif "level" in message:
            self.level = message["level"]
        elif "left" in message:
            self._left = message["left"]
        elif "inventory" in message:
            self._inventory.put(message["inventory"])
        elif "stalled" in message:
            self.stalled.append(Frozen(message["pid"], *message["stalled"]))
