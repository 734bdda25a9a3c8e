"""The nemesis: injects the faults of the plan, and notes which workflows lost their owners by them.

Faults of workers (SIGKILL, SIGSTOP, SIGTERM), of writers (SIGKILL) and of the server (a shutdown, a crash, ended
sessions) it makes itself. Those of the network are made by the proxy, those that hold what the server has little of by
the session nemesis, and those that only one topology knows (a pooler, a standby, wrong clocks) by that topology.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import psycopg

from tests.chaos.checkers.workers import Disruption, Span
from tests.chaos.nemeses.plan import PROXY_KINDS, WORKER_KINDS
from tests.chaos.report import DurationSample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.checkers.final_states import FinalStateMonitor
    from tests.chaos.clients.writers import Writers
    from tests.chaos.nemeses.plan import Fault
    from tests.chaos.nemeses.sessions import SessionNemesis
    from tests.chaos.nodes.workers import WorkerNode
    from tests.chaos.topologies.topology import Route, Topology

_OWNED = """
    SELECT w.id, w.epoch FROM dbosflow.workflow w JOIN dbosflow.worker k ON k.id = w.worker_id
    WHERE k.pid = %s AND k.state = 'live'"""
_SESSIONS = """
    SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'chaos-%%' AND backend_type = 'client backend'"""

_SETTLING = 1.0
"""Seconds after a fault in which every process connects anew."""
_KEPT = 300
"""So many faults are remembered: the last ones."""
_HARMLESS = {*WORKER_KINDS, "kill writer", "hold xmin", "lock"}
"""What keeps nobody from renewing; of a worker that was frozen or made to end, its node tells."""


@dataclass(frozen=True)
class OwnerLoss:
    """An owner that was lost: why, when (by the wall clock), which process, and what it owned, at which epochs."""

    kind: str
    at: float
    pid: int
    owned: dict[str, int]


@dataclass
class InjectedFault:
    """A fault, and from when until when it was there, by the wall clock; one that is not over has no end yet."""

    fault: Fault
    since: float
    until: float = inf


class Nemesis:
    """Injects what the plan says; a fault whose target is still down waits for it."""

    def __init__(
        self,
        topology: Topology,
        nodes: Sequence[WorkerNode],
        routes: Sequence[Route],
        *,
        writers: Writers,
        session_nemesis: SessionNemesis,
        seed: int,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.owner_losses: list[OwnerLoss] = []
        """The last ones: the checker forgets the oldest."""
        self.lost = 0
        """How often a workflow lost its owner."""
        self.drains = DurationSample()
        self.injected: deque[InjectedFault] = deque(maxlen=_KEPT)
        self._topology = topology
        self._server = topology.server
        self._nodes = nodes
        self._routes = routes
        self._writers = writers
        self._session_nemesis = session_nemesis
        self._random = random.Random(f"nemesis {seed}")
        self._database = asyncio.Lock()

    async def run(self, plan: Sequence[Fault]) -> None:
        """Injects all of them; returns when the last is over and every process is back."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for fault in plan:
                await asyncio.sleep(max(0.0, began + fault.at - time.monotonic()))
                group.create_task(self._inject(fault))

    async def _inject(self, fault: Fault) -> None:
        injected = InjectedFault(fault, time.time())
        self.injected.append(injected)
        if fault.kind in {"kill", "freeze", "drain"}:
            node = self._nodes[fault.target]
            async with node.lock:
                await self._inject_into_worker(node, fault)
        elif fault.kind == "kill writer":
            await self._writers.kill(fault.target)
        elif fault.kind == "busy pool":
            self._nodes[fault.target].process.send(busy=fault.seconds)
        elif fault.kind == "hold xmin":
            await self._session_nemesis.inject(fault.kind, fault.seconds)
        elif fault.kind in self._session_nemesis.kinds:
            async with self._database:
                await self._session_nemesis.inject(fault.kind, fault.seconds)
        elif fault.kind in {"terminate", "stop fast", "stop immediate", "crash backend"}:
            async with self._database:
                await asyncio.to_thread(self._inject_into_database, fault)
        elif fault.kind in self._topology.kinds:
            async with self._database:
                await self._topology.inject(fault)
        else:
            await asyncio.to_thread(self._routes[fault.target].inject, fault.kind, fault.seconds)
        injected.until = time.time()
        self.counts[fault.kind] += 1

    async def _inject_into_worker(self, node: WorkerNode, fault: Fault) -> None:
        owned = await asyncio.to_thread(self._owned_by, node.process.pid)
        self.owner_losses.append(OwnerLoss(fault.kind, time.time(), node.process.pid, owned))
        self.lost += len(owned)
        if fault.kind == "kill":
            await asyncio.to_thread(node.kill)
            await asyncio.to_thread(node.replace)
        elif fault.kind == "freeze":
            await node.freeze(fault.seconds)
        else:
            self.drains.add(await asyncio.to_thread(node.drain))
            await asyncio.to_thread(node.replace)

    def _inject_into_database(self, fault: Fault) -> None:
        if fault.kind.startswith("stop"):
            self._server.stop(fault.kind)
            time.sleep(fault.seconds)  # the outage itself
            self._server.start()
            return
        pids = [pid for (pid,) in self._query(_SESSIONS)]
        if not pids:
            return
        if fault.kind == "crash backend":
            self._server.crash_backend(self._random.choice(pids))
        else:
            victims = self._random.sample(pids, self._random.randint(1, len(pids)))
            self._query("SELECT pg_terminate_backend(pid) FROM unnest(%s::integer[]) AS pid", victims)

    def _owned_by(self, pid: int) -> dict[str, int]:
        try:
            return dict(self._query(_OWNED, pid))
        except psycopg.Error:  # it is down just now
            return {}

    def _query(self, query: Any, *parameters: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(
            self._server.url("looking"), autocommit=True, application_name="looking", connect_timeout=2
        ) as connection:
            return connection.execute(query, parameters).fetchall()


def disruptions(nemesis: Nemesis, final_states: FinalStateMonitor, nodes: Sequence[WorkerNode]) -> list[Disruption]:
    """All that may have kept a worker from renewing its lease."""
    found = [Disruption(None, span) for span in [*final_states.slow]]
    for node in nodes:
        found += [Disruption(one.pid, Span(one.since, one.until)) for one in (*node.frozen, *node.stalled)]
    for injected in [*nemesis.injected]:
        kind, span = injected.fault.kind, Span(injected.since, injected.until + _SETTLING)
        if kind in _HARMLESS:
            continue
        if kind not in PROXY_KINDS:
            found.append(Disruption(None, span))
        elif injected.fault.target < len(nodes):
            found += [Disruption(pid, span) for pid in [*nodes[injected.fault.target].pids]]
    return found
