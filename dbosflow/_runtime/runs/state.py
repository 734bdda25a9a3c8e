"""The state of a run: where it is between its beginning and its end, and what it may still do there.

A run is in one of these states; *cancelled* and *draining* can come on top of *active*. Each question of other rooms
(``may_branch``, ``check_may_begin`` ...) is one column, so no other room combines flags by itself.

```text
state       caused by                           begins      records     writes to   waits until
                                                operations              streams     durable
active      the runner                          yes         yes         yes         yes
draining    the engine closes: ``drain``        held back   yes         yes         yes
cancelled   the canceller: ``cancel``           no          no          no          yes
compen-     ``begin_compensating``: its body    its own     yes         of steps    yes
sating      is over, and its steps are undone
ending      ``begin_ending``: its body is   no          yes         no          yes
            over
stopped     ``stop``: the lease is lost, a      no          no          no          no
            reload, a contradiction, a close
over        ``settle``: its end is durable, or  no          no          no          no
            it goes on elsewhere

active ──► ending ──► over          its body has returned or raised
active ──► cancelled ──► ending     its body is notified, and no operation of the body begins any more
ending ──► compensating ──► ending  where the body has registered compensations, and has not succeeded
any    ──► stopped ──► over         it writes nothing any more; or only that it is blocked: ``contradiction``
```

A run that is cancelled while it ends keeps its state: the statement that would end the run sees the request (see
``canceller``). A run that is *stopped* first stays stopped, for that first reason.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from dbosflow._runtime.runs.buffer import Buffer
from dbosflow._runtime.runs.compensations import Compensations, of_body
from dbosflow._runtime.runs.entries import Barrier
from dbosflow._runtime.runs.requested import Requested
from dbosflow.errors import LeaseLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from dbosflow._runtime.runs.durable_waits import DurableWait
    from dbosflow._runtime.runs.entries import Record, Waiter
    from dbosflow._runtime.runs.opening import Opening
    from dbosflow._runtime.runs.producers import Attempt
    from dbosflow._runtime.runs.state_ports import RunParts, StateEnvironment
    from dbosflow._store.cancel_request import CancelRequest
    from dbosflow._store.step import History, Recorded
    from dbosflow.config import Settings
    from dbosflow.errors import CodecError, WorkflowError

_NOBODY_WAITS = threading.Event()
"""The ``interrupted`` of runs whose bodies are on the loop: they have no thread that waits for anything."""


class RunStopped(BaseException):
    """Raised in a body whose run is over for this process: its lease is lost, or the engine closes.

    A ``BaseException``, so that neither ``except Exception`` nor a ``finally`` with a step in it does durable work for
    a run that is owned elsewhere.
    """


class RunState(Requested):
    """One owner's pass over one workflow: its owner, its state, and its buffer for the journal."""

    __slots__ = (
        *("_began", "_cancel_callbacks", "_on_drained", "arguments_text", "bodies", "buffer", "contradiction"),
        *("definition", "environment", "epoch", "has_deadline", "history", "inputs", "interrupted", "is_recovered"),
        *("is_draining", "is_over", "limits", "opening", "queue", "seq", "stopping", "superseded", "turn"),
        *("unreadable", "waits", "was_requested", "workflow_id"),
    )

    environment: StateEnvironment

    def __init__(self, environment: StateEnvironment, parts: RunParts, history: History) -> None:
        self.environment = environment
        self.workflow_id, self.epoch, self.queue = parts.workflow_id, parts.epoch, parts.queue
        self.definition = parts.definition
        self.arguments_text = parts.arguments_text if history.arguments is None else history.arguments
        self.inputs: Collection[str] = tuple(parts.inputs)
        """The keys of the streams that outside writers write, and this run never does."""
        definition = parts.definition
        self.compensations = Compensations(history) if definition.compensates else None
        self.history = of_body(history, is_async=definition.is_async) if definition.compensates else history
        self.seq, self.turn = history.next_place
        self.buffer = Buffer(environment.settings.buffer_bytes)
        """What the run has for the journal."""
        self.stopping: RunStopped | None = None
        """Why the run is stopped, as an exception to raise in its code."""
        self.superseded = False
        """Whether a new pass, read from the tables, takes the run's place: then not even its end may be written."""
        self.contradiction: WorkflowError | None = None
        """Why the workflow is to be parked, whatever its body makes of the error."""
        self.unreadable: CodecError | None = None
        """Why the workflow is given back: a payload of it cannot be decoded here."""
        self.was_requested = False
        """Whether the workflow's end was asked for when the run found that it cannot read what it needs."""
        self.cancelled = False
        self.request: CancelRequest | None = None
        self.is_recovered = False
        """Whether its last worker had died when this run of it began: see ``child_starts``."""
        self.has_deadline = False
        """Whether the workflow has a deadline, which its children get, too."""
        self.opening: Opening | None = None
        """Its opening, as long as the workflow has no row."""
        self.ending = False
        self.is_over = False
        """Whether the run has come to its end, or was stopped for good."""
        self.bodies = 0
        """The step bodies under way; not operations that wait for a time, for another workflow, or for a stream."""
        self.waits: dict[DurableWait, None] | None = None
        """The operations that wait so now; ``None`` if none ever has."""
        self.limits: dict[object, float] | None = None
        """When durable limits that are on record are over, by ``time.monotonic``: timeouts."""
        self.is_draining = False
        """Whether operations that would begin are held back, since the engine closes."""
        self._on_drained: Callable[[], None] | None = None
        """Called in a draining run once no step body is under way."""
        self.interrupted = _NOBODY_WAITS if self.definition.is_async else threading.Event()
        """Wakes the run's thread from what it waits for: the run was stopped, or is to be cancelled."""
        self._cancel_callbacks: tuple[Callable[[], object], ...] = ()
        self._began = time.monotonic()

    @property
    def settings(self) -> Settings:
        """The engine's settings."""
        return self.environment.settings

    @property
    def age(self) -> float:
        """Seconds since the history of the run was read."""
        return time.monotonic() - self._began

    def recorded(self, key: str) -> Recorded | None:
        """The record under ``key``, if there is one."""
        return self.history.records.get(key)

    # -- questions: what the run may still do ------------------------------------------------------------------------

    @property
    def may_branch(self) -> bool:
        """Whether new tasks of the run's branches become branches of the run."""
        return not self.ending and self.stopping is None and not self.compensating

    @property
    def may_write(self) -> bool:
        """Whether the run's code may write to streams."""
        return self.may_branch and not self.cancelled

    def is_finishing(self) -> bool:
        """Whether the run ends in this process, so that what its code still does leaves no record for a replay."""
        return self.ending or self.cancelled or self.compensating

    @property
    def is_cut_short(self) -> bool:
        """Whether the run's code does not go on as it would: the run is cancelled, ending or stopped."""
        return self.cancelled or self.ending or self.stopping is not None

    @property
    def gets_no_further(self) -> bool:
        """Whether the run's code begins no operation any more, or only elsewhere."""
        return self.is_draining or self.cancelled or self.stopping is not None

    def check_may_begin(self) -> None:
        """Raises ``RunStopped``, or the cancellation, if no operation may begin any more."""
        if self.stopping is not None:
            raise self.stopping
        if (self.cancelled or self.ending) and not self.compensating:
            if self.cancelled:
                raise self._cancellation()
            raise RunStopped(f"workflow {self.workflow_id!r} is no longer run here")

    def check_goes_on(self) -> None:
        """Raises as ``check_may_begin``; on the body's thread, also what ends the body by a request."""
        if self.awaits_delivery and not self.definition.is_async:
            self.begin_cancelled()
        self.check_may_begin()

    def check_may_write(self, attempt: Attempt | None) -> None:
        """Raises if nothing can be written any more: by the run at all, or by an attempt that is over."""
        if self.cancelled and not (self.compensating and attempt is not None):
            raise self._cancellation()
        if self.stopping is not None or self.ending or (self.compensating and attempt is None):
            raise self.stopping or self._has_ended()
        if attempt is not None and attempt.closed:
            msg = f"attempt {attempt.name} of step {attempt.key!r} is over; it can write nothing any more"
            raise LeaseLostError(msg)

    def _check_may_record(self) -> None:
        """Raises if no record may follow: one behind the run's end would shut the gate for the whole batch."""
        if self.stopping is not None:
            raise self.stopping
        if self.cancelled and not self.compensating:
            raise self._cancellation()
        if self.is_over:
            raise self._has_ended()

    def _has_ended(self) -> RunStopped:
        return RunStopped(f"workflow {self.workflow_id!r} has ended")

    def submit(self) -> None:
        """Notifies the journal that the run has pending entries."""
        self.environment.submit(self)

    # -- what the run's code hands over, on its own thread -----------------------------------------------------------

    def append(self, record: Record) -> None:
        """Buffers a record; the record's waiter is notified when the record is durable and its turn has come."""
        with self.buffer.lock:
            self._check_may_record()
            self.buffer.push(record, record.waiter)
        self.environment.submit(self)

    def add_barrier(self, waiter: Waiter) -> None:
        """Notifies ``waiter`` when everything that is buffered now is durable."""
        with self.buffer.lock:
            if self.stopping is not None:
                raise self.stopping
            if self.is_over:
                raise self._has_ended()
            if not self.buffer.size and self.opening is None:
                waiter.set_result(None)
                return
            self.buffer.push(Barrier(waiter), waiter)
        self.environment.submit(self)

    def when_cancelled(self, callback: Callable[[], object]) -> None:
        """Calls ``callback`` (from the loop's thread) when the workflow is cancelled, or now if it already was."""
        with self.buffer.lock:
            if not self.cancelled:
                self._cancel_callbacks = (*self._cancel_callbacks, callback)
                return
        callback()

    def when_room(self, callback: Callable[[], None]) -> None:
        """Calls ``callback`` (from the loop's thread) once there is room or the run has stopped."""
        with self.buffer.lock:
            waits = not self.buffer.has_room and self.stopping is None
            if waits:
                self.buffer.expect_room(callback)
        if not waits:
            callback()
        else:
            self.environment.on_back_pressure(self.workflow_id)

    # -- durable waits -------------------------------------------------------------------------------------------------

    def begin_wait(self, wait: DurableWait) -> None:
        """Notes that an operation waits durably from here on."""
        if self.waits is None:
            self.waits = {wait: None}
            self.environment.on_waiting(self)
        else:
            self.waits[wait] = None

    def end_wait(self, wait: DurableWait) -> None:
        """Notes that an operation waits durably no more."""
        assert self.waits is not None
        del self.waits[wait]

    def limit(self, owner: object, due: float | None) -> None:
        """Notes when a durable limit is over, by ``time.monotonic``; ``None``: it is no more."""
        if due is not None:
            self.limits = {**(self.limits or {}), owner: due}
        elif self.limits is not None:
            self.limits.pop(owner, None)

    # -- transitions; ``cancel`` and ``stop`` are in ``replaying_run``, with the code that they reach ------------------

    def begin_ending(self) -> None:
        """Marks the body as over: the tasks that it left running are to end, and begin nothing any more."""
        self.ending = True

    def begin_compensating(self) -> None:
        """Marks the run as compensating; in a draining run nothing of it begins, so that it is drained."""
        with self.buffer.lock:
            super().begin_compensating()
        self.check_drained()

    def supersede(self) -> None:
        """Marks the run as replaced by a new pass, read from the tables: then not even its end may be written."""
        self.superseded = True

    def contradict(self, why: WorkflowError) -> None:
        """Sets, or replaces, the reason for which the workflow is to be parked as blocked."""
        self.contradiction = why

    # -- draining ----------------------------------------------------------------------------------------------------

    def drain(self, on_drained: Callable[[], None]) -> None:
        """Holds back new operations; calls ``on_drained`` once nothing that was done would be lost.

        That is when no step body is under way, and all outcomes that the program has are durable. A run at its end just
        ends. Operations are held back, not refused: what a body made of a refusal while other branches go on would be
        durable.
        """
        with self.buffer.lock:
            self.is_draining, self._on_drained = True, on_drained
        if self.buffer.ahead:
            self.submit()
        self.check_drained()

    def check_drained(self) -> None:
        """Reports a draining run of which nothing is under way any more."""
        with self.buffer.lock:
            idle = self.bodies == 0 and not self.buffer.ahead and not self.ending
        if idle and self._on_drained is not None:
            self._on_drained()

    def body_begins(self) -> None:
        """Counts a step body that is about to run; raises ``RunStopped`` if the run was stopped just now."""
        with self.buffer.lock:
            if self.stopping is not None:
                raise self.stopping
            self.bodies += 1

    def body_ended(self) -> None:
        """Counts off a step body that has ended, and whose outcome is durable, never will be, or counts as ahead."""
        with self.buffer.lock:
            self.bodies -= 1
        if self.is_draining:
            self.check_drained()
