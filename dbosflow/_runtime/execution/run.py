"""A run: one owner's pass over one workflow, from its history to its end; its branches, and its steps' attempts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dbosflow._records.keys import iteration_path
from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.journal.slice import Slice
from dbosflow._runtime.replay.branch import Branch
from dbosflow._runtime.replay.replaying_run import ReplayingRun
from dbosflow._runtime.runs.entries import Barrier, Record
from dbosflow._runtime.runs.producers import Attempt, Producer
from dbosflow._runtime.streams.transaction_writes import TransactionWrites
from dbosflow._runtime.streams.writes import RunStreams
from dbosflow._store.step import NO_HISTORY
from dbosflow.errors import TransactionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dbosflow._runtime.execution.driver_port import DriverPort
    from dbosflow._runtime.execution.engine_port import EnginePort
    from dbosflow._runtime.execution.environment import RunEnvironment
    from dbosflow._runtime.process.thread_pool import Place
    from dbosflow._runtime.runs.entries import Ending, Entry, Waiter
    from dbosflow._runtime.runs.offsets import Offsets
    from dbosflow._runtime.runs.opening import Opening
    from dbosflow._runtime.runs.state_ports import RunParts
    from dbosflow._runtime.streams.inbox import Inbox
    from dbosflow._store.carried import ReadPlace
    from dbosflow._store.step import History


class Run(ReplayingRun):
    """One owner's pass over one workflow."""

    __slots__ = ("_inboxes", "_streams", "_waiters", "leaving", "outcome", "read_places", "received", "task")

    environment: RunEnvironment[Run, StepAttempt]
    root: RunBranch

    def __init__(
        self, environment: RunEnvironment[Run, StepAttempt], parts: RunParts, history: History = NO_HISTORY
    ) -> None:
        super().__init__(environment, parts, history)
        self.root = RunBranch(self, iteration_path(history.iteration))
        self._streams = RunStreams(self) if history.tails or history.uncommitted else None
        self.task: asyncio.Task[None] | None = None
        """The task of the run's body, or of ending what the body left running; ``None`` when that is over."""
        self.outcome: Ending | None = None
        """The durable end once the run is over; ``None`` if the workflow goes on elsewhere."""
        self.leaving: Sequence[Entry] | None = None
        """What is written once the body of a run that leaves memory has returned; empty when it is handed over."""
        self._waiters: tuple[asyncio.Future[Ending | None], ...] = ()
        self._inboxes: dict[str, Inbox] | None = None
        self.read_places: dict[str, Callable[[], ReadPlace]] = {}
        """How far the last reader of each input has come."""
        self.received: dict[str, Offsets] = {}
        """The messages that this pass has received, by topic, live or from the records."""

    @property
    def loop_driver(self) -> DriverPort[Run, StepAttempt]:
        """How the run's code on the loop waits."""
        return self.environment.loop_driver

    @property
    def thread_driver(self) -> DriverPort[Run, StepAttempt]:
        """How the run's code on a thread waits."""
        return self.environment.thread_driver

    @property
    def driver(self) -> DriverPort[Run, StepAttempt]:
        """How the run's body waits."""
        environment = self.environment
        on_loop = self.definition.is_async or self.compensating
        return environment.loop_driver if on_loop else environment.thread_driver

    @property
    def engine(self) -> EnginePort:
        """The engine, as it looks from inside a workflow."""
        return self.environment.engine

    @property
    def streams(self) -> RunStreams:
        """What the run writes to its streams."""
        if self._streams is None:
            with self.buffer.lock:
                if self._streams is None:
                    self._streams = RunStreams(self)
        return self._streams

    @property
    def written_streams(self) -> RunStreams | None:
        """``streams``, if it has written to any, in this pass or before."""
        return self._streams

    @property
    def inboxes(self) -> dict[str, Inbox]:
        """The inboxes that the run receives from, by topic. Used on the loop's thread only."""
        if self._inboxes is None:
            self._inboxes = {}
        return self._inboxes

    @property
    def blocks(self) -> int:
        """How many stream blocks the run has made durable."""
        return 0 if self._streams is None else self._streams.blocks

    async def room(self) -> bool:
        """Waits on the loop for room in the run's buffer; returns whether there is room in time."""
        return await self.loop_driver.room(self)

    # -- called by the body, on its own thread -----------------------------------------------------------------------

    def append_item(self, record: Record, durable: Waiter, dead_letter: tuple[str, str] | None = None) -> None:
        """Buffers the record of a loop's item and its dead letter, if there is one, for the same statement.

        ``durable`` is notified at the commit, in no turn, since the program sees only the loop's outcome.
        """
        streams = self.streams if dead_letter is not None else None
        with self.buffer.lock:
            self.check_may_write(None)
            if dead_letter is not None and streams is not None:
                record.dead_letter = streams.dead_letter(
                    *dead_letter, loop_key=record.loop_item.loop if record.loop_item else ""
                )
            self.buffer.push(record)
            self.buffer.push(Barrier(durable), durable)
        self.environment.submit(self)

    def append_ahead(self, record: Record) -> None:
        """Buffers the record of an outcome that the program has already: what it does next is durable no earlier.

        A draw goes with the next entry that is submitted. In a draining run none may follow, and in a full buffer not
        yet: so there it goes at once.
        """
        with self.buffer.lock:
            self._check_may_record()
            if self._streams is not None:
                self._streams.begin_blocks()
            self.buffer.push(record)
            self.buffer.ahead += 1
            submits = record.ends_turn or self.is_draining or not self.buffer.has_room
        if submits:
            self.environment.submit(self)

    def begin_attempt(self, step_key: str) -> None:
        """Rolls back the uncommitted stream values of earlier attempts of a step."""
        if self._streams is not None:
            self._streams.begin_attempt(step_key)

    # -- called by the journal, on the loop's thread -----------------------------------------------------------------

    def end(self, ending: Ending) -> None:
        """Buffers the run's last entry: its body is over, and the tasks that it left running have ended."""
        self.task = None
        with self.buffer.lock:
            self.begin_ending()
        if self.opening is not None and not self.opening.is_over and self._end_opening(self.opening, ending):
            return
        with self.buffer.lock:
            self.buffer.push(ending)
        self.environment.submit(self)

    def _end_opening(self, opening: Opening, ending: Ending) -> bool:
        """Has the whole workflow written in one statement; returns whether that is possible."""
        if not ending.status.ended or self.inputs:
            return False
        if not (self.buffer.size or self._streams):
            return opening.end(ending)
        entries = self.buffer.take_all(self.settings.batch_bytes)
        return entries is not None and opening.end(ending, Slice(self, [*entries, ending]))

    def start_is_durable(self) -> None:
        """The workflow has a row: what is in the buffer may go out, and the operations that wait begin."""
        opening, self.opening = self.opening, None
        assert opening is not None
        opening.start_is_durable()
        if self.buffer.held_back:  # draws alone go with what follows
            self.environment.submit(self)

    def committed(self, entries: Sequence[Entry]) -> None:
        """Frees the room of durable entries and delivers the outcomes among them."""
        outcomes: list[Record] = []
        ahead = 0
        for entry in entries:
            if isinstance(entry, Record):
                if entry.waiter is not None:
                    outcomes.append(entry)
                elif entry.ends_turn or entry.kind is RecordKind.DRAWN:
                    ahead += 1
            elif isinstance(entry, Barrier):
                self.buffer.notify(entry)
        self.buffer.free(sum([entry.size for entry in entries]), ahead)
        if ahead and self.is_draining:
            self.check_drained()
        if not outcomes:
            return
        if self.sequencer is not None:
            self.sequencer.committed(outcomes)
        else:
            for record in outcomes:
                self.buffer.notify(record)

    # -- the run's end -----------------------------------------------------------------------------------------------

    def settle(self, outcome: Ending | None) -> None:
        """Ends the run, with a durable end, or without one if it goes on elsewhere. Waiters are notified."""
        if self.is_over:
            return
        self.is_over, self.outcome = True, outcome
        waiters, self._waiters = self._waiters, ()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(outcome)
        self.replay_is_over()
        # References in a circle would wait for the garbage collector.
        if outcome is not None:
            self._streams = None
        if self.task is None or self.task.done():
            self.task = self.sequencer = None
            del self.root

    def pass_on(self, following: Run | None) -> None:
        """Ends the run in favour of the pass of the next iteration, which the waiters wait for from here on."""
        if following is not None:
            waiters, self._waiters = self._waiters, ()
            for waiter in waiters:
                following.add_waiter(waiter)
        self.settle(None)

    def add_waiter(self, waiter: asyncio.Future[Ending | None]) -> None:
        """Lets ``waiter`` wait for the run's outcome."""
        self._waiters = (*self._waiters, waiter)

    @property
    def is_awaited(self) -> bool:
        """Whether a caller in this process waits until the run is over."""
        return bool(self._waiters)

    async def settled(self) -> Ending | None:
        """Waits until the run is over: its durable end, or ``None`` if it goes on elsewhere."""
        waiter = self.when_settled(asyncio.get_running_loop().create_future())
        try:
            return await waiter
        finally:
            self._waiters = tuple(other for other in self._waiters if other is not waiter)

    def when_settled(self, waiter: asyncio.Future[Ending | None]) -> asyncio.Future[Ending | None]:
        """Returns ``waiter``, whose result will be the run's outcome."""
        if not self.is_over:
            self.add_waiter(waiter)
        elif not waiter.done():
            waiter.set_result(self.outcome)
        return waiter


