"""A run: one owner's pass over one workflow, from its history to its end."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from dbosflow._runtime.process.exits import is_signal
from dbosflow._runtime.replay.branch import Branch, BranchCoroutine, RunStopped
from dbosflow._runtime.replay.contradiction import contradiction
from dbosflow._runtime.replay.plain_timers import PlainTimers
from dbosflow._runtime.replay.recorded_order import RecordedOrder
from dbosflow._runtime.replay.sequencer import Sequencer
from dbosflow._runtime.runs.buffer import Buffer
from dbosflow._runtime.runs.entries import Barrier, Record
from dbosflow._runtime.runs.keys import is_delivered
from dbosflow._runtime.streams.writes import RunStreams
from dbosflow._store.step import NO_HISTORY
from dbosflow.errors import LeaseLostError, WorkflowCancelledError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from dbosflow._runtime.execution.drivers import Driver
    from dbosflow._runtime.execution.engine_port import EnginePort
    from dbosflow._runtime.execution.environment import RunEnvironment
    from dbosflow._runtime.execution.scope import Attempt
    from dbosflow._runtime.runs.entries import Ending, Entry, Waiter
    from dbosflow._store.step import History, Recorded
    from dbosflow.config import Settings
    from dbosflow.definitions import WorkflowDef
    from dbosflow.errors import NonDeterminismError, WorkflowError


E = TypeVar("E", bound="WorkflowError")

logger = logging.getLogger("dbosflow.run")

_NOBODY_WAITS = threading.Event()
"""The ``interrupted`` of runs whose bodies are on the loop: no thread of theirs waits for anything."""


class Run:
    """One owner's pass over one workflow."""

    __slots__ = (
        *("_began", "_cancel_callbacks", "_main", "_others", "_replayed", "_streams", "_to_replay", "_waiters"),
        *("arguments_text", "bodies", "buffer", "calls", "cancelled", "contradiction", "definition", "ending"),
        *("environment", "epoch", "history", "inputs", "interrupted", "is_over", "on_drained", "on_slot_freed"),
        *("outcome", "queue", "recorded_order", "resumption_event", "resumptions", "root", "seq", "sequencer"),
        *("stopping", "superseded", "task", "timers", "turn", "waits", "workflow_id"),
    )

    def __init__(
        self,
        environment: RunEnvironment,
        *,
        workflow_id: str,
        definition: WorkflowDef,
        arguments_text: str,
        epoch: int,
        queue: str,
        history: History | None = None,
        inputs: Iterable[str] = (),
    ) -> None:
        self.environment = environment
        self.workflow_id, self.epoch, self.queue = workflow_id, epoch, queue
        self.definition, self.arguments_text = definition, arguments_text
        self.inputs: Collection[str] = tuple(inputs)
        """The stream keys that outsiders write, and this run never does."""
        self.history = past = history or NO_HISTORY
        self.seq, self.turn = past.next_place
        self.recorded_order = RecordedOrder(past) if past.records or past.loops else None
        """What its branches have on record and were not asked for yet; ``None`` in a run without a past."""
        self.timers: PlainTimers | None = None
        """The plain timers that its code has set, while it replays."""
        self.resumption_event: asyncio.Event | None = None
        """Set when code of the run is resumed, while the sequencer watches whether its replay still gets on."""
        self.root = Branch(self, "")
        self.task: asyncio.Task[None] | None = None
        """What drives its body, or ends what that left running; ``None`` when that is over."""
        self.on_slot_freed: Callable[[str], None] | None = None
        """Called once the run is over and its slot is free."""
        self.is_over = False
        """Whether it has come to its end, or stopped for good: then ``outcome`` says which."""
        self.outcome: Ending | None = None
        """Its durable end; ``None`` if it goes on elsewhere."""
        self._waiters: tuple[asyncio.Future[Ending | None], ...] = ()
        self._main: BranchCoroutine | None = None
        self._others: set[BranchCoroutine] | None = None
        self.resumptions = 0
        """Counts the resumptions of its coroutines."""
        self.sequencer: Sequencer | None = None
        """Delivers outcomes by turns. It is made with the first branch, since a run with one branch needs none."""
        self.stopping: RunStopped | None = None
        self.superseded = False
        """Whether a new pass takes its place, from what the tables hold: then not even its end may be written."""
        self.contradiction: WorkflowError | None = None
        """Why the workflow is to be parked, whatever its body makes of the error."""
        self.cancelled = self.ending = False
        """Whether it is to be cancelled: then no operation begins, and none under way leaves a record."""
        self.bodies = self.waits = 0
        """Step bodies under way; operations that wait for a time, for another workflow, or for a stream."""
        # Set while the engine closes: called once no step body is under way.
        self.on_drained: Callable[[], None] | None = None
        self.interrupted = _NOBODY_WAITS if definition.is_async else threading.Event()
        """Wakes what a thread of this run waits for: it has stopped, or is to be cancelled."""
        self.calls: tuple[Future[Any], ...] = ()
        """Bodies on the loop that the thread of this run waits for."""
        self._replayed: set[str] | None = None
        self._to_replay = sum(is_delivered(record.kind) for record in past.records.values()) if past.records else 0
        self._began = time.monotonic()
        self.buffer = Buffer(environment.settings.buffer_bytes)
        """What it has for the journal."""
        self._cancel_callbacks: tuple[Callable[[], object], ...] = ()
        self._streams = RunStreams(self) if past.tails or past.uncommitted else None

    @property
    def settings(self) -> Settings:
        """The engine's settings."""
        return self.environment.settings

    @property
    def loop_driver(self) -> Driver:
        """How its code on the loop waits."""
        return self.environment.loop_driver

    @property
    def thread_driver(self) -> Driver:
        """How its code on a thread waits."""
        return self.environment.thread_driver

    @property
    def engine(self) -> EnginePort:
        """The engine, as it looks from inside a workflow."""
        return self.environment.engine

    @property
    def streams(self) -> RunStreams:
        """What it writes to its streams."""
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
    def blocks(self) -> int:
        """How many stream blocks it has made durable."""
        return 0 if self._streams is None else self._streams.blocks

    @property
    def active(self) -> bool:
        """Whether new tasks of its branches are branches of it."""
        return not self.ending and self.stopping is None

    def check_active(self) -> None:
        """Raises ``RunStopped`` when no operation may begin any more."""
        if self.stopping is not None:
            raise self.stopping
        if self.cancelled:
            raise self._cancellation()
        if self.ending:
            raise RunStopped(f"workflow {self.workflow_id!r} is no longer run here")

    def ensure_sequencer(self) -> Sequencer:
        """Its sequencer, which is made if there is none. From here on outcomes are delivered by turns."""
        if self.sequencer is None:
            self.sequencer = Sequencer(self)
        return self.sequencer

    def note_resumption(self) -> None:
        """Its code is resumed."""
        self.resumptions += 1
        if self.resumption_event is not None:
            self.resumption_event.set()

    # -- what the body asks for, on its own thread -------------------------------------------------------------------

    def append(self, record: Record) -> None:
        """Buffers a record; its waiter is notified when it is durable and its turn has come."""
        with self.buffer.lock:
            if self.stopping is not None:
                raise self.stopping
            if self.cancelled:
                raise self._cancellation()
            if record.waiter is not None:
                self.buffer.expect(record.waiter)
            self.buffer.push(record)
        self.environment.submit(self)

    def append_item(self, record: Record, durable: Waiter, dead_letter: tuple[str, str] | None = None) -> None:
        """Buffers the record of a loop's item, with its dead letter, if there is one, in the same statement.

        ``durable`` is notified at the commit: it waits for no turn, since the program sees only the loop's outcome.
        """
        streams = self.streams if dead_letter is not None else None
        with self.buffer.lock:
            self.check_writable(None)
            if dead_letter is not None and streams is not None:
                record.dead_letter = streams.dead_letter(
                    *dead_letter, producer=record.loop_item.loop if record.loop_item else ""
                )
            self.buffer.expect(durable)
            self.buffer.push(record)
            self.buffer.push(Barrier(durable))
        self.environment.submit(self)

    def begin_attempt(self, step_key: str) -> None:
        """Rolls back what earlier attempts of a step wrote to streams, as far as it is uncommitted."""
        if self._streams is not None:
            self._streams.begin_attempt(step_key)

    def add_barrier(self, waiter: Waiter) -> None:
        """Notifies ``waiter`` when all that is buffered now is durable."""
        with self.buffer.lock:
            if self.stopping is not None:
                raise self.stopping
            if not self.buffer.size:
                waiter.set_result(None)
                return
            self.buffer.expect(waiter)
            self.buffer.push(Barrier(waiter))
        self.environment.submit(self)

    def when_cancelled(self, callback: Callable[[], object]) -> None:
        """Calls ``callback`` (from the loop's thread) when the workflow is asked to end, or now if it was."""
        with self.buffer.lock:
            if not self.cancelled:
                self._cancel_callbacks = (*self._cancel_callbacks, callback)
                return
        callback()

    def when_room(self, callback: Callable[[], None]) -> None:
        """Calls ``callback`` (from the loop's thread) once there is room, or the run has stopped."""
        with self.buffer.lock:
            waits = not self.buffer.has_room and self.stopping is None
            if waits:
                self.buffer.expect_room(callback)
        if not waits:
            callback()
        else:
            self.environment.on_back_pressure(self.workflow_id)

    def check_writable(self, attempt: Attempt | None) -> None:
        """Raises when nothing can be written any more: by anybody, or by an attempt that is over."""
        if self.cancelled:
            raise self._cancellation()
        if self.stopping is not None or self.ending:
            raise self.stopping or RunStopped(f"workflow {self.workflow_id!r} has ended")
        if attempt is not None and attempt.closed:
            msg = f"attempt {attempt.name} of step {attempt.key!r} is over; it can write nothing any more"
            raise LeaseLostError(msg)

    # -- what the journal asks for, on the loop's thread -------------------------------------------------------------

    def end(self, ending: Ending) -> None:
        """Buffers the run's last entry: its body is over, and so is what it left running."""
        self.task = None
        with self.buffer.lock:
            self.ending = True
            self.buffer.push(ending)
        self.environment.submit(self)

    def take(self, limit: int) -> tuple[Sequence[Entry], bool]:
        """Takes pending entries in order, about ``limit`` bytes; and whether any are left. None while it holds back."""
        with self.buffer.lock:
            if self._holds_back:
                self.buffer.submitted = False
                return (), False
            taken, more = self.buffer.take(limit)
            if self._streams is not None:
                self._streams.taken(taken)
        return taken, more

    def committed(self, entries: Sequence[Entry]) -> None:
        """Frees the room of durable entries and delivers the outcomes among them."""
        self.buffer.free(sum([entry.size for entry in entries]))
        outcomes: list[Record] = []
        for entry in entries:
            if isinstance(entry, Record):
                if entry.waiter is not None:
                    outcomes.append(entry)
            elif isinstance(entry, Barrier):
                self.buffer.notify(entry)
        if not outcomes:
            return
        if self.sequencer is not None:
            self.sequencer.committed(outcomes)
        else:
            for record in outcomes:
                self.buffer.notify(record)

    def stop(self, why: str) -> None:
        """Ends this pass: operations under way and all that would begin raise ``RunStopped``."""
        if self.stopping is not None:
            return
        with self.buffer.lock:
            self.stopping = stopping = RunStopped(why)
        self.interrupted.set()
        self.buffer.drop(stopping)
        if self.sequencer is not None:
            self.sequencer.stop(stopping)
        for call in self.calls:
            call.cancel()
        for task in self.tasks():
            task.cancel()

    def disagree(self, asked: str, there: str, record: Recorded | str | None = None) -> NonDeterminismError:
        """Ends this pass because code and records disagree: it writes nothing any more but that it is blocked.

        Whatever becomes of the error, which is the caller's to raise. See ``contradiction`` for what it says; a record
        may be given by its key, or by that of its operation.
        """
        if isinstance(record, str):
            order = self.recorded_order
            record = self.recorded(record) or (None if order is None else order.record_of(record))
        return self.park(contradiction(self.workflow_id, asked, there, record, read_before=self.age))

    def park(self, why: E) -> E:
        """Ends this pass: the workflow is parked as blocked, and its error is ``why``. See ``disagree``."""
        if self.stopping is None:
            self.contradiction = why
            self.stop("it is parked as blocked")
        return why

    @contextmanager
    def cancelling(self, call: Future[Any]) -> Iterator[None]:
        """Cancels ``call``, which the block waits for, when the run stops; then it raises ``RunStopped``."""
        self.calls = (*self.calls, call)
        try:
            if self.stopping is not None:
                call.cancel()
            yield
        except CancelledError:
            self.check_active()
            raise
        finally:
            self.calls = tuple(other for other in self.calls if other is not call)

    def cancel(self) -> bool:
        """Asks the body to end: async code gets ``CancelledError``, sync code an error at its next durable call.

        Whether it had to be asked; one that ends anyhow is not, and the statement that would end it sees the request.
        """
        if self.cancelled or self.ending or self.stopping is not None:
            return False
        with self.buffer.lock:
            self.cancelled = True
            callbacks, self._cancel_callbacks = self._cancel_callbacks, ()
        self.interrupted.set()
        for callback in callbacks:
            try:
                callback()
            except BaseException as error:
                if is_signal(error):
                    raise
                logger.exception("workflow %s: a listener for its cancellation failed", self.workflow_id)
        for call in self.calls:
            call.cancel()
        for task in self.tasks():
            task.cancel()
        return True

    def _cancellation(self) -> BaseException:
        message = f"workflow {self.workflow_id!r} is cancelled"
        if self.definition.is_async:
            return asyncio.CancelledError(message)
        return WorkflowCancelledError(self.workflow_id, message)

    def drain(self, on_drained: Callable[[], None]) -> None:
        """Holds what would begin; calls ``on_drained`` once no step body is under way. A run at its end just ends.

        Held, not refused: what a body made of a refusal while other branches go on would be durable.
        """
        with self.buffer.lock:
            self.on_drained = on_drained
            idle = self.bodies == 0 and not self.ending
        if idle:
            on_drained()

    @property
    def is_draining(self) -> bool:
        """Whether what would begin is held."""
        return self.on_drained is not None

    def body_begins(self) -> None:
        """A step body is about to run."""
        with self.buffer.lock:
            self.bodies += 1

    def body_ended(self) -> None:
        """A step body has ended and its outcome is durable, or is not going to be."""
        with self.buffer.lock:
            self.bodies -= 1
            on_drained = self.on_drained if self.bodies == 0 and not self.ending else None
        if on_drained is not None:
            on_drained()

    @property
    def age(self) -> float:
        """Seconds since its history was read."""
        return time.monotonic() - self._began

    def tasks(self) -> set[asyncio.Task[Any]]:
        """The tasks of its branches."""
        return {
            coroutine.task for coroutine in self.coroutines if coroutine.task is not None and not coroutine.task.done()
        }

    @property
    def is_replaying(self) -> bool:
        """Whether records of an earlier run are still to be delivered to it."""
        if self.sequencer is not None:
            return self.sequencer.is_replaying
        return len(self.replayed) < self._to_replay

    @property
    def _holds_back(self) -> bool:
        """Whether what is new stays in the buffer: what is on record may still contradict, and then it is dropped.

        A branch that has come to the end of its own records writes to its streams while others still replay theirs.
        """
        sequencer = self.sequencer
        if sequencer is None or not sequencer.is_replaying:
            return False
        return not (self.ending or self.cancelled or self.stopping is not None)

    def has_more(self, path: str) -> bool:
        """Whether the branch has anything on record that it has not asked for yet."""
        return self.next_of(path) is not None

    def next_behind(self, path: str) -> str | None:
        """What is on record behind that which the branch does now: something of its own, or, beside no other, anything.

        With regions one coroutine works for several branches: what it has recorded in another one counts, too.
        """
        ahead = self.next_of(path)
        if ahead is None and self.recorded_order is not None and len(self.coroutines) == 1:
            return self.recorded_order.first_left
        return ahead

    def next_of(self, path: str) -> str | None:
        """The next operation that the branch has on record."""
        return None if self.recorded_order is None else self.recorded_order.next_of(path)

    def check_all_asked(self, does: str) -> None:
        """Raises what parks the workflow, if anything on record was not asked for by a body that ``does`` this now."""
        order = self.recorded_order
        if order is not None and order.left:
            there = order.first_left or ""
            raise self.disagree(does, f"{there!r} behind that", there)

    def replay_begins(self) -> None:
        """Its body is about to begin, on the loop. A replay that is stalled for long gets a sequencer."""
        order = self.recorded_order
        if order is not None:
            self.timers = PlainTimers(lambda: self.ensure_sequencer() if self.active and order.left else None)

    def replay_is_over(self) -> None:
        """All that is on record was delivered: new operations begin, and plain timers are no longer watched."""
        timers, self.timers = self.timers, None
        if timers is not None:
            timers.close()

    @property
    def replayed(self) -> Collection[str]:
        """The keys of the records that were replayed while the run had one branch."""
        return self._replayed or ()

    def note_replayed(self, key: str) -> None:
        """Notes that the record under ``key`` is replayed, while the run has one branch."""
        if self._replayed is None:
            self._replayed = set()
        self._replayed.add(key)

    # -- what drives it ----------------------------------------------------------------------------------------------

    @property
    def coroutines(self) -> Collection[BranchCoroutine]:
        """Its coroutines: the body's, and those of its other branches."""
        main = () if self._main is None else (self._main,)
        return (*main, *self._others) if self._others else main

    def begin_coroutine(self, coroutine: BranchCoroutine) -> None:
        """One more coroutine of its code begins. Most runs have one."""
        if self._main is None:
            self._main = coroutine
        elif self._others is None:
            self._others = {coroutine}
        else:
            self._others.add(coroutine)

    def end_coroutine(self, coroutine: BranchCoroutine) -> None:
        """One of its coroutines has ended."""
        if coroutine is self._main:
            self._main = None
        elif self._others is not None:
            self._others.discard(coroutine)

    # -- how it came out ---------------------------------------------------------------------------------------------

    def settle(self, outcome: Ending | None) -> None:
        """It is over: with a durable end, or without one, and then it goes on elsewhere. Whoever waits is notified."""
        if self.is_over:
            return
        self.is_over, self.outcome = True, outcome
        waiters, self._waiters = self._waiters, ()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(outcome)
        self.replay_is_over()
        if self.on_slot_freed is not None:
            self.on_slot_freed(self.workflow_id)
        # What refers to it in a circle would wait for the garbage collector.
        if outcome is not None:
            self._streams = None
        if self.task is None or self.task.done():
            self.task = self.sequencer = None
            del self.root

    @property
    def is_awaited(self) -> bool:
        """Whether somebody in this process waits until it is over."""
        return bool(self._waiters)

    async def settled(self) -> Ending | None:
        """Waits until it is over: its durable end, or ``None`` if it goes on elsewhere."""
        waiter = self.when_settled(asyncio.get_running_loop().create_future())
        try:
            return await waiter
        finally:
            self._waiters = tuple(other for other in self._waiters if other is not waiter)

    def when_settled(self, waiter: asyncio.Future[Ending | None]) -> asyncio.Future[Ending | None]:
        """Gives ``waiter`` back, whose result is the run's outcome once it is over."""
        if self.is_over:
            waiter.set_result(self.outcome)
        else:
            self._waiters = (*self._waiters, waiter)
        return waiter

    def recorded(self, key: str) -> Recorded | None:
        """The record under ``key``, if there is one."""
        return self.history.records.get(key)
