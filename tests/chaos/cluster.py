"""The cluster: the worker nodes, and the readers and writers that are processes of their own, with their routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos.clients.readers import Readers
from tests.chaos.clients.writers import Writers
from tests.chaos.nodes.workers import WorkerNode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.clients.client_processes import ClientProcesses
    from tests.chaos.nodes.processes import Launcher
    from tests.chaos.topologies.topology import Route, Topology


class Cluster:
    """All processes of a run. The first worker and the first reader reach the database without a proxy."""

    def __init__(self, topology: Topology, launcher: Launcher, routes: Sequence[Route], seed: int) -> None:
        self.nodes: list[WorkerNode] = []
        self.readers = Readers((topology.url, routes[0].url), launcher, seed)
        self.writers = Writers((routes[0].url, routes[-1].url), launcher)
        self.client_processes: tuple[ClientProcesses, ...] = (self.readers, self.writers)
        self._worker_urls = (topology.url, *(route.url for route in routes[1:]))
        self._launcher = launcher

    def start(self) -> None:
        """Starts all of them."""
        for number, url in enumerate(self._worker_urls):
            self.nodes.append(WorkerNode(number, url, self._launcher))
        for processes in self.client_processes:
            processes.start()

    def is_ready(self) -> bool:
        """Whether all of them serve and listen."""
        return all(node.ready for node in self.nodes) and all(processes.ready for processes in self.client_processes)

    def close(self) -> None:
        """Makes sure that nothing is left of them."""
        for node in self.nodes:
            node.process.close()
        for processes in self.client_processes:
            processes.close()
