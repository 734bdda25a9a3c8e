"""A run that replays: its branches, their records, and how the run is stopped when code and records disagree."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from weakref import WeakSet

from dbosflow._records.kinds import is_delivered
from dbosflow._runtime.process.exits import is_signal
from dbosflow._runtime.replay.contradiction import contradiction
from dbosflow._runtime.replay.plain_timers import PlainTimers
from dbosflow._runtime.replay.recorded_order import RecordedOrder
from dbosflow._runtime.replay.sequencer import Sequencer
from dbosflow._runtime.runs.compensations import UNDONE
from dbosflow._runtime.runs.end_request import message_of
from dbosflow._runtime.runs.state import RunState, RunStopped
from dbosflow._runtime.runs.state_ports import StateEnvironment
from dbosflow._store.cancel_request import CANCELLED
from dbosflow.errors import CodecError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from concurrent.futures import Future

    from dbosflow._runtime.replay.branch import Branch, RunningCode
    from dbosflow._runtime.replay.branch_coroutine import BranchCoroutine
    from dbosflow._runtime.runs.checksums import Repeated
    from dbosflow._runtime.runs.state_ports import RunParts
    from dbosflow._store.cancel_request import CancelRequest
    from dbosflow._store.step import History, Recorded
    from dbosflow.errors import NonDeterminismError, WorkflowError

E = TypeVar("E", bound="WorkflowError")

_FIRES_WITHIN = 1.0
"""Seconds for which a plain timer that is due counts as pending."""

logger = logging.getLogger("dbosflow.run")


class ReplayEnvironment(StateEnvironment, Protocol):
    """What a run that replays needs from what all runs share."""

    @property
    def running_code(self) -> RunningCode:
        """Which code the loop runs now."""

    @property
    def on_skipped(self) -> Callable[[Any, str, str, int, str], None]:
        """Called for each value that a replay does not write again."""

    @property
    def on_changed(self) -> Callable[[Any, Repeated], None]:
        """Called when what a replay has written again for a producer differs from the record; may raise."""


class ReplayingRun(RunState):
    """A run with its branches and their records."""

    __slots__ = (
        *("_main", "_others", "_replayed", "_to_replay", "calls", "recorded_order", "resumption_event", "resumptions"),
        *("_plain_timers", "replay_took", "root", "sequencer", "timers"),
    )

    environment: ReplayEnvironment
    root: Branch

    def __init__(self, environment: ReplayEnvironment, parts: RunParts, history: History) -> None:
        super().__init__(environment, parts, history)
        history = self.history  # what of it the body replays
        self.recorded_order = RecordedOrder(history) if history.records or history.loops else None
        """The branches' records that have not been asked for yet; ``None`` in a run without a past."""
        self.timers: PlainTimers | None = None
        """The plain timers that the run's code has set, while the run replays."""
        self._plain_timers: WeakSet[asyncio.TimerHandle] | None = None
        """All of them that may still be pending."""
        self.replay_took: float | None = None
        """Seconds from before the read of the history until the first operation that was not on record."""
        self.resumption_event: asyncio.Event | None = None
        """Set when code of the run is resumed, while the sequencer watches whether the replay still gets on."""
        self.resumptions = 0
        """Counts the resumptions of the run's coroutines."""
        self.sequencer: Sequencer | None = None
        """Delivers outcomes by turns. Made with the first branch, since a run with one branch needs no sequencer."""
        self.calls: tuple[Future[Any], ...] = ()
        """Bodies on the loop that the thread of this run waits for."""
        self._main: BranchCoroutine | None = None
        self._others: set[BranchCoroutine] | None = None
        self._replayed: set[str] | None = None
        records = history.records
        self._to_replay = sum(is_delivered(record.kind) for record in records.values()) if records else 0

    async def room(self) -> bool:
        """Waits on the loop for room in the run's buffer; returns whether there is room in time."""
        raise NotImplementedError

    def ensure_sequencer(self) -> Sequencer:
        """Returns the run's sequencer, made now if there is none. From then on outcomes are delivered by turns."""
        if self.sequencer is None:
            self.sequencer = Sequencer(self)
        return self.sequencer

    def note_resumption(self) -> None:
        """Notes that the run's code is resumed."""
        self.resumptions += 1
        if self.resumption_event is not None:
            self.resumption_event.set()

    # -- coroutines --------------------------------------------------------------------------------------------------

    @property
    def coroutines(self) -> Collection[BranchCoroutine]:
        """The run's coroutines: the body's, and those of its other branches."""
        main = () if self._main is None else (self._main,)
        return (*main, *self._others) if self._others else main

    def begin_coroutine(self, coroutine: BranchCoroutine) -> None:
        """Adds a coroutine of the run's code, which begins. Most runs have one."""
        if self._main is None:
            self._main = coroutine
        elif self._others is None:
            self._others = {coroutine}
        else:
            self._others.add(coroutine)

    def end_coroutine(self, coroutine: BranchCoroutine) -> None:
        """Removes a coroutine of the run's code, which has ended."""
        if coroutine is self._main:
            self._main = None
        elif self._others is not None:
            self._others.discard(coroutine)

    def tasks(self) -> set[asyncio.Task[Any]]:
        """The tasks of the run's branches."""
        return {
            coroutine.task for coroutine in self.coroutines if coroutine.task is not None and not coroutine.task.done()
        }

    # -- records ------------------------------------------------------------------------------------------------------

    @property
    def is_replaying(self) -> bool:
        """Whether records of an earlier run are still to be delivered to this one."""
        if self.sequencer is not None:
            return self.sequencer.is_replaying
        return len(self.replayed) < self._to_replay

    @property
    def holds_back(self) -> bool:
        """Whether what is new stays in the buffer: the records may still contradict, and then it is dropped.

        A branch at the end of its own records writes to its streams while others still replay theirs. And nothing goes
        out before the workflow's start is durable.
        """
        if self.opening is not None:
            return True
        sequencer = self.sequencer
        if sequencer is None or not sequencer.is_replaying:
            return False
        return not self.is_cut_short

    def next_behind(self, path: str) -> str | None:
        """The next record behind the branch's current operation: of the branch, or, if it is the only one, of any.

        With regions one coroutine works for several branches: its records in another one of them count, too.
        """
        ahead = self.next_of(path)
        if ahead is None and self.recorded_order is not None and len(self.coroutines) == 1:
            return self.recorded_order.first_left
        return ahead

    def next_of(self, path: str) -> str | None:
        """The next operation on record for the branch."""
        return None if self.recorded_order is None else self.recorded_order.next_of(path)

    def check_all_asked(self, does: str) -> None:
        """Raises the error that parks the workflow, if the body ``does`` this before it has asked for every record."""
        order = self.recorded_order
        if order is not None and order.left:
            there = order.first_left or ""
            raise self.disagree(does, f"{there!r} behind that", there)

    def check_may_follow(self, key: str) -> None:
        """Raises the error that parks the workflow, if the body begins something where it was over on record.

        A run with other branches is left alone: what was under way in one of them then is on no record.
        """
        if self.was_undone and self.request is None and self.sequencer is None and not self.compensating:
            assert self.compensations is not None
            raise self.disagree(f"asks for {key!r}, which is not on record", UNDONE, self.compensations.begun)

    def replay_begins(self) -> None:
        """The body is about to begin, on the loop. A replay that is stalled for long gets a sequencer."""
        order = self.recorded_order
        if order is not None:
            self.timers = PlainTimers(lambda: self.ensure_sequencer() if self.may_branch and order.left else None)

    def replay_is_over(self) -> None:
        """Everything on record is delivered: new operations begin, and plain timers are no longer watched."""
        if self.replay_took is None:
            self.replay_took = self.age + self.history.read_for if self.recorded_order is not None else 0.0
        timers, self.timers = self.timers, None
        if timers is not None:
            timers.close()

    def note_timer(self, handle: asyncio.TimerHandle) -> None:
        """Notes a plain timer that code of the run has set."""
        if self._plain_timers is None:
            self._plain_timers = WeakSet()
        self._plain_timers.add(handle)

    @property
    def has_plain_timer(self) -> bool:
        """Whether a plain timer of the run's code is pending."""
        if not self._plain_timers:
            return False
        now = asyncio.get_running_loop().time()  # one that has just fired may be on its way
        return any(not timer.cancelled() and timer.when() > now - _FIRES_WITHIN for timer in self._plain_timers)

    @property
    def replayed(self) -> Collection[str]:
        """The keys of the records that were replayed while the run had one branch."""
        return self._replayed or ()

    def note_replayed(self, key: str) -> None:
        """Notes that the record under ``key`` is replayed, while the run has one branch."""
        if self._replayed is None:
            self._replayed = set()
        self._replayed.add(key)

    # -- stops --------------------------------------------------------------------------------------------------------

    def stop(self, why: str, *, if_idle: bool = False) -> bool:
        """Ends this pass: operations under way, and all that would begin, raise ``RunStopped``.

        With ``if_idle`` only if no step body is under way, and nothing is to be written. Returns whether it did.
        """
        with self.buffer.lock:
            if self.stopping is not None or (if_idle and (self.bodies or self.buffer.size)):
                return False
            self.stopping = stopping = RunStopped(why)
        self.interrupted.set()
        self.buffer.drop(stopping)
        if self.sequencer is not None:
            self.sequencer.stop(stopping)
        for call in self.calls:
            call.cancel()
        for task in self.tasks():
            task.cancel()
        return True

    def disagree(self, asked: str, there: str, record: Recorded | str | None = None) -> NonDeterminismError:
        """Ends this pass because code and records disagree: nothing more is written than that the workflow is blocked.

        That holds whatever becomes of the error, which the caller raises. ``contradiction`` makes its text; a record
        may be given by its key, or by that of its operation.
        """
        if isinstance(record, str):
            order = self.recorded_order
            record = self.recorded(record) or (None if order is None else order.record_of(record))
        return self.park(contradiction(self.workflow_id, asked, there, record, read_before=self.age))

    def park(self, why: E) -> E:
        """Ends this pass and parks the workflow as blocked, with the error ``why``. See ``disagree``."""
        if self.stopping is None:
            self.contradict(why)
            self.stop("it is parked as blocked")
        return why

    def give_back(self, why: CodecError) -> BaseException:
        """Ends this pass, which needs a payload that cannot be decoded here: another worker may have the key.

        Nothing of it is on record, and the body gets no error that it could handle. Returns what to raise instead.
        """
        if self.stopping is None:
            self.unreadable, self.was_requested = why, self.request is not None
            self.stop("it needs a payload that cannot be decoded here")
        assert self.stopping is not None
        return self.stopping

    @contextmanager
    def giving_back(self) -> Iterator[None]:
        """Ends this pass if what the block reads for it cannot be decoded here."""
        try:
            yield
        except CodecError as error:
            raise self.give_back(error) from error

    @contextmanager
    def cancelling(self, call: Future[Any]) -> Iterator[None]:
        """Cancels ``call``, which the block waits for, when the run stops; then raises ``RunStopped``."""
        self.calls = (*self.calls, call)
        try:
            if self.stopping is not None:
                call.cancel()
            yield
        except CancelledError:
            self.check_goes_on()
            raise
        finally:
            self.calls = tuple(other for other in self.calls if other is not call)

    def cancel(self, request: CancelRequest = CANCELLED) -> bool:
        """Asks the body to end: async code gets ``CancelledError``, sync code an error at its next durable call.

        Returns whether there was a body to ask; one that ends anyhow is not asked: the statement of its end sees the
        request.
        """
        self.note_request(request)
        if self.cancelled or self.ending or self.compensating or self.stopping is not None:
            return False
        with self.buffer.lock:
            self.begin_cancelled()
            callbacks, self._cancel_callbacks = self._cancel_callbacks, ()
        self.interrupted.set()
        message = message_of(self.workflow_id, request)
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
            task.cancel(message)
        return True

    def interrupt(self) -> None:
        """Wakes the body's thread from what it waits for, which then finds that it is to end."""
        self.interrupted.set()
        for call in self.calls:
            call.cancel()

    def begin_compensating(self) -> None:
        """The body and all its tasks are over: from here on the run replays the records of its compensations."""
        super().begin_compensating()
        assert self.compensations is not None
        self.replay_is_over()
        self.history = past = self.compensations.history
        self.sequencer, self._replayed = None, None
        self.recorded_order = RecordedOrder(past) if past.records else None
        self._to_replay = sum(is_delivered(record.kind) for record in past.records.values())
