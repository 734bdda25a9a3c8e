"""The shutdown of a run: what each process holds when all work is done, and what is left when it has stopped."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from tests.chaos.checkers.inventory import check_inventory, inventory
from tests.chaos.checkers.sessions import SESSIONS_A_WORKER, check_leases

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dbosflow import Engine
    from tests.chaos.cluster import Cluster
    from tests.chaos.nemeses.nemesis import Nemesis
    from tests.chaos.report import Report
    from tests.chaos.topologies.topology import Topology

CLIENT = "chaos-client"
"""What the sessions of the run's own client are called."""
_SESSIONS_A_CLIENT = 9
_LIMIT = 15.0
"""Seconds after which a session that was cut off is noticed by the server, and everything is let go of."""


class Shutdown:
    """Stops every process, and reports what it held or left behind."""

    def __init__(self, topology: Topology, cluster: Cluster, engine: Engine, report: Report) -> None:
        self._topology = topology
        self._cluster = cluster
        self._engine = engine
        self._report = report

    async def stop(self, nemesis: Nemesis) -> None:
        """Checks what the living hold, stops them, and checks that nothing is left."""
        cluster, report = self._cluster, self._report
        live = {node.name: SESSIONS_A_WORKER for node in cluster.nodes}
        clients = [CLIENT, *(name for processes in cluster.client_processes for name in processes.names)]
        await self._sessions_settle(live | dict.fromkeys(clients, _SESSIONS_A_CLIENT))
        if report.drain is not None:
            await self._look_at_leftovers()
        for node in cluster.nodes:
            async with node.lock:
                nemesis.drains.add(await asyncio.to_thread(node.drain))
        for processes in cluster.client_processes:
            await asyncio.to_thread(processes.end)
        report.violations += [f"{node.name}: processes are left" for node in cluster.nodes if node.leftover()]
        await self._sessions_settle({CLIENT: _SESSIONS_A_CLIENT})
        if report.drain is not None:
            report.violations += await asyncio.to_thread(check_leases, self._topology.server.url("looking"))

    async def _look_at_leftovers(self) -> None:
        """Nobody holds on to anything once all work is done; what was let go of last takes a moment."""
        deadline = time.monotonic() + _LIMIT
        while True:
            wrong = [f"the client: {what}" for what in check_inventory(inventory(self._engine), alone=False)]
            for node in self._cluster.nodes:
                found = await asyncio.to_thread(node.inventory, _LIMIT)
                wrong += [f"{node.name}: {what}" for what in (check_inventory(found) if found else ["it is silent"])]
            if not wrong or time.monotonic() > deadline:
                self._report.violations += wrong
                return
            await asyncio.sleep(0.2)

    async def _sessions_settle(self, live: Mapping[str, int]) -> None:
        deadline = time.monotonic() + _LIMIT
        while wrong := await asyncio.to_thread(self._topology.wrong_sessions, live):
            if time.monotonic() > deadline:
                self._report.violations += wrong
                return
            await asyncio.sleep(0.1)