class RunBranch(Branch):
    """A branch of a run, as operations know it."""

    __slots__ = ()

    run: Run


class StepAttempt(Attempt):
    """An attempt of a step of a run."""

    __slots__ = ("_sent", "_used", "place", "producers", "run")

    def __init__(self, run: Run, key: str, name: str) -> None:
        super().__init__(key, name)
        self.run = run
        self.producers: dict[str, Producer] = {}
        """How the attempt writes to each stream, as its first writer there set it."""
        self._sent = 0
        self._used = 0
        self.place: Place | None = None
        """The place that the attempt's thread holds in its pool; ``None`` on the loop."""

    def count_sent(self) -> int:
        """Counts a message that the attempt sends; returns how many it had sent before."""
        with self.run.buffer.lock:
            self._sent += 1
            return self._sent - 1

    def count_used(self) -> int:
        """Counts a correction of the units that the attempt has used; returns how many there were before."""
        with self.run.buffer.lock:
            self._used += 1
            return self._used - 1

    def producer(self, key: str) -> Producer:
        """The producer of the attempt's values in the stream ``key``: rolled back on failure, unless set otherwise."""
        producer = self.producers.get(key)
        if producer is None:
            producer = self.producers[key] = Producer(self.record_key, self.name, self)
        return producer


class TransactionAttempt(StepAttempt):
    """An attempt of a transaction: what it writes to streams waits for its commit."""

    __slots__ = ("_reads_only", "writes")

    def __init__(self, run: Run, key: str, name: str, *, reads_only: bool) -> None:
        super().__init__(run, key, name)
        self._reads_only = reads_only
        self.writes: TransactionWrites | None = None
        """What it writes to streams; ``None`` if it has not written any."""

    def begin_writes(self) -> TransactionWrites:
        """What it writes to streams. Raises ``TransactionError`` in a transaction that only reads."""
        if self._reads_only:
            msg = f"{self.key!r} is a read-only transaction: it writes to no stream either. Write in the workflow"
            raise TransactionError(msg)
        if self.writes is None:
            producer = Producer(self.record_key, None, self)
            self.writes = TransactionWrites(self.run, self.run.streams, producer)
        return self.writes
