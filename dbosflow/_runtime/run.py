"""A run: one owner's pass over one workflow, from its history to its end."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbosflow import serde
from dbosflow._runtime.branch import Branch, RunStopped, Strand, ThreadOwner
from dbosflow._runtime.clock import CLOCK
from dbosflow._runtime.conductor import HANDED_ON, Conductor
from dbosflow._runtime.entries import Close, Entry, Mark, Record, TakeBack, Values
from dbosflow._runtime.limits import Limits
from dbosflow._runtime.scope import current_scope
from dbosflow._runtime.undecided import Undecided
from dbosflow._store.step import NO_HISTORY
from dbosflow.errors import LeaseLostError, StreamClosedError, StreamInputError, WorkflowCancelledError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from concurrent.futures import Future

    from dbosflow._runtime.clock import Clock
    from dbosflow._runtime.entries import Ending, Waiter
    from dbosflow._runtime.family import Family
    from dbosflow._runtime.hands import Hands
    from dbosflow._runtime.lane import Lane
    from dbosflow._runtime.scope import Attempt
    from dbosflow._runtime.undecided import Producer
    from dbosflow._runtime.watch import Watch
    from dbosflow._store.step import History, Recorded
    from dbosflow.config import Settings
    from dbosflow.definitions import WorkflowDef
    from dbosflow.errors import NonDeterminismError, StreamError
    from dbosflow.types import FrameKind


logger = logging.getLogger("dbosflow.run")


_NOBODY_WAITS = threading.Event()
"""The ``interrupted`` of runs whose bodies are on the loop: no thread of theirs waits for anything."""


class Stream:
    """What the owner knows of one stream: its acknowledged tail, and whether anything may follow."""

    __slots__ = ("bytes", "closed", "ended", "open_values", "tail", "values")

    def __init__(self, tail: int = 0, *, closed: bool = False, values: int = 0, size: int = 0) -> None:
        self.tail = tail
        self.values = values
        """How many values were ever written to it, buffered ones and those that were taken back included."""
        self.bytes = size
        """Their size, each with the comma or bracket behind it."""
        self.closed = closed
        """Whether writes are refused."""
        self.ended = closed
        """Whether its terminal frame has its place."""
        self.open_values: Values | None = None


@dataclass(frozen=True, slots=True)
class Workplace:
    """What all runs of a lane work with."""

    lane: Lane
    settings: Settings
    submit: Callable[[Run], None]
    """Says to the journal that a run has pending entries."""
    loop_hands: Hands
    thread_hands: Hands
    family: Family
    watch: Watch
    when_room_is_short: Callable[[str], None] = lambda _: None
    """Hears of a workflow whose writer waits for room."""
    when_skipped: Callable[[Run, str, str, int, str], None] = lambda *_: None
    """Hears of each value that a replay does not write again: stream key, producer, its count before, the value."""
    clock: Clock = CLOCK


class Run:
    """One owner's pass over one workflow.

    Its entries go to the journal in order; a batch takes all that are pending, or a prefix of them. The buffer is
    filled by the loop's thread or by the thread of a sync body, and emptied by the loop's: hence the lock.
    """

    __slots__ = (
        *("_began", "_buffered", "_cancel_listeners", "_entries", "_limits", "_lock", "_room", "_to_recall"),
        *("_written", "beat", "blocks", "bodies", "calls", "cancelled", "conductor", "contradiction"),
        *("definition", "draining", "ending", "epoch", "history", "input_text", "inputs", "interrupted", "queue"),
        *("recalled", "root", "seq", "stopping", "strands", "streams", "submitted", "superseded", "turn", "undecided"),
        *("waiters", "workflow_id", "workplace"),
    )

    def __init__(
        self,
        workplace: Workplace,
        *,
        workflow_id: str,
        definition: WorkflowDef,
        input_text: str,
        epoch: int,
        queue: str,
        history: History | None = None,
        inputs: Iterable[str] = (),
    ) -> None:
        self.workplace = workplace
        self.workflow_id = workflow_id
        self.definition = definition
        self.input_text = input_text
        self.epoch = epoch
        self.queue = queue
        self.inputs: Collection[str] = tuple(inputs)
        """The stream keys that outsiders write, and this run never does."""
        self.history = history or NO_HISTORY
        self.streams = {
            key: Stream(
                tail,
                closed=key in self.history.closed,
                values=self.history.values.get(key, 0),
                size=self.history.bytes.get(key, 0),
            )
            for key, tail in self.history.tails.items()
        }
        self._limits = Limits(workflow_id, workplace.settings, self.history)
        self.undecided = Undecided(self.history.undecided)
        self.seq, self.turn = self.history.next_place
        self.root = Branch(self, "")
        self.strands: set[Strand] = set()
        self.beat = 0
        """Counts the resumptions of its strands."""
        self.conductor: Conductor | None = None
        """Hands on outcomes by turns; made with the first branch, since a run with one needs none."""
        self.stopping: RunStopped | None = None
        self.superseded = False
        """Whether a new pass takes its place, from what the tables hold: then not even its end may be written."""
        self.contradiction: NonDeterminismError | None = None
        """Why the workflow is to be parked, whatever its body makes of the error."""
        self.cancelled = False
        """Whether it is to be cancelled: then no operation begins, and none under way leaves a record."""
        self.ending = False
        self.bodies = 0
        """Step bodies under way."""
        self.draining: Callable[[], None] | None = None
        self.interrupted = _NOBODY_WAITS if definition.is_async else threading.Event()
        """Wakes what a thread of this run waits for: it has stopped, or is to be cancelled."""
        self.calls: list[Future[Any]] = []
        """Bodies on the loop that the thread of this run waits for."""
        self.waiters: dict[Waiter, None] = {}
        self.recalled: set[str] = set()
        """Records that were handed on again while the run had one branch."""
        self.submitted = False
        self.blocks = 0
        """Stream blocks that it has made durable."""
        self._began = time.monotonic()
        self._to_recall = sum(record.kind in HANDED_ON for record in self.history.records.values())
        self._entries: list[Entry] = []
        self._written: dict[tuple[str, str], int] = {}
        self._buffered = 0
        self._room: list[Callable[[], None]] = []
        self._cancel_listeners: list[Callable[[], object]] = []
        self._lock = threading.Lock()

    @property
    def settings(self) -> Settings:
        """The engine's settings."""
        return self.workplace.settings

    @property
    def loop_hands(self) -> Hands:
        """How its code on the loop waits."""
        return self.workplace.loop_hands

    @property
    def thread_hands(self) -> Hands:
        """How its code on a thread waits."""
        return self.workplace.thread_hands

    @property
    def family(self) -> Family:
        """The engine, as it looks from inside a workflow."""
        return self.workplace.family

    @property
    def active(self) -> bool:
        """Whether new tasks of its branches are branches of it."""
        return not self.ending and self.stopping is None

    def check_active(self) -> None:
        """Raises :class:`RunStopped` when no operation may begin any more."""
        if self.stopping is not None:
            raise self.stopping
        if self.cancelled:
            raise self._cancellation()
        if self.ending:
            raise RunStopped(f"workflow {self.workflow_id!r} is no longer run here")

    def enter_branch(self, branch: Branch) -> None:
        """Makes ``branch`` the scope of the calling context, and the run one that has branches."""
        current_scope.set(branch)
        if self.conductor is None:
            self.conductor = Conductor(self)

    # -- what the body asks for, on its own thread -------------------------------------------------------------------

    def append(self, record: Record) -> None:
        """Buffers a record; its waiter hears when it is durable and its turn has come."""
        with self._lock:
            if self.stopping is not None:
                raise self.stopping
            if self.cancelled:
                raise self._cancellation()
            if record.waiter is not None:
                self.waiters[record.waiter] = None
            self._push(record)
        self.workplace.submit(self)

    def append_item(self, record: Record, durable: Waiter, letter: tuple[str, str] | None = None) -> None:
        """Buffers the record of a loop's item, and a value for a stream in the same statement.

        ``durable`` hears when it is: no turn has to come for it, since the program hears of the loop only.
        """
        with self._lock:
            self._check_writable(None)
            if letter is not None:
                record.letter = self._letter(*letter, producer=record.place.loop if record.place else "")
            self.waiters[durable] = None
            self._push(record)
            self._push(Mark(durable))
        self.workplace.submit(self)

    def _letter(self, key: str, text: str, producer: str) -> Values:
        self._check_own(key)
        if self._stream(key).closed:
            msg = f"stream {key!r} of workflow {self.workflow_id!r}, for dead letters, is closed"
            raise StreamClosedError(self.workflow_id, key, msg)
        place = (key, producer)
        count = self._written.setdefault(place, self.history.produced.get(place, 0))
        self._written[place] = count + 1
        return Values(key, producer, count, None, [text])

    def write(self, key: str, text: str, producer: Producer) -> None:
        """Buffers one stream value, unless the producer has it durable from an earlier run.

        The count comes before the check for closed: in a replay the close may be known before the writes that
        preceded it are repeated. So it does before the limits, which what is durable has passed.
        """
        size = serde.size_of(text) + 1
        with self._lock:
            self._check_writable(producer.attempt)
            self._check_own(key)
            name = producer.name
            count = self._written.get((key, name), 0)
            if count < self.history.produced.get((key, name), 0):
                self._written[key, name] = count + 1
                self.workplace.when_skipped(self, key, name, count, text)
                return
            if self._limits.any_recorded and (recorded := self._limits.recorded(key, name, count)) is not None:
                raise recorded
            stream = self._stream(key)
            if stream.closed:
                msg = f"stream {key!r} of workflow {self.workflow_id!r} is closed; nothing can be written after that"
                raise StreamClosedError(self.workflow_id, key, msg)
            refusal = self._limits.refusal(key, stream.values, stream.bytes, size - 1) if self._limited(size) else None
            if refusal is not None:
                self._refuse(key, producer, refusal)
                raise refusal
            self._written[key, name] = count + 1
            stream.values += 1
            stream.bytes += size
            values = stream.open_values
            if values is None or values.producer != name or self._full(values):
                values = Values(key, name, count, producer.label)
                stream.open_values = values
                self._push(values)
            values.texts.append(text)
            values.size += size
            self._buffered += size
        self.workplace.submit(self)

    def close_stream(self, key: str, producer: Producer, kind: FrameKind, payload: str | None) -> None:
        """Buffers the end of a stream. Closing a closed stream does nothing."""
        with self._lock:
            self._check_writable(producer.attempt)
            self._check_own(key)
            stream = self._stream(key)
            if stream.closed:
                return
            stream.closed = True
            stream.open_values = None
            name = producer.name
            self._push(Close(key, name, self._written.get((key, name), 0), producer.label, kind, payload))
        self.workplace.submit(self)

    def resume_producer(self, key: str, producer: str) -> None:
        """Lets a producer go on behind what it has durable, instead of repeating it."""
        with self._lock:
            self._written.setdefault((key, producer), self.history.produced.get((key, producer), 0))

    def begin_attempt(self, step_key: str) -> None:
        """Takes back what earlier attempts wrote that no record has decided: their owner died in them."""
        if not self.undecided:
            return
        with self._lock:
            if not self.undecided.producers(step_key) or self.stopping is not None:
                return
            self._push(TakeBack(step_key))
        self.workplace.submit(self)

    def mark(self, waiter: Waiter) -> None:
        """Tells ``waiter`` when all that is buffered now is durable."""
        with self._lock:
            if self.stopping is not None:
                raise self.stopping
            if not self._buffered:
                waiter.set_result(None)
                return
            self.waiters[waiter] = None
            self._push(Mark(waiter))
        self.workplace.submit(self)

    def write_count(self, key: str, producer: str) -> int:
        """How many values the producer has written to the stream in this pass."""
        return self._written.get((key, producer), 0)

    @property
    def has_room(self) -> bool:
        """Whether its buffer may take more before some of it is durable."""
        return self._buffered < self.settings.buffer_bytes

    def needs_room(self, key: str, producer: Producer) -> bool:
        """Whether the producer's next write must wait for room: its buffer is full, and the value would go into it."""
        if self.has_room or self.cancelled or self.stopping is not None:
            return False
        stream = self.streams.get(key)
        name = producer.name
        durable = self._written.get((key, name), 0) < self.history.produced.get((key, name), 0)
        return not durable and not (stream is not None and stream.closed)

    def refuse_for_room(self, key: str, producer: Producer) -> None:
        """Raises that there was no room for the producer's next value in time, unless the run is over."""
        with self._lock:
            self._check_writable(producer.attempt)
            error = self._limits.back_pressure(key)
            self._refuse(key, producer, error)
        raise error

    def takes(self, key: str) -> bool:
        """Whether a value for the stream ``key`` would be taken at once."""
        stream = self.streams.get(key)
        return self.active and not self.cancelled and self.has_room and not (stream is not None and stream.closed)

    def when_cancelled(self, tell: Callable[[], object]) -> None:
        """Calls ``tell`` (from the loop's thread) when the workflow is asked to end, or now if it was."""
        with self._lock:
            if not self.cancelled:
                self._cancel_listeners.append(tell)
                return
        tell()

    def when_room(self, tell: Callable[[], None]) -> None:
        """Calls ``tell`` (from the loop's thread) once there is room, or the run has stopped."""
        with self._lock:
            waits = not self.has_room and self.stopping is None
            if waits:
                self._room.append(tell)
        if not waits:
            tell()
        else:
            self.workplace.when_room_is_short(self.workflow_id)

    def _limited(self, size: int) -> bool:
        settings = self.settings
        return size > settings.value_bytes or settings.stream_values is not None or settings.stream_bytes is not None

    def _refuse(self, key: str, producer: Producer, error: StreamError) -> None:
        """Puts a refusal that the body gets on record, ahead of whatever it does next."""
        if producer.attempt is None:
            count = self._written.get((key, producer.name), 0)
            self._push(self._limits.record(key, producer.name, count, error))

    def _check_writable(self, attempt: Attempt | None) -> None:
        if self.cancelled:
            raise self._cancellation()
        if self.stopping is not None or self.ending:
            raise self.stopping or RunStopped(f"workflow {self.workflow_id!r} has ended")
        if attempt is not None and attempt.closed:
            msg = f"attempt {attempt.name} of step {attempt.key!r} is over; it can write nothing any more"
            raise LeaseLostError(msg)

    def _check_own(self, key: str) -> None:
        if key in self.inputs:
            msg = (
                f"stream {key!r} is an input of workflow {self.workflow_id!r}: it is written and closed from outside, "
                "with engine.write_stream(...). The workflow's own values need another key"
            )
            raise StreamInputError(self.workflow_id, key, msg)

    def _stream(self, key: str) -> Stream:
        stream = self.streams.get(key)
        if stream is None:
            stream = self.streams[key] = Stream()
        return stream

    def _full(self, values: Values) -> bool:
        return len(values.texts) >= self.settings.block_values or values.size >= self.settings.block_bytes

    def _push(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._buffered += entry.size

    # -- what the journal asks for, on the loop's thread -------------------------------------------------------------

    def end(self, ending: Ending) -> None:
        """Buffers the run's last entry."""
        with self._lock:
            self.ending = True
            self._push(ending)
        self.workplace.submit(self)

    def take(self, limit: int) -> tuple[list[Entry], bool]:
        """Takes pending entries in order, about ``limit`` bytes; and whether any are left."""
        with self._lock:
            self.submitted = False
            taken = self._entries
            for count, entry in enumerate(taken):
                if limit <= 0 and count:
                    taken, self._entries = taken[:count], taken[count:]
                    return taken, True
                limit -= entry.size
                if isinstance(entry, Values):
                    stream = self.streams[entry.key]
                    if stream.open_values is entry:
                        stream.open_values = None
            self._entries = []
            return taken, False

    def committed(self, entries: list[Entry]) -> None:
        """Frees the room of durable entries and hands on the outcomes among them."""
        self._free(sum([entry.size for entry in entries]))
        told: list[Record] = []
        for entry in entries:
            if isinstance(entry, Record):
                if entry.waiter is not None:
                    told.append(entry)
            elif isinstance(entry, Mark):
                self.tell(entry)
        if not told:
            return
        if self.conductor is not None:
            self.conductor.committed(told)
        else:
            for record in told:
                self.tell(record)

    def _free(self, size: int) -> None:
        with self._lock:
            self._buffered -= size
            if not self._room or not self.has_room:
                return
            room, self._room = self._room, []
        for tell in room:
            tell()

    def tell(self, record: Record | Mark) -> None:
        """Hands one durable outcome to the operation that waits for it."""
        waiter = record.waiter
        if waiter is not None:
            self.waiters.pop(waiter, None)
            if not waiter.done():
                waiter.set_result(None)

    def stop(self, why: str) -> None:
        """Ends this pass: operations under way and all that would begin raise :class:`RunStopped`."""
        if self.stopping is not None:
            return
        with self._lock:
            self.stopping = stopping = RunStopped(why)
            waiters, self.waiters = self.waiters, {}
            room, self._room = self._room, []
            self._entries.clear()
        self.interrupted.set()
        for tell in room:
            tell()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(stopping)
        if self.conductor is not None:
            self.conductor.stop(stopping)
        for call in tuple(self.calls):
            call.cancel()
        for task in self.tasks():
            task.cancel()

    def contradict(self, error: NonDeterminismError) -> None:
        """Ends this pass because code and records disagree: it writes nothing any more but that it is blocked."""
        if self.stopping is None:
            self.contradiction = error
            self.stop("its code and its records disagree")

    @contextmanager
    def cancelling(self, call: Future[Any]) -> Iterator[None]:
        """Cancels ``call``, which the block waits for, when the run stops; then it raises :class:`RunStopped`."""
        self.calls.append(call)
        try:
            if self.stopping is not None:
                call.cancel()
            yield
        except CancelledError:
            self.check_active()
            raise
        finally:
            self.calls.remove(call)

    def cancel(self) -> None:
        """Asks the body to end: async code gets ``CancelledError``, sync code an error at its next durable call."""
        if self.cancelled or self.ending or self.stopping is not None:
            return
        with self._lock:
            self.cancelled = True
            listeners, self._cancel_listeners = self._cancel_listeners, []
        self.interrupted.set()
        for tell in listeners:
            try:
                tell()
            except Exception:
                logger.exception("workflow %s: a listener for its cancellation failed", self.workflow_id)
        for call in tuple(self.calls):
            call.cancel()
        for task in self.tasks():
            task.cancel()

    def _cancellation(self) -> BaseException:
        if isinstance(self.root.owner, ThreadOwner):
            return WorkflowCancelledError(self.workflow_id, f"workflow {self.workflow_id!r} is cancelled")
        return asyncio.CancelledError(f"workflow {self.workflow_id!r} is cancelled")

    def drain(self, drained: Callable[[], None]) -> None:
        """Holds what would begin; calls ``drained`` once no step body is under way. A run at its end just ends.

        Held, not refused: what a body made of a refusal while other branches go on would be durable.
        """
        with self._lock:
            self.draining = drained
            idle = self.bodies == 0 and not self.ending
        if idle:
            drained()

    def body_begins(self) -> None:
        """A step body is about to run."""
        with self._lock:
            self.bodies += 1

    def body_ended(self) -> None:
        """A step body has ended and its outcome is durable, or is not going to be."""
        with self._lock:
            self.bodies -= 1
            drained = self.draining if self.bodies == 0 and not self.ending else None
        if drained is not None:
            drained()

    @property
    def age(self) -> float:
        """Seconds since its history was read."""
        return time.monotonic() - self._began

    def tasks(self) -> set[asyncio.Task[Any]]:
        """The tasks of its branches."""
        return {strand.task for strand in self.strands if strand.task is not None and not strand.task.done()}

    @property
    def is_replaying(self) -> bool:
        """Whether it is still handed what an earlier run has recorded."""
        if self.conductor is not None:
            return self.conductor.is_replaying
        return len(self.recalled) < self._to_recall

    def recorded(self, key: str) -> Recorded | None:
        """The record under ``key``, if there is one."""
        return self.history.records.get(key)
