"""What one run has in a batch, with its sequence numbers, turns and offsets given at the last moment.

``seq`` and ``turn`` are the run's own counters; the offsets are explained in ``frames``. A slice keeps what it assumed,
to be acknowledged or dropped as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from dbosflow._records.keys import iteration_path
from dbosflow._records.kinds import RecordKind
from dbosflow._runtime.journal.source import Source
from dbosflow._runtime.runs.entries import AttemptRollback, Close, Continuation, Ending, Record, Suspension, Values
from dbosflow._runtime.streams.frames import Frames
from dbosflow._store.notify import ALARM_TOPIC, queue_topic, stream_topic, workflow_topic
from dbosflow.types import FrameKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dbosflow._runtime.runs.entries import Entry, Start
    from dbosflow._runtime.streams.statistics import StreamStatistics
    from dbosflow._store.batch_rows import BlockRow, Row
    from dbosflow._store.carried import Carried


R = TypeVar("R", bound=Source)

MOST_RECORDS = 2**31
"""Of a workflow, over all its iterations: their places have 32 bits, and begin with 0."""
_GOES_ON = (Suspension, Continuation)
"""Endings of a pass that nobody waits for: the workflow goes on."""


class Slice(Generic[R]):
    """What one run has in one batch. A run has one slice at a time, so offsets can be set when it is built."""

    __slots__ = (
        *("_in_turn", "_turns", "attributes", "carried", "ending", "entries", "frames", "records", "run", "starts"),
    )

    def __init__(self, run: R, entries: Sequence[Entry]) -> None:
        self.run = run
        self.entries = entries
        self.records: list[Row] = []
        """The rows of the slice's records."""
        self._turns = 0
        """How many turns have ended within the slice, with the outcome of a relaxed step each."""
        self._in_turn = False
        """Whether records follow the last of these."""
        self.starts: list[Start] = []
        """The starts of children that the records cause."""
        self.attributes: dict[str, str | None] = {}
        """The changes of the workflow's attributes; of several changes of one only the last."""
        self.ending: Ending | None = None
        self.carried: Carried | None = None
        """What the next iteration gets, if the slice ends one."""
        streams = run.written_streams
        self.frames: Frames | None = self._new_frames() if streams is not None and streams.uncommitted else None
        """What the slice makes of the run's streams; ``None`` for most, whose records have nothing to do with any."""
        for entry in entries:
            if isinstance(entry, Record):
                self._record(entry)
            elif isinstance(entry, Values):
                self._framed().values(entry)
            elif isinstance(entry, Close):
                self._framed().close(entry)
            elif isinstance(entry, AttemptRollback):
                self._framed().roll_back_attempts(entry.step_key)
            elif isinstance(entry, Ending):
                self.ending = entry
        if self.ending is not None and self.ending.ends_streams and (streams is not None or run.inputs):
            self._framed().end(self.ending)
        if isinstance(self.ending, Continuation):
            self._continue(self.ending)

    def _continue(self, continuation: Continuation) -> None:
        """Takes back what is undecided, and adds the record with which the next iteration begins."""
        if self.frames is not None:
            self.frames.roll_back_all()
        has_streams = self.run.written_streams is not None
        places = self.run.streams.places(self.frames) if has_streams else ({}, {})
        self.carried = continuation.carried(*places)
        key = iteration_path(continuation.iteration)
        self._record(Record(key, RecordKind.CONTINUED, output=self.carried.text()))

    def _record(self, record: Record) -> None:
        run, item = self.run, record.loop_item
        self.records.append(
            (  # the fields of a RecordRow
                run.workflow_id,
                record.key,
                record.kind,
                run.epoch,
                run.seq + len(self.records),
                run.turn + self._turns,
                record.attempt,
                record.output,
                record.error,
                record.child_id,
                record.delay,
                record.elapsed,
                None if item is None else item.loop,
                None if item is None else item.offset,
                None if item is None else item.next,
            )
        )
        if record.start is not None:
            self.starts.append(record.start)
        if record.attributes is not None:
            self.attributes |= record.attributes
        if self.frames is not None:
            self.frames.commit_or_roll_back(record)
        if record.dead_letter is not None:
            self._framed().values(record.dead_letter)
        self._in_turn = not record.ends_turn
        if record.ends_turn:
            self._turns += 1
            if self.frames is not None:
                self.frames.begin_turn()

    def _framed(self) -> Frames:
        if self.frames is None:
            self.frames = self._new_frames()
        return self.frames

    def _new_frames(self) -> Frames:
        """Frames with the turn of the last record before them, or with them."""
        run = self.run
        records = [entry for entry in self.entries if isinstance(entry, Record | Continuation)]
        ends = [isinstance(entry, Record) and entry.ends_turn for entry in records]
        turns = sum(ends) + (bool(ends) and not ends[-1])
        return Frames(run.streams, run.turn + self._turns, run.turn + turns - 1)

    @property
    def size(self) -> int:
        """The rough size of its entries in a statement, in bytes."""
        return sum([entry.size for entry in self.entries])

    @property
    def writes_streams(self) -> bool:
        """Whether the slice writes to streams, or ends any."""
        return self.frames is not None

    @property
    def blocks(self) -> Sequence[BlockRow]:
        """The blocks that the slice appends."""
        return self.frames.blocks if self.frames is not None else ()

    def without_end(self) -> Slice[R] | None:
        """What is left of the slice if its run does not end so; ``None`` if that is nothing."""
        rest = [entry for entry in self.entries if entry is not self.ending]
        return Slice(self.run, rest) if rest else None

    @property
    def exceeds_records(self) -> bool:
        """Whether the run would have more records than there are places."""
        return self.run.seq + len(self.records) > MOST_RECORDS

    def leave_out_ends(self) -> bool:
        """Leaves out the ends of children that are in the rows of their starts; returns whether there were any."""
        return sum(start.leave_out_end() for start in self.starts) > 0

    @property
    def closes_inputs(self) -> bool:
        """Whether the slice ends streams that outside writers write, which may come first."""
        return self.frames is not None and bool(self.frames.inputs)

    def acknowledged(self, started: set[str]) -> None:
        """The slice is durable: its run goes on, and its children begin; takes their ids out of ``started``."""
        run = self.run
        if self.records:
            run.seq += len(self.records)
            run.turn += self._turns + self._in_turn
        for start in self.starts:
            start.on_decided(take_out(started, start.workflow_id))
        if self.frames is not None:
            run.streams.acknowledged(self.frames)
        run.committed(self.entries)

    def count_in(self, statistics: StreamStatistics) -> None:
        """Counts the slice's blocks, which are durable. The slice's run is not notified yet."""
        run = self.run
        has_values = bool(run.written_streams and run.written_streams.blocks)
        for block in self.blocks:
            is_first = block.kind == FrameKind.VALUES and not has_values
            has_values = has_values or is_first
            statistics.wrote(run.workflow_id, block, first_after=run.age if is_first else None)

    @property
    def is_awaited_elsewhere(self) -> bool:
        """Whether other processes may wait for the slice: for values, for work, or for an end not awaited here."""
        if self.writes_streams or not all(map(_ends_unread, self.starts)):
            return True
        return self.ending is not None and not self.run.is_awaited and not isinstance(self.ending, _GOES_ON)

    def topics(self) -> Iterable[str]:
        """The topics that have news when the slice is durable."""
        if self.frames is not None:
            for key in self.frames.touched():
                yield stream_topic(self.run.workflow_id, key)
        for start in self.starts:
            if not start.owned:
                yield queue_topic(start.queue)
                if start.is_urgent:
                    yield ALARM_TOPIC
            elif start.content is not None:  # readers may wait for it, since its id follows from ours
                yield from start.content.topics()
            elif start.outcome is not None:
                yield workflow_topic(start.workflow_id)
        if self.ending is not None and not isinstance(self.ending, _GOES_ON):
            yield workflow_topic(self.run.workflow_id)


def _ends_unread(start: Start) -> bool:
    """Whether the row has the end of a child, which its parent waits for here, and which has written to no stream."""
    return start.outcome is not None and (start.content is None or not start.content.writes_streams)


def take_out(started: set[str], workflow_id: str) -> bool:
    """Whether the statement inserted the id; true once, for the first of its starts of that id, whose row it is."""
    if workflow_id not in started:
        return False
    started.remove(workflow_id)
    return True
