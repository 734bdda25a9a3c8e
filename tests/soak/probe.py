"""Small workflows, started one after the other, by which latencies are measured: to the end, and of stream values."""

from __future__ import annotations

import asyncio
import time
from itertools import count
from typing import TYPE_CHECKING

from dbosflow.errors import DbosflowError
from tests.chaos.generator import Operation

if TYPE_CHECKING:
    from dbosflow import Engine
    from tests.chaos.clients.workflow_clients import WorkflowClients
    from tests.soak.series import Levels

_VALUES = 5
_PAUSE = 0.5
_WINDOW = 10.0
"""Seconds whose latencies give one median, and one 99th percentile."""
PERCENTILES = {"": 50, ", p99": 99}
"""By what is added to the name of a level: which of them it is."""


class Probe:
    """Starts probes, and follows each from this process while a worker runs it."""

    def __init__(self, engine: Engine, clients: WorkflowClients, levels: Levels) -> None:
        self._engine = engine
        self._clients = clients
        self._levels = levels
        self._seconds: dict[str, list[float]] = {"start to end": [], "stream latency": []}

    async def watch(self) -> None:
        """Goes on as long as clients come; a slow probe does not hold the next one up."""
        began = reported_at = time.monotonic()
        numbers = count()
        async with asyncio.TaskGroup() as group:
            while not self._clients.over:
                number = next(numbers)
                group.create_task(self._probe(f"p{number:06}"))
                await asyncio.sleep(_PAUSE)
                if time.monotonic() - reported_at > _WINDOW:
                    reported_at = time.monotonic()
                    self._report(reported_at - began)
        self._report(time.monotonic() - began)

    async def _probe(self, workflow_id: str) -> None:
        began = time.monotonic()
        reading = asyncio.create_task(self._read(workflow_id))
        try:
            await self._clients.follow(Operation(workflow_id, "probing", (_VALUES,), None, "values", None, 1))
            self._seconds["start to end"].append(time.monotonic() - began)
            await reading
        finally:
            reading.cancel()

    async def _read(self, workflow_id: str) -> None:
        try:
            async for item in self._engine.read_stream_async(workflow_id, "values", wait_for=60.0):
                if not item.closed:
                    self._seconds["stream latency"].append(time.time() - item.value[2] / 1e6)
        except DbosflowError:
            return  # the checker says what is wrong

    def _report(self, at: float) -> None:
        for what, seconds in self._seconds.items():
            if seconds:
                for suffix, percent in PERCENTILES.items():
                    self._levels.add(what + suffix, "probes", at, percentile(seconds, percent))
                seconds.clear()


def percentile(values: list[float], percent: int) -> float:
    """The value that so many percent are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
