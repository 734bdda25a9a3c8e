"""The state of a run: where it is between its beginning and its end, and what it may still do there.

A run is in one of these states; *cancelled* and *draining* can come on top of *active*. Each question that other rooms
ask (``may_branch``, ``check_may_begin`` ...) is one column, so that no other room combines flags by itself.

```text
state       who causes it                       begins      records     writes to   waits until
                                                operations              streams     durable
active      the runner                          yes         yes         yes         yes
draining    the engine closes: ``drain``        held back   yes         yes         yes
cancelled   the canceller: ``cancel``           no          no          no          yes
ending      ``begin_ending``: its body is   no          yes         no          yes
            over
stopped     ``stop``: the lease is lost, a      no          no          no          no
            reload, a contradiction, a close
over        ``settle``: its end is durable, or  no          no          no          no
            it goes on elsewhere

active ──► ending ──► over          its body has returned or raised
active ──► cancelled ──► ending     its body hears of it, and nothing that it asks for begins
any    ──► stopped ──► over         it writes nothing any more; or only that it is blocked: ``contradiction``
```

A run that is cancelled while it ends stays what it is: the statement that would end it sees the request (see
``canceller``). What is *stopped* first stays stopped for that reason.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from dbosflow._runtime.runs.buffer import Buffer
from dbosflow._runtime.runs.entries import Barrier
from dbosflow.errors import LeaseLostError, WorkflowCancelledError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from dbosflow._runtime.runs.entries import Record, Waiter
    from dbosflow._runtime.runs.producers import Attempt
    from dbosflow._store.step import History, Recorded
    from dbosflow.config import Settings
    from dbosflow.definitions import WorkflowDef
    from dbosflow.errors import WorkflowError

_NOBODY_WAITS = threading.Event()
"""The ``interrupted`` of runs whose bodies are on the loop: no thread of theirs waits for anything."""


class RunStopped(BaseException):
    """Raised in a body whose run is over for this process: its lease is lost, or the engine closes.

    A ``BaseException``, so that neither ``except Exception`` nor a ``finally`` with a step in it does durable work for
    a run that is owned elsewhere.
    """


class StateEnvironment(Protocol):
    """What the state of a run needs of what all runs share."""

    @property
    def settings(self) -> Settings:
        """The engine's settings."""

    @property
    def submit(self) -> Callable[[Any], None]:
        """Tells the journal that a run has pending entries."""

    @property
    def on_back_pressure(self) -> Callable[[str], None]:
        """Called with the id of a workflow whose writer waits for room."""


