"""What makes a process a worker, ``engine.run_worker``; and which there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dbosflow._records.pins import check_queue
from dbosflow._runtime.queues.slots import Serving
from dbosflow._store import worker
from dbosflow.config import DEFAULT_QUEUE, LARGEST_INTEGER, check_whole, shown
from dbosflow.errors import ConfigurationError
from dbosflow.starts import EngineStarts

if TYPE_CHECKING:
    from dbosflow._runtime.engine.core import EngineCore
    from dbosflow.types import WorkerInfo

CONCURRENCY = 50
"""Workflows at once in a process: of those that mostly wait, one core runs as many with ease."""


class EngineWorkers(EngineStarts):
    """The engine as a worker of queues."""

    _core: EngineCore

    def run_worker(
        self,
        *queues: str,
        concurrency: int = CONCURRENCY,
        weights: Mapping[str, int] | None = None,
        queue_concurrency: Mapping[str, int] | None = None,
        burst: bool = False,
    ) -> None:
        """Runs the workflows of the given queues until the engine closes; blocks.

        See ``run_worker_async``, its awaitable twin, which can be cancelled, too.
        """
        serving = serving_of(queues, concurrency, weights, queue_concurrency)
        self._host.call("run_worker_async", self._core.work, serving, burst=burst)

    async def run_worker_async(
        self,
        *queues: str,
        concurrency: int = CONCURRENCY,
        weights: Mapping[str, int] | None = None,
        queue_concurrency: Mapping[str, int] | None = None,
        burst: bool = False,
    ) -> None:
        """Runs the workflows of the given queues until the call is cancelled or the engine closes.

        Args:
            queues: the names of the queues (default: ``default``).
            concurrency: how many workflows of each queue run at a time; with ``weights``, of all of them together.
            weights: how the queues share ``concurrency`` slots, as ``{"urgent": 3, "bulk": 1}``: of those that have
                work, each gets free slots by its weight, and one that alone has work gets all. Queues that are not in
                it have the weight 1. What runs is not interrupted.
            queue_concurrency: the most workflows of a queue that run at a time, for those that are to have fewer.
            burst: whether to return, too, once nothing is left that this engine could run: nothing runs here, and
                nothing that it knows waits in the queues or is due. It waits neither for what other workers run, nor
                for a paused queue, nor for what waits for a later time, a message or another workflow: that leaves
                memory after a second, unless ``suspend_after`` is 0.

        Raises:
            ConfigurationError: a queue name or a number is not valid.
            EngineClosedError: the engine was opened with ``executes=False``, or is not open.
        """
        serving = serving_of(queues, concurrency, weights, queue_concurrency)
        await self._host.bridge(self._core.work(serving, burst=burst))

    def list_workers(self) -> tuple[WorkerInfo, ...]:
        """The live workers, and what each of them runs. See ``list_workers_async``, its awaitable twin."""
        return self._host.call("list_workers_async", self._workers)

    async def list_workers_async(self) -> tuple[WorkerInfo, ...]:
        """The live workers, and what each of them runs: every process with an engine that executes workflows.

        A worker counts as live until it has given its lease up, or another one has found it dead: see ``silent``.
        """
        return await self._host.bridge(self._workers())

    async def _workers(self) -> tuple[WorkerInfo, ...]:
        return await self._core.repository.ask(worker.status)


def serving_of(
    queues: tuple[str, ...],
    concurrency: int,
    weights: Mapping[str, int] | None,
    queue_concurrency: Mapping[str, int] | None,
) -> Serving:
    """What a worker is to serve.

    Raises:
        ConfigurationError: a queue name or a number is not valid.
    """
    check_whole("concurrency", concurrency, 1, LARGEST_INTEGER)
    names = [check_queue(queue) for queue in queues or (DEFAULT_QUEUE,)]
    most = _checked("queue_concurrency", {} if queue_concurrency is None else queue_concurrency, names)
    limits = {name: most.get(name, concurrency) for name in names}
    if weights is None:
        return Serving(limits)
    given = _checked("weights", weights, names)
    return Serving(limits, {name: given.get(name, 1) for name in names}, concurrency)


def _checked(what: str, numbers: object, names: list[str]) -> dict[str, int]:
    if not isinstance(numbers, Mapping):
        msg = f"{what}={shown(numbers)} must be a dictionary of the worker's queues and whole numbers, or None"
        raise ConfigurationError(msg)
    for name, number in numbers.items():
        if name not in names:
            msg = f"{what} has queue {shown(name)}, which this worker does not serve: it serves {', '.join(names)}"
            raise ConfigurationError(msg)
        check_whole(f"{what} of queue {shown(name)}", number, 1, LARGEST_INTEGER)
    return dict(numbers)
