"""Takes queued work, as much as there are free slots, when notified of some.

Each queue has one claimer. NOTIFY wakes it when something was enqueued, and its own runs when a slot comes free; it
never takes more than it can run. The queue ``''`` holds the workflows that were started in a process which died. That
queue has no concurrency: workflows that wait for others in it would keep those from being taken.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any, Protocol

from dbosflow._records.pins import claimed_queue, partition_of, queue_of
from dbosflow._runtime.process.service import Service
from dbosflow._runtime.queues.limits import QueueLimits
from dbosflow._store import waiting, workflow
from dbosflow._store.notify import limits_topic, queue_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from psycopg_pool import AsyncConnectionPool

    from dbosflow._runtime.execution.quarantine import Quarantine
    from dbosflow._runtime.execution.run import Run
    from dbosflow._runtime.execution.runner import Runner
    from dbosflow._runtime.journal.journal import Journal
    from dbosflow._runtime.leases.worker_lease import WorkerLease
    from dbosflow._runtime.queues.slots import QueueSlots
    from dbosflow._runtime.wakeups.topics import Wakeups
    from dbosflow._store.workflow import Claimed
    from dbosflow.config import Settings
    from dbosflow.registry import Registry

RECOVERY_QUEUE = ""
_CLAIM_LIMIT = 200
"""Workflows in one claim: enough to share the round trip, and few enough to leave some to other workers, and to launch
between two turns of the loop without a noticeable delay."""

logger = logging.getLogger("dbosflow.claimer")

_missed: set[str] = set()
"""Workflows that this process was asked for and does not know: each is logged once."""


class SlotsTaken(Protocol):
    """Called with whether all slots of a queue are taken: then what only waits is to make room."""

    def __call__(self, queue: str, *, all_of_them: bool) -> None: ...


class Claimer(Service):
    """Claims the work of one queue for one worker."""

    def __init__(
        self,
        queue: str,
        slots: QueueSlots,
        *,
        journal: Journal[Run],
        lease: WorkerLease,
        quarantine: Quarantine,
        runner: Runner,
        registry: Registry,
        pool: AsyncConnectionPool[Any],
        wakeups: Wakeups,
        announce: Callable[[Iterable[str]], None],
        settings: Settings,
        slots_taken: SlotsTaken = lambda queue, *, all_of_them: None,  # noqa: ARG005 (nobody asks)
    ) -> None:
        super().__init__(f"claimer {queue!r}", interval=settings.safety_poll)
        self.queue = queue
        self._slots = slots
        slots.claimers.append(self)
        self._journal = journal
        self._lease = lease
        self._quarantine = quarantine
        self._runner = runner
        self._registry = registry
        self._settings = settings
        self._slots_taken = slots_taken
        self._announce = announce
        self._limits = QueueLimits(
            queue,
            pool=pool,
            schema=settings.schema,
            wakeups=wakeups,
            announce=announce,
            wake=self.wake,
            interval=settings.safety_poll,
        )
        self._is_open = True
        self._more = True
        """Whether work without a slot may be waiting: if not, a free slot is no reason to look for work."""
        self._adopted_at = time.monotonic()
        self._adopts = {queue}
        self._of_others: dict[str, str] = {}
        """The queues of runs that were adopted from other claimers."""
        self._partitions: dict[str, str] = {}
        """The partitions of those runs that have one."""
        self._missed_at = -math.inf
        self._unsubscribe = wakeups.subscribe(queue_topic(queue), self._hinted)
        self._unsubscribe_partitions = wakeups.subscribe_partitions(queue_topic(queue), self._hinted_at)
        self._leave_quarantine = quarantine.when_free(self.wake)

    def adopt_of(self, queue: str) -> None:
        """Runs the worker's workflows of another queue, whose claimer was closed, perhaps in the middle of a claim."""
        self._adopts.add(queue)
        self.adopt_soon()

    def adopt_soon(self) -> None:
        """Looks now for workflows that the worker owns and nobody runs."""
        self._adopted_at = -math.inf
        self.wake()

    def leave_to_its_own(self, queue: str) -> None:
        """Leaves a queue to its own new claimer, which has a concurrency of its own, too."""
        self._adopts -= {queue} - {self.queue}

    async def close(self) -> None:
        """Ends the claims."""
        self._unsubscribe()
        self._unsubscribe_partitions()
        self._leave_quarantine()
        self._limits.close()
        self._slots_taken(self.queue, all_of_them=False)
        self._is_open = False
        self._slots.have_enough(self)
        await super().close()
        self._slots.turns.leaves(self)

    def _hinted(self) -> None:
        self._limits.ring.changed()
        self._slots.want(self)
        self.wake()

    def _hinted_at(self, partition: str) -> None:
        self._limits.hint(partition)
        self._slots.want(self)
        self.wake()

    async def work_once(self) -> bool:
        """Claims up to the free slots, and launches the claimed workflows."""
        try:
            return await self._work()
        except BaseException:
            self._slots.turns.leaves(self)  # in nobody's way until it comes again
            self._adopted_at = -math.inf  # whether a claim was committed is not known, nor what of it was launched
            raise

    async def _work(self) -> bool:
        if time.monotonic() - self._adopted_at > self._settings.safety_poll:
            await self._adopt()
        async with self._slots.lock:
            self._slots.want(self)
            limit = self._slots.free(_CLAIM_LIMIT)
            self._slots_taken(self.queue, all_of_them=self._slots.are_taken or self._limits.is_full)
            self._more = True
            if limit <= 0:
                self._slots.turns.waits(self, is_full=True)
                return False
            if not self._lease.in_time:
                self._lease.when_in_time(self.wake)
                return False
            if self._quarantine.is_taken:
                return False
            again = False
            try:
                if self._slots.turns.gives_way(self):
                    return False
                claimed, again = await self._claim(limit)
                self._looked(claimed)
                await self._launch(claimed)
            finally:
                if not again:
                    self._slots.have_enough(self)
        await self._limits.settle()
        if again:
            return True
        self._more = self._limits.has  # there may be room now for what waited before
        known_waits = self._limits.has and self._limits.waits  # then it would walk over all of that
        if not known_waits and time.monotonic() - self._missed_at > self._settings.safety_poll:
            await self._look_for_unknown()
        return False

    async def _claim(self, limit: int) -> tuple[list[Claimed], bool]:
        """Claims workflows; returns them, and whether there may be more."""
        which: dict[str, Any] = {"names": self._registry.names(), "suspects": self._quarantine.takes_suspects}
        if not which["names"]:
            return [], False
        async with self._journal.connection() as connection:
            worker_id, limits = self._lease.id, self._limits
            if await limits.look(connection):
                freed = self._slots.were_freed
                found = await limits.claim(connection, worker_id, freed=freed, limit=limit, **which)
                self._slots_taken(self.queue, all_of_them=limits.is_full)
                if not limits.is_busy:
                    self._slots.were_freed -= freed
                if found is not None:
                    return found
            claimed = await workflow.claim(
                connection, self._settings.schema, worker_id=worker_id, queue=self.queue, limit=limit, **which
            )
            return claimed, len(claimed) == limit

    def _looked(self, claimed: list[Claimed]) -> None:
        turns, limits = self._slots.turns, self._limits
        if claimed:
            self._slots.served(self)
            turns.got_some(self)
        elif limits.has and limits.waits:
            turns.waits(self, is_full=not limits.has_room)
        else:
            turns.leaves(self)

    async def _look_for_unknown(self) -> None:
        """Logs workflows that wait for a worker that knows them. Runs when all else is claimed, so reads little."""
        async with self._journal.connection() as connection:
            names = [*self._registry.names(), *_missed]
            found = await waiting.unknown(connection, self._settings.schema, queue=self.queue, names=names)
        self._missed_at = time.monotonic()
        for name in sorted(set(found) - _missed):
            _missed.add(name)
            logger.warning(
                "workflow %r waits %s, and this worker does not know it: it stays queued until one does. Import its "
                "module here, or start a worker that has it",
                *(name, f"in queue {self.queue!r}" if self.queue else "without a queue"),
            )

    async def _adopt(self) -> None:
        """Runs what the worker owns and does not run: a claim's answer was lost, or a failover lost an end."""
        async with self._journal.connection() as connection:
            found = await workflow.adopt(
                connection,
                self._settings.schema,
                worker_id=self._lease.id,
                queues=[*self._adopts],
                known=self._runner.known(),
            )
        self._adopted_at = time.monotonic()
        self._limits.may_have = bool(self._limits.name)
        self._of_others |= {one.id: one.queue for one in found if claimed_queue(one.queue) != self.queue}
        await self._launch(found)

    async def _launch(self, claimed: list[Claimed]) -> None:
        self._slots.running.update(one.id for one in claimed)
        self._partitions |= {one.id: key for one in claimed if (key := partition_of(one.queue)) is not None}
        await self._runner.resume(claimed, self._freed)
        self._quarantine.enter(claimed, self._runner.run_of)

    def _freed(self, workflow_id: str) -> None:
        """A run is over."""
        self._slots.freed(workflow_id, self._partitions.pop(workflow_id, None))
        queue = self._of_others.pop(workflow_id, None)
        if queue is not None:
            self._announce([limits_topic(queue_of(queue))])  # nobody here looks for more of it

    def room_in(self, partition: str | None) -> None:
        """A run of a partition is over."""
        if self._limits.has:
            self._limits.ring.freed(partition or "")

    def look_for_more(self) -> None:
        """Looks for work, unless none was left at the last look and nothing was announced since."""
        if self._more:
            self.wake()
        if not self._is_open and self._limits.has:
            self._announce([limits_topic(self._limits.name)])  # others may wait for the room