class RunState:
    """One owner's pass over one workflow: whose it is, where it stands, and what it has for the journal."""

    __slots__ = (
        *("_began", "_cancel_callbacks", "arguments_text", "bodies", "buffer", "cancelled", "contradiction"),
        *("definition", "ending", "environment", "epoch", "history", "inputs", "interrupted", "is_over", "on_drained"),
        *("queue", "seq", "stopping", "superseded", "turn", "waits", "workflow_id"),
    )

    environment: StateEnvironment

    def __init__(
        self,
        environment: StateEnvironment,
        *,
        workflow_id: str,
        definition: WorkflowDef,
        arguments_text: str,
        epoch: int,
        queue: str,
        history: History,
        inputs: Iterable[str],
    ) -> None:
        self.environment = environment
        self.workflow_id, self.epoch, self.queue = workflow_id, epoch, queue
        self.definition, self.arguments_text = definition, arguments_text
        self.inputs: Collection[str] = tuple(inputs)
        """The stream keys that outsiders write, and this run never does."""
        self.history = history
        self.seq, self.turn = history.next_place
        self.buffer = Buffer(environment.settings.buffer_bytes)
        """What it has for the journal."""
        self.stopping: RunStopped | None = None
        """Why it is stopped, to be raised in its code."""
        self.superseded = False
        """Whether a new pass takes its place, from what the tables hold: then not even its end may be written."""
        self.contradiction: WorkflowError | None = None
        """Why the workflow is to be parked, whatever its body makes of the error."""
        self.cancelled = False
        """Whether its workflow is to be cancelled."""
        self.ending = False
        """Whether its body is over, and what it left running is ended."""
        self.is_over = False
        """Whether it has come to its end, or stopped for good."""
        self.bodies = self.waits = 0
        """Step bodies under way; operations that wait for a time, for another workflow, or for a stream."""
        # Set while the engine closes: called once no step body is under way.
        self.on_drained: Callable[[], None] | None = None
        self.interrupted = _NOBODY_WAITS if definition.is_async else threading.Event()
        """Wakes what a thread of this run waits for: it has stopped, or is to be cancelled."""
        self._cancel_callbacks: tuple[Callable[[], object], ...] = ()
        self._began = time.monotonic()

    @property
    def settings(self) -> Settings:
        """The engine's settings."""
        return self.environment.settings

    @property
    def age(self) -> float:
        """Seconds since its history was read."""
        return time.monotonic() - self._began

    def recorded(self, key: str) -> Recorded | None:
        """The record under ``key``, if there is one."""
        return self.history.records.get(key)

    # -- what it may still do ----------------------------------------------------------------------------------------

    @property
    def may_branch(self) -> bool:
        """Whether new tasks of its branches are branches of it."""
        return not self.ending and self.stopping is None

    @property
    def may_write(self) -> bool:
        """Whether its code may write to streams."""
        return self.may_branch and not self.cancelled

    @property
    def is_draining(self) -> bool:
        """Whether what would begin is held back."""
        return self.on_drained is not None

    def is_finishing(self) -> bool:
        """Whether it ends in this process, so that what its code still does leaves no record for a replay."""
        return self.ending or self.cancelled

    @property
    def is_cut_short(self) -> bool:
        """Whether its code does not go on as it would by itself."""
        return self.cancelled or self.ending or self.stopping is not None

    @property
    def gets_no_further(self) -> bool:
        """Whether its code begins no operation any more, or only elsewhere."""
        return self.is_draining or self.cancelled or self.stopping is not None

    def check_may_begin(self) -> None:
        """Raises ``RunStopped``, or the cancellation, when no operation may begin any more."""
        if self.stopping is not None:
            raise self.stopping
        if self.cancelled:
            raise self._cancellation()
        if self.ending:
            raise RunStopped(f"workflow {self.workflow_id!r} is no longer run here")

    def check_may_write(self, attempt: Attempt | None) -> None:
        """Raises when nothing can be written any more: by anybody, or by an attempt that is over."""
        if self.cancelled:
            raise self._cancellation()
        if self.stopping is not None or self.ending:
            raise self.stopping or RunStopped(f"workflow {self.workflow_id!r} has ended")
        if attempt is not None and attempt.closed:
            msg = f"attempt {attempt.name} of step {attempt.key!r} is over; it can write nothing any more"
            raise LeaseLostError(msg)

    def _check_may_record(self) -> None:
        if self.stopping is not None:
            raise self.stopping
        if self.cancelled:
            raise self._cancellation()
        self._check_not_over()

    def _check_not_over(self) -> None:
        """What is written behind its end would shut the gate for the whole batch."""
        if self.is_over:
            raise RunStopped(f"workflow {self.workflow_id!r} has ended")

    def _cancellation(self) -> BaseException:
        message = f"workflow {self.workflow_id!r} is cancelled"
        if self.definition.is_async:
            return asyncio.CancelledError(message)
        return WorkflowCancelledError(self.workflow_id, message)

    def submit(self) -> None:
        """Tells the journal that it has pending entries."""
        self.environment.submit(self)

    # -- what its code hands over, on its own thread -----------------------------------------------------------------

    def append(self, record: Record) -> None:
        """Buffers a record; its waiter is notified when it is durable and its turn has come."""
        with self.buffer.lock:
            self._check_may_record()
            if record.waiter is not None:
                self.buffer.expect(record.waiter)
            self.buffer.push(record)
        self.environment.submit(self)

    def add_barrier(self, waiter: Waiter) -> None:
        """Notifies ``waiter`` when all that is buffered now is durable."""
        with self.buffer.lock:
            if self.stopping is not None:
                raise self.stopping
            self._check_not_over()
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

    # -- its transitions; ``cancel`` and ``stop`` are above, where its code is (see ``replaying_run``) -----------------

    def begin_cancelled(self) -> None:
        """It is to be cancelled, and there is no code to notify: the body has not begun, or is over."""
        self.cancelled = True

    def begin_ending(self) -> None:
        """Its body is over: what it has left running is to end, and begins nothing any more."""
        self.ending = True

    def supersede(self) -> None:
        """A new pass takes its place, from what the tables hold: then not even its end may be written."""
        self.superseded = True

    def contradict(self, why: WorkflowError) -> None:
        """Its workflow is to be parked as blocked for this reason, or for this one instead of that before."""
        self.contradiction = why

    # -- draining ----------------------------------------------------------------------------------------------------

    def drain(self, on_drained: Callable[[], None]) -> None:
        """Holds what would begin; calls ``on_drained`` once no step body is under way. A run at its end just ends.

        Held, not refused: what a body made of a refusal while other branches go on would be durable.
        """
        with self.buffer.lock:
            self.on_drained = on_drained
            idle = self.bodies == 0 and not self.ending
        if idle:
            on_drained()

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
