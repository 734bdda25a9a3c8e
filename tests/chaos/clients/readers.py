"""The readers: processes that read streams; what each is to read, and what it saw."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.chaos.clients.client_processes import ClientProcesses

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.chaos.generator import Operation
    from tests.chaos.nodes.processes import Launcher


class Readers(ClientProcesses):
    """All reader processes; any one may be requested to read any stream."""

    def __init__(self, urls: Sequence[Callable[[str], str]], launcher: Launcher, seed: int) -> None:
        super().__init__("reader", urls, launcher)
        self._random = random.Random(f"readers {seed}")
        self._readings: dict[str, list[dict[str, Any]]] = {}
        self._pending: Counter[str] = Counter()
        self._lock = threading.Lock()

    def read(self, operation: Operation) -> None:
        """Has the stream of an operation read, in the way that it says."""
        self._expect(operation.workflow_id)
        self._random.choice(self.processes).send(id=operation.workflow_id, key=operation.key, mode=operation.reading)

    def read_slowly(self, workflow_id: str, key: str) -> None:
        """Has a stream read a few values a second. Callable from any thread."""
        self._expect(workflow_id)
        request = {"id": workflow_id, "key": key, "mode": "slow"}
        self._loop.call_soon_threadsafe(lambda: self.processes[0].send(**request))

    def is_pending(self, workflow_id: str) -> bool:
        """Whether a reader of a workflow has not come to its end."""
        return self._pending[workflow_id] > 0

    def pending(self) -> list[str]:
        """The workflows whose readers have not come to their ends."""
        with self._lock:
            return [workflow_id for workflow_id, count in self._pending.items() if count > 0]

    def take(self, workflow_id: str) -> list[dict[str, Any]]:
        """What the readers of a workflow saw; it is forgotten here."""
        with self._lock:
            del self._pending[workflow_id]
            return self._readings.pop(workflow_id, [])

    def received(self, index: int, message: dict[str, Any]) -> None:
        """What a reader saw of a stream."""
        with self._lock:
            self._readings.setdefault(message["id"], []).append(message)
            self._pending[message["id"]] -= 1

    def _expect(self, workflow_id: str) -> None:
        with self._lock:
            self._pending[workflow_id] += 1
