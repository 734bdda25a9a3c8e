"""A batch in the making: slices of runs, with their sequence numbers, turns and offsets given at the last moment.

Offsets come from the last *acknowledged* tail, so a block starts where its writer has seen the stream end; ``seq`` and
``turn`` are the run's own counters. A slice keeps what it assumed, to be acknowledged or dropped as a whole.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dbosflow import serde
from dbosflow._runtime.conductor import GIVEN_UP
from dbosflow._runtime.entries import Close, Ending, Record, TakeBack, Values
from dbosflow._runtime.undecided import RESUMED, Undecided
from dbosflow._store.batch import BatchRows
from dbosflow._store.notify import queue_topic, stream_topic, workflow_topic
from dbosflow._store.workflow import keys_text
from dbosflow.types import FrameKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dbosflow._runtime.entries import Entry, Place, Start
    from dbosflow._runtime.run import Run


@dataclass(frozen=True, slots=True)
class Block:
    """A row of a stream: consecutive values of one producer, or a control frame."""

    key: str
    offset: int
    count: int
    kind: FrameKind
    values: str | None
    producer: str = ""
    producer_seq: int = 0
    attempt: str | None = None


@dataclass(slots=True, eq=False)
class Slice:
    """What one run has in one batch. There is one of a run at a time, so its offsets can be given when it is built.

    What it makes of the run's streams becomes the run's when it is acknowledged.
    """

    run: Run
    entries: list[Entry]
    records: list[Record] = field(default_factory=list)
    ending: Ending | None = None
    blocks: list[Block] = field(default_factory=list)
    tails: dict[str, int] = field(default_factory=dict)
    """The tail of each stream that it writes to, after it."""
    committed: set[str] = field(default_factory=set)
    """Streams whose values, written by an attempt, are committed by its records."""
    ended: set[str] = field(default_factory=set)
    inputs: list[tuple[str, FrameKind, str | None]] = field(default_factory=list)
    """The inputs that end with the workflow, at offsets that only the statement can know."""
    reopened: set[str] = field(default_factory=set)
    undecided: Undecided = field(init=False)

    def __post_init__(self) -> None:
        self.undecided = self.run.undecided.copy()
        for entry in self.entries:
            if isinstance(entry, Record):
                self.records.append(entry)
                self._decide(entry)
                if entry.letter is not None:
                    self._values(entry.letter)
            elif isinstance(entry, Values):
                self._values(entry)
            elif isinstance(entry, Close):
                self._close(entry)
            elif isinstance(entry, TakeBack):
                self._take_back(one for one in self.undecided.producers(entry.step_key) if not _is_resumed(one))
            elif isinstance(entry, Ending):
                self.ending = entry
        if self.ending is not None and self.ending.status.ended:
            self._take_back(self.undecided.producers())
            self._close_streams(self.ending)

    def _values(self, entry: Values) -> None:
        text = f"[{','.join(entry.texts)}]"
        offset = self._append(
            entry.key,
            len(entry.texts),
            FrameKind.VALUES,
            text,
            producer=entry.producer,
            producer_seq=entry.producer_seq,
            attempt=entry.attempt,
        )
        if entry.attempt is not None:
            self.undecided.wrote(entry.producer, entry.key, offset, len(entry.texts))

    def _close(self, close: Close) -> None:
        """Ends a stream, or, where some of it may still be taken back, holds the end until that is decided."""
        if close.attempt is not None:
            self.undecided.wrote(close.producer, close.key, 0, 0)
        if self.undecided.holds(close.key):
            self.undecided.held_closes[close.key] = close
        else:
            self._append_close(close)

    def _decide(self, record: Record) -> None:
        """What the record says of attempts: committed by the success that names them, else taken back."""
        undecided = self.undecided
        if not undecided:
            return
        if record.kind == "attempt":
            self._take_back([record.key])
        elif record.kind == "given_up":
            self._take_back(undecided.producers(record.key.removesuffix(GIVEN_UP)))
        elif record.kind == "step":
            for producer in undecided.producers(record.key):
                if record.error is None and producer.rpartition("@")[2] in {record.attempt, RESUMED}:
                    for key, _ in undecided.decide(producer):
                        self.committed.add(key)
                        self._release_close(key)
                else:
                    self._take_back([producer])

    def _take_back(self, producers: Iterable[str]) -> None:
        for producer in producers:
            attempt = producer.rpartition("@")[2]
            for key, ranges in self.undecided.decide(producer):
                if ranges:
                    text = json.dumps(ranges)
                    self._append(key, 1, FrameKind.ROLLBACK, text, producer=producer, attempt=attempt)
                held = self.undecided.held_closes.get(key)
                if held is not None and held.attempt is not None and held.producer == producer:
                    del self.undecided.held_closes[key]
                    self.reopened.add(key)
                self._release_close(key)

    def _release_close(self, key: str) -> None:
        if key in self.undecided.held_closes and not self.undecided.holds(key):
            self._append_close(self.undecided.held_closes.pop(key))

    def _append_close(self, close: Close) -> None:
        self._append(close.key, 1, close.kind, close.payload, producer=close.producer, producer_seq=close.producer_seq)

    def _close_streams(self, ending: Ending) -> None:
        """Every stream that the workflow leaves open ends with it, in the same statement."""
        error = ending.error and serde.brief_error(ending.error)
        for key, stream in self.run.streams.items():
            if not stream.ended and key not in self.ended:
                self._append(key, 1, ending.frame, error)
        self.inputs = [(key, ending.frame, error) for key in self.run.inputs]

    def _append(
        self,
        key: str,
        count: int,
        kind: FrameKind,
        values: str | None,
        *,
        producer: str = "",
        producer_seq: int = 0,
        attempt: str | None = None,
    ) -> int:
        if kind.terminal:
            self.ended.add(key)
        offset = self.tails.get(key, self.run.streams[key].tail)
        self.blocks.append(Block(key, offset, count, kind, values, producer, producer_seq, attempt))
        self.tails[key] = offset + count
        return offset

    def add_to(self, rows: BatchRows) -> None:
        """Adds its rows to a batch."""
        run = self.run
        workflow_id, epoch = run.workflow_id, run.epoch
        rows.runs.append((workflow_id, epoch))
        rows.starts.extend(start_row(record.start) for record in self.records if record.start is not None)
        for position, record in enumerate(self.records):
            rows.records.append(
                (
                    *(workflow_id, record.key, record.kind, epoch, run.seq + position, run.turn, record.attempt),
                    *(record.output, record.error, record.child_id, record.delay, record.elapsed),
                    *_placed(record.place),
                )
            )
        for key in self.tails:
            rows.tails.append((workflow_id, key, run.streams[key].tail))
        for block in self.blocks:
            size = serde.size_of(block.values or "")
            rows.blocks.append(
                (
                    *(workflow_id, block.key, block.offset, block.count, block.kind, block.values, size),
                    *(block.producer, block.producer_seq, block.attempt, epoch),
                )
            )
        for key, kind, error in self.inputs:
            rows.inputs.append((workflow_id, key, kind, error, len(error or ""), epoch))
        if self.ending is not None:
            rows.ends.append((workflow_id, epoch, self.ending.status, self.ending.output, self.ending.error))

    def acknowledged(self, started: set[str]) -> None:
        """It is durable: its run goes on, and its children begin; their ids are taken out of ``started``."""
        run = self.run
        for record in self.records:
            if record.start is not None:
                record.start.decided(take_out(started, record.start.workflow_id))
        if self.records:
            run.seq += len(self.records)
            run.turn += 1
        run.blocks += len(self.blocks)
        for key, tail in self.tails.items():
            run.streams[key].tail = tail
        for key in self.ended:
            run.streams[key].ended = True
        for key in self.reopened:
            run.streams[key].closed = False
        run.undecided = self.undecided
        run.committed(self.entries)

    def topics(self) -> Iterable[str]:
        """Who has news when it is durable."""
        for key in self.committed.union(self.tails):
            yield stream_topic(self.run.workflow_id, key)
        for record in self.records:
            if record.start is not None and not record.start.owned:
                yield queue_topic(record.start.queue)
        if self.ending is not None:
            yield workflow_topic(self.run.workflow_id)


def _is_resumed(producer: str) -> bool:
    return producer.endswith(f"@{RESUMED}")


def take_out(started: set[str], workflow_id: str) -> bool:
    """Whether the id is among those that the statement inserted; once, though it may stand in it twice."""
    if workflow_id not in started:
        return False
    started.remove(workflow_id)
    return True


def start_row(start: Start) -> tuple[Any, ...]:
    """A start as a row of the statement."""
    return (
        *(start.workflow_id, start.name, start.queue, start.priority, start.input),
        *(start.parent_id, start.parent_key, keys_text(start.inputs), start.owned),
    )


def _placed(place: Place | None) -> tuple[str | None, int | None, int | None]:
    return (None, None, None) if place is None else (place.loop, place.offset, place.next)


@dataclass(slots=True, eq=False)
class Batch:
    """One statement: slices of runs, and starts. ``sent`` counts how often it may have arrived."""

    slices: list[Slice]
    starts: list[Start]
    sent: int = 0

    @property
    def empty(self) -> bool:
        """Whether nothing is left in it."""
        return not self.slices and not self.starts

    def rows(self) -> BatchRows:
        """The rows of the statement, the same at each sending."""
        rows = BatchRows()
        for part in self.slices:
            part.add_to(rows)
        rows.starts.extend(map(start_row, self.starts))
        return rows

    def without(self, runs: set[Run]) -> Batch:
        """The batch without the slices of these runs. The whole one may have arrived all the same."""
        return Batch([part for part in self.slices if part.run not in runs], self.starts, self.sent)

    def given_up(self) -> set[Run]:
        """Runs that were stopped meanwhile, to reload or because they are owned elsewhere; an end is written anyhow."""
        return {part.run for part in self.slices if part.run.stopping is not None and part.ending is None}

    @property
    def closes_inputs(self) -> bool:
        """Whether it ends streams that outsiders write, who may be faster."""
        return any(part.inputs for part in self.slices)

    def split(self) -> Sequence[Batch]:
        """One batch for each slice and each start, to find the one that the database refuses."""
        return [Batch([part], []) for part in self.slices] + [Batch([], [start]) for start in self.starts]

    def split_off_inputs(self) -> Sequence[Batch]:
        """Each slice that ends inputs by itself, and the rest together; if there are none of them, as :meth:`split`."""
        closing = {part.run for part in self.slices if part.inputs}
        rest = self.without(closing)
        if not closing or rest.empty:
            return self.split()
        return [Batch(rest.slices, rest.starts), *(Batch([part], []) for part in self.slices if part.run in closing)]
